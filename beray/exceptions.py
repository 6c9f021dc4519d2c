"""What the SDK raises.

BeRayException
|- APIError                        the server refused: status_code, error_detail, code, request_id, ...
|  |- AuthenticationError          401, 403
|  |- NotFoundError                404
|  |- ConflictError                409
|  `- UnprocessableEntityError     422
|- NetworkError                    no whole answer came
|  |- ConnectionFailed             refused, reset, cut, name not found, certificate not accepted
|  `- RequestTimeout               not in time
`- ProtocolError                   an answer that is not BeRay's
   `- EventTooLarge                an event above the client's bound
"""


class BeRayException(Exception):
    """Base of everything the SDK raises on purpose."""


class ProtocolError(BeRayException):
    """The server answered something that the wire contract doesn't know."""


class EventTooLarge(ProtocolError):
    """An event of a stream is larger than the client's bound."""
