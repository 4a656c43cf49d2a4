"""What a backend hands out for requests that it accepted together."""

import asyncio
from collections.abc import Callable
from typing import Self

from spoutnik.serve.backend import News
from spoutnik.serve.errors import ApiError


class Job:
    """A `Generation` that its backend fills. It lives in the event loop; `leave` is called when nobody waits for the rest any more."""

    def __init__(self, answers: int, leave: Callable[[], None]):
        self.left = answers
        """Answers that have not ended, or 0 once nobody waits for them."""
        self._leave = leave
        self._news: list[News] = []
        self._failure: ApiError | None = None
        self._some = asyncio.Event()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> list[News]:
        if not self.left and not self._news:
            raise StopAsyncIteration
        await self._some.wait()
        self._some.clear()
        if self._failure is not None:
            self.left = 0
            raise self._failure
        news, self._news = self._news, []
        return news

    async def aclose(self) -> None:
        if self.left:
            self.left, self._news = 0, []
            self._leave()

    def take(self, news: list[News]) -> None:
        """New events."""
        if not self.left:
            return
        self._news += news
        self.left -= sum(one.event.completion is not None for one in news)
        self._some.set()

    def fail(self, failure: ApiError) -> None:
        """Nothing more will come."""
        self._failure = failure
        self._some.set()
