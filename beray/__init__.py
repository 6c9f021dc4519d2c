"""BeRay: give it a goal in words, watch it work, take the files.

The public names are loaded when they are first used, so that `import beray` costs next to nothing.
"""

TYPE_CHECKING = False  # `typing` would be most of what `import beray` costs; type checkers know the name

if TYPE_CHECKING:
    from beray import webhooks as webhooks
    from beray.async_client import AsyncBeRayClient as AsyncBeRayClient
    from beray.client import BeRayClient as BeRayClient
    from beray.exceptions import APIError as APIError
    from beray.exceptions import ArchiveRefused as ArchiveRefused
    from beray.exceptions import AuthenticationError as AuthenticationError
    from beray.exceptions import BeRayException as BeRayException
    from beray.exceptions import ConflictError as ConflictError
    from beray.exceptions import ConnectionFailed as ConnectionFailed
    from beray.exceptions import DownloadDamaged as DownloadDamaged
    from beray.exceptions import EventTooLarge as EventTooLarge
    from beray.exceptions import FolderRefused as FolderRefused
    from beray.exceptions import NetworkError as NetworkError
    from beray.exceptions import NotConfigured as NotConfigured
    from beray.exceptions import NotFoundError as NotFoundError
    from beray.exceptions import ProtocolError as ProtocolError
    from beray.exceptions import RequestTimeout as RequestTimeout
    from beray.exceptions import TaskFailed as TaskFailed
    from beray.exceptions import TLSError as TLSError
    from beray.exceptions import UnprocessableEntityError as UnprocessableEntityError
    from beray.exceptions import UploadDamaged as UploadDamaged
    from beray.exceptions import WaitTimeout as WaitTimeout
    from beray.exceptions import WebhookRefused as WebhookRefused
    from beray.protocol.watching import RequestInfo as RequestInfo
    from beray.protocol.watching import ResponseInfo as ResponseInfo
    from beray.results import AsyncTaskResult as AsyncTaskResult
    from beray.results import TaskResult as TaskResult
    from beray.unzip import extract_zip_safely as extract_zip_safely

__version__ = "0.1.0"

_MODULE_OF = {
    "AsyncBeRayClient": "beray.async_client",
    "BeRayClient": "beray.client",
    "TaskResult": "beray.results",
    "AsyncTaskResult": "beray.results",
    "RequestInfo": "beray.protocol.watching",
    "ResponseInfo": "beray.protocol.watching",
    "extract_zip_safely": "beray.unzip",
    "APIError": "beray.exceptions",
    "ArchiveRefused": "beray.exceptions",
    "AuthenticationError": "beray.exceptions",
    "BeRayException": "beray.exceptions",
    "ConflictError": "beray.exceptions",
    "ConnectionFailed": "beray.exceptions",
    "DownloadDamaged": "beray.exceptions",
    "EventTooLarge": "beray.exceptions",
    "FolderRefused": "beray.exceptions",
    "NetworkError": "beray.exceptions",
    "NotConfigured": "beray.exceptions",
    "NotFoundError": "beray.exceptions",
    "ProtocolError": "beray.exceptions",
    "RequestTimeout": "beray.exceptions",
    "TaskFailed": "beray.exceptions",
    "TLSError": "beray.exceptions",
    "UnprocessableEntityError": "beray.exceptions",
    "UploadDamaged": "beray.exceptions",
    "WaitTimeout": "beray.exceptions",
    "WebhookRefused": "beray.exceptions",
}

__all__ = [  # noqa: RUF022  # what is called first, then the errors
    "BeRayClient",
    "AsyncBeRayClient",
    "TaskResult",
    "AsyncTaskResult",
    "RequestInfo",
    "ResponseInfo",
    "extract_zip_safely",
    "webhooks",
    "APIError",
    "ArchiveRefused",
    "AuthenticationError",
    "BeRayException",
    "ConflictError",
    "ConnectionFailed",
    "DownloadDamaged",
    "EventTooLarge",
    "FolderRefused",
    "NetworkError",
    "NotConfigured",
    "NotFoundError",
    "ProtocolError",
    "RequestTimeout",
    "TaskFailed",
    "TLSError",
    "UnprocessableEntityError",
    "UploadDamaged",
    "WaitTimeout",
    "WebhookRefused",
]


def __getattr__(name: str) -> object:
    if name not in _MODULE_OF and name != "webhooks":
        raise AttributeError(f"module 'beray' has no attribute {name!r}")
    from importlib import import_module

    if name == "webhooks":  # the one module among the names; importing it sets the attribute
        return import_module("beray.webhooks")
    value = getattr(import_module(_MODULE_OF[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
