"""One thread that owns the engine, which is not thread-safe, and steps it.

Whatever is asked of the engine reaches the thread as a closure through a queue, and is done between two steps; what a step brought goes
back in one call to the event loop, however many requests it served. Scores and embeddings are done one piece at a time between steps, so
that running answers are not kept waiting for long.
"""

import asyncio
import contextlib
import logging
import queue
import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar

import torch

from spoutnik.engine.generator import Engine
from spoutnik.engine.request import Request
from spoutnik.engine.scoring import Given, Scored
from spoutnik.errors import UserError
from spoutnik.recipe.tables import Price
from spoutnik.run.energy import EnergyMeter
from spoutnik.serve.backend import Cost, Info, Load, News, Shape
from spoutnik.serve.costs import StepMeter, shares
from spoutnik.serve.errors import ApiError, InvalidRequestError, ServerError, stopping, told
from spoutnik.serve.grammar import Grammars
from spoutnik.serve.jobs import Job

PIECE_TOKENS = 2048
"""Tokens scored between two steps, unless one sequence alone has more."""
log = logging.getLogger(__name__)
T = TypeVar("T")


class Worker:
    """A `Backend` around one engine in this process. Nobody else may touch the engine between `start` and `close`."""

    def __init__(self, engine: Engine, info: Info, price: Price, energy: EnergyMeter | None = None):
        self._engine, self.info, self.tokenizer = engine, info, engine.tokenizer
        self._inbox: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._chores: deque[tuple[asyncio.Future[Any], Callable[[], Any]]] = deque()
        self._jobs: dict[int, tuple[_Queued, int]] = {}
        self._costs: dict[int, Cost] = {}
        self._grammars = Grammars(engine.tokenizer)
        self._meter = StepMeter(price, energy)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)

    async def start(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._thread.start()

    async def close(self) -> None:
        self._closed = True
        self._inbox.put(None)
        await asyncio.to_thread(self._thread.join)

    async def generate(self, requests: Sequence[Request], shape: Shape | None = None) -> Job:
        self._check_open()
        requests = [replace(request, stream=True) for request in requests]
        if shape is not None:
            requests = await asyncio.to_thread(self._shaped, requests, shape)
        job = _Queued(list(requests), lambda: self._inbox.put(lambda: self._drop(job)))
        self._inbox.put(lambda: self._add(job))
        try:
            await job.accepted
        except BaseException:
            await job.aclose()
            raise
        return job

    def _shaped(self, requests: Sequence[Request], shape: Shape) -> list[Request]:
        try:
            return [replace(request, constraint=self._grammars.constraint(shape)) for request in requests]
        except UserError as error:
            raise InvalidRequestError(str(error)) from error

    async def score(self, given: Sequence[Given], top_logprobs: int) -> tuple[list[Scored], Cost]:
        pieces: list[list[Given]] = [[]]
        for one in given:
            if pieces[-1] and sum(len(other.token_ids) for other in pieces[-1]) + len(one.token_ids) > PIECE_TOKENS:
                pieces.append([])
            pieces[-1].append(one)
        found, cost = await self._chores_of([partial(self._engine.score_tops, piece, 1.0, top_logprobs) for piece in pieces])
        return [scored for piece in found for scored in piece], cost

    async def embed(self, prompts: Sequence[Sequence[int]]) -> tuple[list[list[float]], Cost]:
        return await self._chores_of([partial(self._mean_hidden, prompt) for prompt in prompts])

    def load(self) -> Load:
        return Load(*self._engine.load, self._engine.pages)

    async def _chores_of(self, works: Sequence[Callable[[], T]]) -> tuple[list[T], Cost]:
        """Has everything done by the thread, each piece between two steps; returns the results and what they cost together."""
        assert self._loop is not None
        results, cost = [], Cost()
        for work in works:
            self._check_open()
            done: asyncio.Future[tuple[T, Cost]] = self._loop.create_future()
            self._inbox.put(partial(self._chores.append, (done, work)))
            result, spent = await done
            results.append(result)
            cost += spent
        return results, cost

    def _check_open(self) -> None:
        if self._closed:
            raise stopping()

    def _run(self) -> None:
        """The thread."""
        while self._obey():
            if self._chores:
                self._do(*self._chores.popleft())
            if self._engine.busy:
                self._step()
        for result, _ in self._chores:
            self._call(_settle, result, None, stopping())
        self._fail(stopping())

    def _do(self, result: "asyncio.Future[tuple[T, Cost]]", work: Callable[[], T]) -> None:
        """A chore, unless nobody waits for it any more."""
        if result.cancelled():
            return
        self._meter.begin()
        try:
            found = work()
            self._call(_settle, result, (found, self._meter.end()), None)
        except Exception as error:
            problem = told(error)
            if problem.status >= 500:
                log.exception("a chore of the engine failed")
            self._call(_settle, result, None, problem)

    def _obey(self) -> bool:
        """Does what was asked; waits for something to do if there is nothing. False when the thread is to end."""
        idle = not self._engine.busy and not self._chores
        with contextlib.suppress(queue.Empty):
            while (command := self._inbox.get(block=idle)) is not None:
                command()
                idle = False
            return False
        return True

    def _add(self, job: "_Queued") -> None:
        try:
            for index, request in enumerate(job.requests):
                request_id = self._engine.add(request)
                job.ids.append(request_id)
                self._jobs[request_id], self._costs[request_id] = (job, index), Cost()
        except Exception as error:
            self._drop(job)
            self._call(_settle, job.accepted, None, told(error))
        else:
            self._call(_settle, job.accepted, None, None)

    def _drop(self, job: "_Queued") -> None:
        """Cancels what has not ended of a job."""
        for request_id in job.ids:
            if self._jobs.pop(request_id, None) is not None:
                self._engine.cancel(request_id)
                self._costs.pop(request_id)

    def _step(self) -> None:
        self._meter.begin()
        try:
            events = self._engine.step()
        except Exception as error:
            log.exception("a step of the engine failed; all requests are ended and the next ones begin anew")
            problem = told(error)
            self._fail(problem if problem.status >= 500 else ServerError(problem.message))
            return
        for request_id, cost in shares(self._meter.end(), self._engine.computed).items():
            if request_id in self._costs:
                self._costs[request_id] += cost
        batches: dict[Job, list[News]] = {}
        for event in events:
            if event.request_id not in self._jobs:
                continue  # cancelled
            job, index = self._jobs[event.request_id]
            if event.completion is None:
                news = News(index, event, self._costs[event.request_id])
            else:
                news = News(index, event, self._costs.pop(event.request_id))
                del self._jobs[event.request_id]
            batches.setdefault(job, []).append(news)
        if batches:
            self._call(_deliver, batches)

    def _fail(self, failure: ApiError) -> None:
        """Ends all that was accepted."""
        jobs = {job for job, _ in self._jobs.values()}
        self._jobs.clear()
        self._costs.clear()
        self._call(_break, jobs, failure)

    def _mean_hidden(self, prompt: Sequence[int]) -> list[float]:
        model = self._engine.model
        with torch.inference_mode():
            ids_1T = torch.tensor([list(prompt)], device=model.lm_head.weight.device)
            return model.hidden(ids_1T)[0].float().mean(0).tolist()

    def _call(self, function: Callable[..., None], *arguments: Any) -> None:
        assert self._loop is not None
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody listens any more
            self._loop.call_soon_threadsafe(function, *arguments)


class _Queued(Job):
    """Requests that were submitted together."""

    def __init__(self, requests: list[Request], leave: Callable[[], None]):
        super().__init__(len(requests), leave)
        self.requests = requests
        self.ids: list[int] = []  # the thread's
        self.accepted: asyncio.Future[None] = asyncio.get_running_loop().create_future()


def _settle(future: "asyncio.Future[Any]", result: Any, error: Exception | None) -> None:
    if future.done():
        return
    if error is None:
        future.set_result(result)
    else:
        future.set_exception(error)


def _deliver(batches: dict[Job, list[News]]) -> None:
    for job, news in batches.items():
        job.take(news)


def _break(jobs: set[Job], failure: ApiError) -> None:
    for job in jobs:
        job.fail(failure)
