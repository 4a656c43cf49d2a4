"""An engine somewhere else: what runs there, in whatever process, and what it tells those who route to it.

Everything crosses as values, errors too, so that it does not matter what carries them. A replica's memory of what it was asked is its life;
one that was started again has another life, and whoever asks the old one is told that it is gone.
"""

import asyncio
import contextlib
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from spoutnik.engine.request import Request
from spoutnik.engine.scoring import Given, Scored
from spoutnik.errors import UserError
from spoutnik.recipe.tables import Price
from spoutnik.serve.backend import Backend, Cost, Generation, Info, Load, News, Shape
from spoutnik.serve.errors import ApiError, stopping, told
from spoutnik.serve.opening import Opening, open_backend

BEAT_S = 1.0
"""A replica writes at least so often."""


class LostError(Exception):
    """The replica, or this life of it, is no more; nothing is known of what it was asked last."""


@dataclass(frozen=True)
class Hello:
    """A replica that is ready."""

    life: str
    info: Info
    load: Load


@dataclass(frozen=True)
class Letter:
    """What happened at a replica since its last letter."""

    load: Load
    news: list[tuple[int, list[News] | ApiError]]
    """By the number of a job: events, or why no more will come."""


class Link(Protocol):
    """The way to one replica, which is started again when it ends. Everything but `kill` raises LostError."""

    async def open(self) -> Hello:
        """Has the replica load its model, if it has not yet. Raises UserError where that cannot be."""
        ...

    async def submit(self, life: str, job: int, requests: Sequence[Request], shape: Shape | None) -> ApiError | None:
        """Queues requests, all or none; None if they were accepted. Their events come in letters."""
        ...

    async def drop(self, life: str, job: int) -> None:
        """Nobody waits for a job any more."""
        ...

    async def letter(self, life: str) -> Letter:
        """The next one, within `BEAT_S` or so. To be asked for again at once, by one caller."""
        ...

    async def score(self, life: str, given: Sequence[Given], top_logprobs: int) -> tuple[list[Scored], Cost] | ApiError: ...

    async def embed(self, life: str, prompts: Sequence[Sequence[int]]) -> tuple[list[list[float]], Cost] | ApiError: ...

    async def kill(self) -> None:
        """Ends the replica where it stands; it is started again."""
        ...

    async def close(self) -> None:
        """Ends it for good."""
        ...


class Replica:
    """What lives at the other end of a `Link`: an engine and its thread. It belongs to one event loop, and making it cannot fail."""

    def __init__(self, opening: Opening, price: Price):
        self._opening, self._price = opening, price
        self._life = secrets.token_hex(8)
        self._backend: Backend | None = None
        self._opened = asyncio.Lock()
        self._jobs: dict[int, asyncio.Task[object]] = {}
        self._news: list[tuple[int, list[News] | ApiError]] = []
        self._some = asyncio.Event()

    async def open(self) -> Hello | str:
        """Loads the model at the first call; a sentence where that cannot be."""
        async with self._opened:
            if self._backend is None:
                try:
                    self._backend = await asyncio.to_thread(open_backend, self._opening, self._price, lambda what: None)
                except UserError as error:
                    return str(error)
                await self._backend.start()
        return Hello(self._life, self._backend.info, self._backend.load())

    async def submit(self, life: str, job: int, requests: Sequence[Request], shape: Shape | None) -> ApiError | None:
        """See `Link`."""
        accepting = asyncio.ensure_future(self._of(life).generate(requests, shape))
        self._jobs[job] = accepting
        try:
            generation = await accepting
        except asyncio.CancelledError:
            return stopping()  # dropped before it was accepted
        except Exception as error:
            self._jobs.pop(job, None)
            return told(error)
        if job not in self._jobs:
            await generation.aclose()
        else:
            self._jobs[job] = asyncio.ensure_future(self._follow(job, generation))
        return None

    async def drop(self, life: str, job: int) -> None:
        """See `Link`."""
        self._of(life)
        if (task := self._jobs.pop(job, None)) is not None:
            task.cancel()

    async def letter(self, life: str) -> Letter:
        """See `Link`."""
        backend = self._of(life)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._some.wait(), BEAT_S)
        self._some.clear()
        news, self._news = self._news, []
        return Letter(backend.load(), news)

    async def score(self, life: str, given: Sequence[Given], top_logprobs: int) -> tuple[list[Scored], Cost] | ApiError:
        """See `Link`."""
        try:
            return await self._of(life).score(given, top_logprobs)
        except ApiError as error:
            return error

    async def embed(self, life: str, prompts: Sequence[Sequence[int]]) -> tuple[list[list[float]], Cost] | ApiError:
        """See `Link`."""
        try:
            return await self._of(life).embed(prompts)
        except ApiError as error:
            return error

    async def close(self) -> None:
        """Ends what runs."""
        if self._backend is not None:
            await self._backend.close()

    def _of(self, life: str) -> Backend:
        if self._backend is None or life != self._life:
            raise LostError
        return self._backend

    async def _follow(self, job: int, generation: Generation) -> None:
        try:
            async for news in generation:
                self._tell(job, news)
        except ApiError as error:
            self._tell(job, error)
        finally:
            self._jobs.pop(job, None)
            await generation.aclose()

    def _tell(self, job: int, news: list[News] | ApiError) -> None:
        self._news.append((job, news))
        self._some.set()
