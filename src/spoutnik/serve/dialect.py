"""A dialect: the addresses, shapes and errors of one family of clients. `app.create_app` puts any number of them side by side."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse

from spoutnik.serve.allowance import Allowances, openai_headers
from spoutnik.serve.auth import Caller
from spoutnik.serve.errors import ApiError
from spoutnik.serve.service import Service


@dataclass(frozen=True)
class Dialect:
    """One way of asking."""

    name: str
    router: Callable[[], APIRouter]
    """Makes its routes. A route finds what it needs with `service_of` and `caller_of`."""
    error: Callable[[ApiError, str], dict[str, Any]]
    """The JSON body of an error; the second argument is the request's id."""
    speaks: Callable[[str, Mapping[str, str]], bool]
    """Whether a request to this path with these headers (lower-case names) is told of errors in this dialect."""
    statuses: Mapping[int, int] = field(default_factory=dict)
    """HTTP's statuses of errors, where the dialect has others."""
    allowances: Callable[[Allowances], dict[str, str]] = openai_headers
    """The headers that tell a caller how its rates stand."""

    def refusal(self, error: ApiError, request_id: str) -> JSONResponse:
        """The response to a request that gets no answer."""
        return JSONResponse(self.error(error, request_id), self.statuses.get(error.status, error.status), error.headers)


def service_of(request: Request) -> Service:
    """The app's service."""
    service: Service = request.app.state.service
    return service


def caller_of(request: Request, user: str | None = None) -> Caller:
    """Who asks, as the gate recognised it, and for which of its own users."""
    return Caller(request.state.principal, request.state.request_id, user or "")
