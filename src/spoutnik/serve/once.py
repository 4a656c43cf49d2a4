"""A request that comes again with the same `Idempotency-Key` gets the answer that it got before, and is computed and paid once.

For whole answers alone: a stream that broke off has told part of its answer already. Answers are kept in memory for a while.
"""

import hashlib
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

from fastapi import Request, Response
from fastapi.routing import APIRoute
from starlette.types import Message, Receive, Scope, Send

from spoutnik.serve.dialect import caller_of
from spoutnik.serve.errors import ConflictError, InvalidRequestError
from spoutnik.serve.responses import Patient

HEADER = "idempotency-key"
LONGEST = 255
KEPT_S = 600.0
MOST_BYTES = 64 << 20
Key = tuple[str, str, str]
"""The caller, the path, and the key that the caller chose."""


@dataclass
class Entry:
    """A request and, once there is one, its answer."""

    digest: bytes
    """Of the request's body."""
    since: float
    answer: bytes | None = None


class Answered:
    """Requests with keys: those under way, and the answers of the last ten minutes, 64 MiB of them at most."""

    def __init__(self, clock: Callable[[], float] = time.monotonic):
        self._entries: dict[Key, Entry] = {}
        self._clock = clock

    def begin(self, key: Key, digest: bytes) -> bytes | None:
        """The answer, if there is one; else the request is under way from now on.

        Raises ConflictError where it is so already, and InvalidRequestError where the key came with another body.
        """
        self._forget()
        entry = self._entries.get(key)
        if entry is None:
            self._entries[key] = Entry(digest, self._clock())
            return None
        if entry.digest != digest:
            raise InvalidRequestError(f"The {HEADER} {key[2]!r} came with another request before; choose a new one.")
        if entry.answer is None:
            raise ConflictError(f"The request with the {HEADER} {key[2]!r} is being answered; ask again for the answer.", 1.0)
        return entry.answer

    def end(self, key: Key, answer: bytes | None) -> None:
        """The request has been answered, or (None) may be sent anew."""
        if answer is None:
            self._entries.pop(key, None)
        else:
            self._entries[key] = Entry(self._entries.pop(key).digest, self._clock(), answer)

    def _forget(self) -> None:
        """Drops what is too old, and the oldest of what is too much."""
        done = [(key, entry.since, len(entry.answer)) for key, entry in self._entries.items() if entry.answer is not None]
        held = sum(size for _, _, size in done)
        for key, since, size in done:
            if held > MOST_BYTES or since < self._clock() - KEPT_S:
                held -= size
                del self._entries[key]


class OnceRoute(APIRoute):
    """A route that knows such keys."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def once(request: Request) -> Response:
            chosen = request.headers.get(HEADER)
            if not chosen:
                return await handle(request)
            if len(chosen) > LONGEST:
                raise InvalidRequestError(f"The {HEADER} has {len(chosen)} characters; it may have {LONGEST}.")
            answered: Answered = request.app.state.answered
            key = (caller_of(request).principal.id, request.url.path, chosen)
            answer = answered.begin(key, hashlib.sha256(await request.body()).digest())
            if answer is not None:
                return Response(answer, media_type="application/json", headers={"idempotent-replayed": "true"})
            try:
                response = await handle(request)
            except BaseException:
                answered.end(key, None)
                raise
            return Recorded(response, lambda whole: answered.end(key, whole))

        return once


class Recorded(Response):
    """Another response, of which `done` is told the body, or None where it is no whole answer."""

    def __init__(self, response: Response, done: Callable[[bytes | None], None]):
        self._response, self._done = response, done
        self.background = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        body = b""
        whole = isinstance(self._response, Patient)

        async def recorded(message: Message) -> None:
            nonlocal body
            body += message.get("body", b"") if whole else b""
            await send(message)

        try:
            await self._response(scope, receive, recorded)
        finally:
            made = isinstance(self._response, Patient) and self._response.made
            self._done(body.strip() if made else None)
