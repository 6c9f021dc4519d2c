"""Every failure as two lines and an exit status: what happened, and what to do."""

from http import HTTPStatus
from typing import Final

from beray.cli.exits import CliError, Exit
from beray.cli.language import say
from beray.cli.program import program_name
from beray.cli.terminal import Terminal, one_line
from beray.credentials import CredentialsError

_EXIT_OF_STATUS: Final = {
    HTTPStatus.BAD_REQUEST: Exit.CONFLICT,
    HTTPStatus.UNAUTHORIZED: Exit.AUTH,
    HTTPStatus.FORBIDDEN: Exit.AUTH,
    HTTPStatus.NOT_FOUND: Exit.NOT_FOUND,
    HTTPStatus.CONFLICT: Exit.CONFLICT,
    HTTPStatus.PRECONDITION_FAILED: Exit.CONFLICT,
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: Exit.CONFLICT,
    HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE: Exit.CONFLICT,
    HTTPStatus.UNPROCESSABLE_ENTITY: Exit.CONFLICT,
}
_REMEDY_OF_CODE: Final = {
    "invalid_credentials": "remedy.invalid_credentials",
    "login_needed": "remedy.login_needed",
    "invalid_verification_code": "remedy.invalid_verification_code",
    "email_already_registered": "remedy.email_already_registered",
    "task_not_found": "remedy.task_not_found",
    "file_not_found": "remedy.file_not_found",
}
_REMEDY_OF_EXIT: Final = {Exit.AUTH: "remedy.auth", Exit.NETWORK: "remedy.server"}


def explain(error: BaseException) -> CliError:
    """What to tell the person at the terminal about `error`."""
    if isinstance(error, CliError):
        return error
    if isinstance(error, CredentialsError):
        return CliError(say("credentials.bad", reason=error), say("credentials.bad.remedy"), Exit.ERROR)
    return _explain_sdk(error) or _explain_other(error)


def _explain_sdk(error: BaseException) -> CliError | None:
    from beray.exceptions import APIError, ArchiveRefused, BeRayException, NetworkError, ProtocolError

    if isinstance(error, APIError):
        exit = _EXIT_OF_STATUS.get(HTTPStatus(error.status_code), Exit.NETWORK) if _is_known(error) else Exit.NETWORK
        key = _REMEDY_OF_CODE.get(error.code or "") or _REMEDY_OF_EXIT.get(exit)
        remedy = say(key, program=program_name()) if key else ""
        return CliError(_sentence(error), remedy, exit)
    if isinstance(error, NetworkError | ProtocolError):
        return CliError(str(error), say("remedy.network", program=program_name()), Exit.NETWORK)
    if isinstance(error, ArchiveRefused) and error.reason == "exists":
        return CliError(str(error), say("files.exists.remedy"), Exit.CONFLICT)
    if isinstance(error, ArchiveRefused):
        return CliError(str(error), say("files.archive_refused.remedy"), Exit.ERROR)
    return CliError(str(error), "", Exit.ERROR) if isinstance(error, BeRayException) else None


def _explain_other(error: BaseException) -> CliError:
    if isinstance(error, OSError):
        subject = error.filename if error.filename is not None else ""
        reason = error.strerror or str(error)
        return CliError(f"{subject}: {reason}" if subject else reason, "", Exit.ERROR)
    return CliError(say("error.unexpected", kind=type(error).__name__, reason=error), say("remedy.debug"), Exit.ERROR)


def _is_known(error: BaseException) -> bool:
    return getattr(error, "status_code", None) in {status.value for status in HTTPStatus}


def _sentence(error: BaseException) -> str:
    detail = getattr(error, "error_detail", None)
    return one_line(detail) if isinstance(detail, str) and detail.strip() else one_line(str(error))


def show(terminal: Terminal, error: CliError) -> None:
    """Print the two lines."""
    mark = terminal.style("bad", "✗")
    terminal.progress(f"{mark} {one_line(error.what)}")
    for line in error.details:
        terminal.progress(f"  {terminal.style('dim', '│')} {line}")
    if error.remedy:
        terminal.progress(f"  {one_line(error.remedy)}")
