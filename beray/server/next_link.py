"""Where the next page of a list is, for the header `Link` (RFC 8288)."""

from urllib.parse import urlencode

from starlette.requests import Request


def next_link(request: Request, before: int) -> str:
    """The same list from below the id `before`."""
    query = [(key, value) for key, value in request.query_params.multi_items() if key != "before"]
    return f'<{request.url.path}?{urlencode([*query, ("before", str(before))])}>; rel="next"'
