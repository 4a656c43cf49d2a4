"""Responses that last as long as an answer takes, tell the client that they live, and end the answer when the client has gone."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any, Protocol, TypeVar

from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from spoutnik.serve.errors import ApiError, ClientGoneError, told

T = TypeVar("T")
COMMENT = ": keep-alive\n\n"
DONE = "data: [DONE]\n\n"
ErrorBody = Callable[[ApiError], dict[str, Any]]


class Closable(Protocol):
    """What is to be closed when a response ends, however it ends."""

    async def aclose(self) -> None: ...


def dump(value: Any) -> str:
    """Compact JSON."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def data(value: Any, event: str | None = None) -> str:
    """A server-sent event."""
    name = "" if event is None else f"event: {event}\n"
    return f"{name}data: {dump(value)}\n\n"


def named(event: Mapping[str, Any]) -> str:
    """A server-sent event that has its type as its name, too."""
    return data(event, event["type"])


class Streamed(Response):
    """Server-sent events. `answers` is closed at the end; `broken` writes an error that comes after the headers, and `alive` is written
    after every `keep_alive_s` without any event.
    """

    media_type = "text/event-stream"

    def __init__(
        self, events: AsyncIterator[str], answers: Closable, keep_alive_s: float, broken: Callable[[ApiError], str], alive: str = COMMENT
    ):  # fmt: skip
        self.status_code, self.background = 200, None
        self._events, self._answers, self._keep_alive_s, self._broken, self._alive = events, answers, keep_alive_s, broken, alive
        self.init_headers({"cache-control": "no-cache", "x-accel-buffering": "no"})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        loop = asyncio.get_running_loop()
        last = loop.time()

        async def write(text: str, more: bool = True) -> None:
            nonlocal last
            await send({"type": "http.response.body", "body": text.encode(), "more_body": more})
            last = loop.time()

        async def tell() -> None:
            async for text in self._events:
                await write(text)

        def due() -> float:
            return last + self._keep_alive_s - loop.time()

        async def live() -> None:
            if due() <= 0:
                await write(self._alive)

        try:
            await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
            async with _watched(receive) as gone:
                try:
                    await _first(asyncio.ensure_future(tell()), gone, due, live)
                except ClientGoneError:
                    return
                except Exception as error:
                    await write(self._broken(told(error)))
                    if not isinstance(error, ApiError):
                        raise
                await write("", more=False)
        finally:
            await self._answers.aclose()


class Patient(Response):
    """One JSON document. If it takes longer than `keep_alive_s` the response begins, and blank lines come before the document.

    From then on an error can no longer change the status: its body comes with 200, as DeepSeek's does.
    """

    def __init__(self, make: Callable[[], Awaitable[dict[str, Any]]], answers: Closable | None, keep_alive_s: float, body: ErrorBody):
        self._make, self._answers, self._keep_alive_s, self._body = make, answers, keep_alive_s, body
        self.background = None
        self.made = False
        """Whether the document is the one that was to be made, rather than an error."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        begun = False

        async def live() -> None:
            nonlocal begun
            if not begun:
                begun = True
                headers = [(b"content-type", b"application/json"), (b"cache-control", b"no-cache")]
                await send({"type": "http.response.start", "status": 200, "headers": headers})
            await send({"type": "http.response.body", "body": b"\n", "more_body": True})

        try:
            async with _watched(receive) as gone:
                try:
                    made = await _first(asyncio.ensure_future(self._make()), gone, lambda: self._keep_alive_s, live)
                    self.made = True
                except ClientGoneError:
                    return
                except Exception as error:
                    if not begun:
                        raise
                    made = self._body(told(error))
                if begun:
                    await send({"type": "http.response.body", "body": dump(made).encode(), "more_body": False})
                else:
                    await JSONResponse(made)(scope, receive, send)
        finally:
            if self._answers is not None:
                await self._answers.aclose()


@contextlib.asynccontextmanager
async def _watched(receive: Receive) -> AsyncIterator["asyncio.Task[None]"]:
    """A task that ends when the client has gone."""

    async def watch() -> None:
        while (await receive())["type"] != "http.disconnect":
            pass

    task = asyncio.create_task(watch())
    try:
        yield task
    finally:
        task.cancel()


async def _first(work: "asyncio.Future[T]", gone: "asyncio.Task[None]", due: Callable[[], float], live: Callable[[], Awaitable[None]]) -> T:
    """What `work` gives; calls `live` whenever the seconds that `due` says are over. Raises ClientGoneError if the client goes before."""
    both: set[asyncio.Future[Any]] = {work, gone}
    try:
        while True:
            done, _ = await asyncio.wait(both, timeout=due(), return_when=asyncio.FIRST_COMPLETED)
            if work in done:
                return work.result()
            if gone in done:
                raise ClientGoneError
            await live()
    finally:
        if not work.done():
            work.cancel()
            with contextlib.suppress(asyncio.CancelledError, Exception):
                await work
