"""What every request passes before any route: an id, the caller, where it comes from, whether anything is still taken; and the log line."""

import asyncio
import logging
import secrets
import time
from collections.abc import Mapping
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from spoutnik.serve.dialect import Dialect
from spoutnik.serve.errors import ApiError, ForbiddenError, OverloadedError, TooLargeError, told
from spoutnik.serve.service import Service

OPEN_PATHS = frozenset({"/health", "/ready"})
"""Answered to anyone, also while draining; they tell nothing but that the server lives."""
LOCAL_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})
log = logging.getLogger("spoutnik.access")


class Gate:
    """ASGI middleware around everything. Errors that arise here are told in the dialect that the request speaks."""

    def __init__(self, app: ASGIApp, service: Service, dialects: tuple[Dialect, ...]):
        self._app, self._service, self._dialects = app, service, dialects

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        service, request_id, began = self._service, f"req_{secrets.token_hex(12)}", time.monotonic()
        headers, path, status = Headers(scope=scope), scope["path"], 500
        begun = entered = False
        state = scope.setdefault("state", {})
        state["request_id"] = request_id

        async def counted_send(message: Message) -> None:
            nonlocal status, begun
            if message["type"] == "http.response.start":
                status, begun = message["status"], True
                own = MutableHeaders(scope=message)
                own["x-request-id"] = own["request-id"] = request_id
                if "principal" in state:
                    allowances = service.authenticator.allowances(state["principal"])
                    own.update(dialect_of(self._dialects, path, headers).allowances(allowances))
            await send(message)

        service.active += 1
        try:
            try:
                if path not in OPEN_PATHS:
                    self._check(headers)
                    receive = self._bounded(receive, headers)
                    state["principal"] = await service.authenticator.authenticate(headers)
                    service.authenticator.enter(state["principal"])
                    entered = True
            except ApiError as error:
                await dialect_of(self._dialects, path, headers).refusal(error, request_id)(scope, receive, counted_send)
                return
            try:
                await self._app(scope, receive, counted_send)
            except Exception as error:
                if begun:
                    raise
                log.exception("a request failed", extra={"fields": {"request_id": request_id}})
                await dialect_of(self._dialects, path, headers).refusal(told(error), request_id)(scope, receive, counted_send)
        finally:
            service.active -= 1
            if entered:
                service.authenticator.leave(state["principal"])
            route = getattr(scope.get("route"), "path", "none")
            service.metrics.responses.labels(scope["method"], route, status).inc()
            if path not in OPEN_PATHS:
                fields = {
                    "request_id": request_id, "method": scope["method"], "path": route, "status": status,
                    "seconds": round(time.monotonic() - began, 4), "principal": getattr(state.get("principal"), "id", None),
                }  # fmt: skip
                log.info("request", extra={"fields": fields})

    def _bounded(self, receive: Receive, headers: Mapping[str, str]) -> Receive:
        """Reads no more of a body than the server takes, nor waits longer for it. Raises TooLargeError at once where the length is told."""
        settings, read, whole = self._service.settings, 0, False
        most, loop = settings.most_body_bytes, asyncio.get_running_loop()
        end = loop.time() + settings.body_s
        length = headers.get("content-length", "")
        if length.isdecimal() and int(length) > most:
            raise TooLargeError(most)

        async def bounded() -> Message:
            nonlocal read, whole
            try:  # what comes behind the body is the client's leaving, which has no hour
                message = await asyncio.wait_for(receive(), None if whole else max(0.0, end - loop.time()))
            except TimeoutError as error:
                detail = f"The body did not come within {settings.body_s:g} seconds"
                raise HTTPException(408, detail, {"connection": "close"}) from error
            read, whole = read + len(message.get("body", b"")), not message.get("more_body", False)
            if read > most:
                raise HTTPException(413)  # the one kind of error that FastAPI passes on from here
            return message

        return bounded

    def _check(self, headers: Mapping[str, str]) -> None:
        """A server without keys is for this machine: names that lead here from elsewhere and pages of other sites are refused."""
        if self._service.draining:
            raise OverloadedError("The server is about to stop and takes nothing new.", self._service.settings.drain_s)
        host = headers.get("host", "")
        if not self._service.authenticator.required and _hostname(host) not in LOCAL_NAMES:
            raise ForbiddenError(f"This server has no keys, so it answers to localhost only, not to {host!r}.")
        origin = headers.get("origin")
        if origin is not None and origin.partition("://")[2] != host:
            raise ForbiddenError(f"Pages of other sites ({origin}) may not use this server.")


def dialect_of(dialects: tuple[Dialect, ...], path: str, headers: Mapping[str, str]) -> Dialect:
    """The first dialect that a request speaks, or the last one of all."""
    return next((dialect for dialect in dialects if dialect.speaks(path, headers)), dialects[-1])


def _hostname(host: str) -> str | None:
    """A host without its port; None for nonsense."""
    try:
        return urlsplit(f"//{host}").hostname
    except ValueError:
        return None
