"""What can go wrong, and what a program knows of it."""

from beray import APIError, BeRayClient, BeRayException, NetworkError, NotFoundError, UnprocessableEntityError


def goal_of(client: BeRayClient, task_id: int) -> str:
    try:
        return client.get_task(task_id)["goal"]
    except NotFoundError:
        return ""
    except UnprocessableEntityError as error:
        return "; ".join(str(item) for item in error.errors)
    except APIError as error:
        status: int = error.status_code
        wait: float | None = error.retry_after
        request_id: str | None = error.request_id
        return f"{status} {error.code} {error.error_detail} {wait} {request_id}"
    except NetworkError as error:
        return f"{error.method} {error.url} {error.was_sent}"
    except BeRayException as error:
        return error.hint or str(error)
