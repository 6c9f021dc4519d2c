"""What the server tells about itself."""

from beray import BeRayClient
from beray.types import Info, ModelCheck, Ready


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
