"""Errors as OpenAI and DeepSeek write them."""

from typing import Any

from spoutnik.serve.errors import ApiError

TYPES = {401: "authentication_error", 402: "insufficient_quota", 403: "permission_error", 429: "rate_limit_error"}


def error_body(error: ApiError, request_id: str) -> dict[str, Any]:
    """{"error": {"message", "type", "param", "code"}}."""
    kind = TYPES.get(error.status) or ("server_error" if error.status >= 500 else "invalid_request_error")
    return {"error": {"message": error.message, "type": kind, "param": error.param, "code": error.code}}
