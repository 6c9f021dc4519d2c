"""What aiohttp raises, as the SDK's own exceptions."""

import os
import ssl

import aiohttp

from beray.drivers.alike import IS_IT_RUNNING, MOST_REDIRECTS, no_connection
from beray.exceptions import BeRayException, ConnectionFailed, ProtocolError, RequestTimeout, TLSError

_NOT_SENT = (aiohttp.ClientConnectorError, aiohttp.ClientProxyConnectionError, aiohttp.ClientHttpProxyError)
_NO_TLS = (aiohttp.ClientConnectorSSLError, aiohttp.ClientConnectorCertificateError, aiohttp.ServerFingerprintMismatch)
_NO_PROTOCOL = (aiohttp.InvalidURL, aiohttp.NonHttpUrlClientError, UnicodeError)


def network_error(error: Exception, *, method: str, url: str, timeout_seconds: float) -> BeRayException:
    """What aiohttp raised, as the SDK's own exception.

    Args:
        error: What was caught.
        method: The request's method.
        url: The request's URL.
        timeout_seconds: The read timeout, for the message.
    """
    what = f"{method} {url}"
    if isinstance(error, _NO_TLS):
        return TLSError(f"{what}: no secure connection: {_reason(error)}", method=method, url=url, was_sent=False)
    if isinstance(error, aiohttp.ConnectionTimeoutError):
        message = f"{what}: the server could not be reached in time."
        return RequestTimeout(message, method=method, url=url, was_sent=False, hint=IS_IT_RUNNING)
    if isinstance(error, _NOT_SENT):
        message = no_connection(what, _reason(error))
        return ConnectionFailed(message, method=method, url=url, was_sent=False, hint=IS_IT_RUNNING)
    if isinstance(error, TimeoutError):
        return RequestTimeout(f"{what}: nothing came for {timeout_seconds:g} s.", method=method, url=url)
    if isinstance(error, aiohttp.TooManyRedirects):
        return ProtocolError(f"{what}: it was redirected more than {MOST_REDIRECTS} times.")
    if isinstance(error, _NO_PROTOCOL):
        return ProtocolError(f"{what}: {_reason(error)}")
    if isinstance(error, aiohttp.ClientError):
        return ConnectionFailed(f"{what}: the connection was cut: {_reason(error)}", method=method, url=url)
    return TLSError(f"{what}: {error}", method=method, url=url, was_sent=False)  # an OSError: a certificate's file


def _reason(error: BaseException) -> str:
    """The innermost words, such as `Connection refused`."""
    inner = error.__cause__ or error.__context__
    if inner is not None and (words := _reason(inner)) and words != type(inner).__name__:
        return words
    if isinstance(error, ssl.SSLError):
        return str(error)  # its number is not the system's
    if isinstance(error, OSError) and error.errno is not None and error.errno > 0:
        return os.strerror(error.errno)  # asyncio's own words name the address alone
    return str(error) or type(error).__name__
