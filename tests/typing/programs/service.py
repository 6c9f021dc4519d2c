"""What the server tells about itself."""

from beray import BeRayClient, RequestInfo, ResponseInfo
from beray.types import DayUsage, Info, ModelCheck, Ready


def tools_of(client: BeRayClient) -> list[str]:
    info: Info = client.get_info()
    print(info["version"], info["limits"]["upload_bytes"], info["limits"]["user_day"]["cost_usd"] or 0.0)
    return [tool["name"] for tool in info["tools"] if tool["is_default"]]


def is_confined(client: BeRayClient, name: str) -> bool:
    sandbox = client.get_info()["sandbox"]
    return sandbox is not None and any(row["is_confined"] for row in sandbox["confinements"] if row["name"] == name)


def hints_of(client: BeRayClient) -> list[str]:
    ready: Ready = client.get_ready()
    return [f"{name}: {check['hint']}" for name, check in ready["checks"].items() if check["state"] != "ok"]


def try_model(client: BeRayClient) -> str:
    check: ModelCheck = client.check_model()
    return "ok" if check["error"] is None else check["error"]["message"]


def is_alive(client: BeRayClient) -> bool:
    return client.get_health()["status"] == "ok"


def is_nearly_used_up(client: BeRayClient) -> bool:
    usage: DayUsage = client.get_usage()
    limit = usage["limits"]["cost_usd"]
    return limit is not None and (usage["used"]["cost_usd"] or 0) > 0.9 * limit


def watched(base_url: str) -> BeRayClient:
    def before(request: RequestInfo) -> None:
        print(request.method, request.url, request.attempt)

    def after(response: ResponseInfo) -> None:
        print(response.status_code, response.elapsed_seconds, response.request_id or response.error)

    return BeRayClient(base_url, on_request=before, on_response=after, deadline=30)
