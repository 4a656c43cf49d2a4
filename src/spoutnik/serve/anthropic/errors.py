"""Errors as Anthropic writes them."""

from typing import Any

from spoutnik.serve.errors import ApiError

STATUSES = {503: 529}
"""A server that is too busy has a status of its own there."""
TYPES = {
    401: "authentication_error", 402: "billing_error", 403: "permission_error", 404: "not_found_error",
    413: "request_too_large", 429: "rate_limit_error", 503: "overloaded_error", 504: "timeout_error",
}  # fmt: skip


def error_body(error: ApiError, request_id: str) -> dict[str, Any]:
    """{"type": "error", "error": {"type", "message"}, "request_id"}."""
    kind = TYPES.get(error.status) or ("api_error" if error.status >= 500 else "invalid_request_error")
    return {"type": "error", "error": {"type": kind, "message": error.message}, "request_id": request_id}
