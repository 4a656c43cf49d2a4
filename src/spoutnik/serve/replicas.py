"""Several engines behind one API: who gets which request, who still lives, and what becomes of requests whose engine was lost.

A request that was accepted is kept here with all that was drawn for it. When its replica is lost, the rest is asked of another one, as the
continuation of what there is (`Request.begun`): draws are keyed by seed and position, so the answer is the one that it would have been.
"""

import asyncio
import contextlib
import itertools
import logging
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from functools import reduce
from operator import add
from typing import TypeVar

from spoutnik.engine.request import Request
from spoutnik.engine.scoring import Given, Scored
from spoutnik.errors import UserError
from spoutnik.serve.backend import Cost, Load, Shape
from spoutnik.serve.errors import ApiError, OverloadedError, ServerError, stopping
from spoutnik.serve.jobs import Job
from spoutnik.serve.placed import Member, Placed
from spoutnik.serve.replica import Hello, Letter, Link, LostError
from spoutnik.serve.routing import Router
from spoutnik.text.tokenizer import Tokenizer

SILENCE_S = 30.0
"""A replica that wrote nothing for so long is ended, and started again."""
LOOK_EVERY_S = 0.1
AGAIN_EVERY_S = 5.0
"""How often a replica that cannot open its model is asked to try again."""
MOST_LOSSES = 3
"""A request that was under way at so many lost replicas may be what they were lost by, and is given up."""
log = logging.getLogger(__name__)
T = TypeVar("T")


class Replicas:
    """A `Backend` of all replicas together. `hello` is the first one's; `closed` is called at the end."""

    def __init__(self, links: Sequence[Link], hello: Hello, tokenizer: Tokenizer, closed: Callable[[], None] = lambda: None):
        self.info, self.tokenizer = hello.info, tokenizer
        self._members = [Member(number, link) for number, link in enumerate(links)]
        self._router = Router()
        self._numbers = itertools.count()
        self._tasks: set[asyncio.Task[None]] = set()
        self._changed = asyncio.Event()
        self._losses = self._resumed = 0
        self._on_close, self._closed = closed, False

    async def start(self) -> None:
        for member in self._members:
            self._spawn(self._keep(member))
        while not all(member.life for member in self._members):
            await self._change()

    async def generate(self, requests: Sequence[Request], shape: Shape | None = None) -> Job:
        self._check_open()
        job = Placed(requests, shape, lambda: self._leave(job))
        try:
            await self._place(job, patient=False)
        except BaseException:
            await job.aclose()
            raise
        return job

    async def score(self, given: Sequence[Given], top_logprobs: int) -> tuple[list[Scored], Cost]:
        first = given[0]
        return await self._ask(
            (first.owner, first.adapter), first.token_ids, lambda member: member.link.score(member.life, given, top_logprobs)
        )

    async def embed(self, prompts: Sequence[Sequence[int]]) -> tuple[list[list[float]], Cost]:
        return await self._ask("", (), lambda member: member.link.embed(member.life, prompts))

    def load(self) -> Load:
        ready = [member.load for member in self._members if member.life]
        return reduce(add, ready, Load(replicas=0, losses=self._losses, resumed=self._resumed))

    async def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        for task in self._tasks:
            task.cancel()
        for member in self._members:
            for job in member.take_jobs():
                job.fail(stopping())
        await asyncio.gather(*(member.link.close() for member in self._members), return_exceptions=True)
        await asyncio.to_thread(self._on_close)

    async def _ask(self, owner: object, tokens: Sequence[int], call: Callable[[Member], Awaitable[T | ApiError]]) -> T:
        """What a replica answers; another one if it is lost."""
        for _ in range(MOST_LOSSES):
            while not (members := self._order(owner, tokens)):
                self._check_open()
                await self._change()
            member, life = members[0], members[0].life
            member.asked += 1
            try:
                outcome = await call(member)
            except LostError:
                self._lose(member, life)
                continue
            finally:
                member.asked -= 1
            if isinstance(outcome, ApiError):
                raise outcome
            return outcome
        raise _given_up()

    async def _place(self, job: Placed, patient: bool) -> None:
        """Has a replica take what has not ended of a job. Raises the last refusal where none does, unless `patient`."""
        while job.left:
            self._check_open()
            refusal: ApiError | None = None
            for member in self._order(job.owner, job.tokens()):
                try:
                    refusal = await self._submit(job, member)
                except LostError:
                    job.losses += 1
                    continue
                if refusal is None:
                    return
                if not isinstance(refusal, OverloadedError):
                    raise refusal
            if job.losses >= MOST_LOSSES:
                raise _given_up()
            if not patient:
                raise refusal or OverloadedError("The engines are being started again; try again soon.")
            await self._change()

    async def _submit(self, job: Placed, member: Member) -> ApiError | None:
        """What the replica says to it. Raises LostError; then the job is nowhere."""
        life, number = member.life, next(self._numbers)
        job.member, job.number, job.indices, job.settled = member, number, job.open, False
        member.jobs[number] = job
        try:
            refusal = await member.link.submit(life, number, [job.answers[index].resume() for index in job.indices], job.shape)
        except LostError:
            self._lose(member, life)
            raise
        finally:
            if member.life != life:
                member.jobs.pop(number, None)
        if member.life != life:
            raise LostError
        if refusal is not None:
            member.jobs.pop(number, None)
            return refusal
        job.settled = True
        self._router.remember(member.number, job.owner, job.tokens(), member.pages)
        return None

    def _leave(self, job: Placed) -> None:
        """Nobody waits for the job any more."""
        if (member := job.member) is not None and member.jobs.pop(job.number, None) is not None and member.life:
            self._spawn(_quietly(member.link.drop(member.life, job.number)))

    def _order(self, owner: object, tokens: Sequence[int]) -> list[Member]:
        """The replicas that are ready, best first."""
        loads = {member.number: member.busy for member in self._members if member.life}
        return [self._members[number] for number in self._router.order(owner, tokens, loads)]

    async def _keep(self, member: Member) -> None:
        """Follows one replica through its lives."""
        lost = ""
        while True:
            try:
                hello = await member.link.open()
                if hello.info.fingerprint != self.info.fingerprint:
                    raise UserError("It has another model, or runs it otherwise; give all machines the same files.")
            except LostError:
                await asyncio.sleep(LOOK_EVERY_S)
                continue
            except UserError as error:
                log.error("replica %d is not used: %s", member.number, error)
                await asyncio.sleep(AGAIN_EVERY_S)
                continue
            if hello.life == lost:  # it lives, but was not heard: it must not go on with what others do now
                await _quietly(member.link.kill())
                continue
            member.life, member.load = hello.life, hello.load
            self._changed.set()
            try:
                while member.life == hello.life:
                    self._read(member, await asyncio.wait_for(member.link.letter(hello.life), SILENCE_S))
            except LostError:
                pass
            except TimeoutError:
                log.error("replica %d wrote nothing for %.0f s and is ended", member.number, SILENCE_S)
                await _quietly(member.link.kill())
            self._lose(member, hello.life)
            lost = hello.life

    def _read(self, member: Member, letter: Letter) -> None:
        if letter.load.waiting < member.load.waiting or letter.load.running < member.load.running:
            self._changed.set()
        member.load = letter.load
        for number, news in letter.news:
            if (job := member.jobs.get(number)) is None:
                continue  # nobody waits for it
            if isinstance(news, ApiError):
                del member.jobs[number]
                job.fail(news)
                continue
            job.note(news)
            if not job.left:
                del member.jobs[number]
                self._router.remember(member.number, job.owner, job.tokens(), member.pages)

    def _lose(self, member: Member, life: str) -> None:
        """A life of a replica has ended: what it had is asked of others."""
        if member.life != life:
            return
        jobs = member.take_jobs()
        log.error("replica %d was lost with %d requests under way", member.number, sum(len(job.open) for job in jobs))
        member.life, member.load = "", Load()
        self._losses += 1
        self._router.forget(member.number)
        for job in jobs:
            if job.settled:  # who submits one that is not finds out by itself
                job.losses += 1
                self._spawn(self._replace(job))

    async def _replace(self, job: Placed) -> None:
        try:
            if job.losses >= MOST_LOSSES:
                raise _given_up()
            await self._place(job, patient=True)
            self._resumed += len(job.indices)
        except ApiError as error:
            job.fail(error)
        except asyncio.CancelledError:
            job.fail(stopping())
            raise

    def _spawn(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: "asyncio.Task[None]") -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("a task of the replicas failed", exc_info=error)

    async def _change(self) -> None:
        """Waits until a replica is ready or less busy, or a little."""
        self._changed.clear()
        await _quietly(asyncio.wait_for(self._changed.wait(), LOOK_EVERY_S))

    def _check_open(self) -> None:
        if self._closed:
            raise stopping()


def _given_up() -> ServerError:
    return ServerError(f"The request was given up: {MOST_LOSSES} engines were lost while they worked at it.")


async def _quietly(work: Awaitable[object]) -> None:
    """Has it done, whether or not the replica lives."""
    with contextlib.suppress(LostError, TimeoutError):
        await work
