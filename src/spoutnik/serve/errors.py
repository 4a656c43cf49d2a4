"""What goes wrong with a request, independent of the dialect in which it is told."""

import math
from collections.abc import Mapping

from spoutnik.engine.scheduler import QueueFullError
from spoutnik.errors import UserError


class ApiError(Exception):
    """A request that gets no answer. Each dialect writes it in its own shape (see `dialect.py`); `status` is HTTP's."""

    status = 500

    def __init__(self, message: str, *, param: str | None = None, code: str | None = None, headers: Mapping[str, str] | None = None):
        super().__init__(message)
        self.message, self.param, self.code, self.headers = message, param, code, dict(headers or {})


class InvalidRequestError(ApiError):
    """The caller's fault; the same request will never do better."""

    status = 400


class ContextTooLongError(InvalidRequestError):
    """The prompt does not fit into the model's context."""

    def __init__(self, tokens: int, context: int, param: str = "messages"):
        super().__init__(
            f"The prompt has {tokens} tokens, but the context holds {context} and must have room for at least one more; shorten it.",
            param=param, code="context_length_exceeded",
        )  # fmt: skip


class UnauthorisedError(ApiError):
    """No key, or a wrong one."""

    status = 401

    def __init__(self, message: str):
        super().__init__(message, code="invalid_api_key", headers={"www-authenticate": "Bearer"})


class QuotaError(ApiError):
    """The key's money or tokens are used up; trying again does not help."""

    status = 402

    def __init__(self, message: str):
        super().__init__(message, code="insufficient_quota", headers={"x-should-retry": "false"})


class ForbiddenError(ApiError):
    """Known, but not allowed."""

    status = 403


class NotFoundError(ApiError):
    """There is no such model or address."""

    status = 404


class TooLargeError(ApiError):
    """The body is larger than the server reads."""

    status = 413

    def __init__(self, most_bytes: int):
        super().__init__(f"The body is larger than the {most_bytes} bytes that this server reads; send less at a time.")


class _LaterError(ApiError):
    def __init__(self, message: str, retry_after_s: float | None = None, *, code: str | None = None):
        headers = {"retry-after": str(max(1, math.ceil(1 if retry_after_s is None else retry_after_s)))}
        super().__init__(message, code=code, headers=headers)


class RateLimitError(_LaterError):
    """This caller asks too often."""

    status = 429


class ConflictError(_LaterError):
    """The same request is under way."""

    status = 409


class OverloadedError(_LaterError):
    """The server cannot take more at present, whoever asks."""

    status = 503


class ServerError(ApiError):
    """The server's fault."""

    status = 500


class ClientGoneError(Exception):
    """Nobody is left to answer to."""


def stopping() -> OverloadedError:
    """What is told of requests that the server's end cuts off."""
    return OverloadedError("The server stops.", code="stopping")


def told(error: Exception) -> ApiError:
    """What a caller is told of an error that came from the engine. Faults of the program are not described to strangers."""
    if isinstance(error, ApiError):
        return error
    if isinstance(error, QueueFullError):
        return OverloadedError(str(error), error.retry_after, code="queue_full")
    if isinstance(error, UserError):
        return InvalidRequestError(str(error))
    return ServerError("The server failed at this request; its log says why.")
