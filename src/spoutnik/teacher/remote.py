"""A teacher that is asked over the network: concurrently, at its pace, within its cap, and never twice for the same answer."""

import asyncio
import dataclasses
import hashlib
import json
import random
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

from spoutnik.errors import UserError
from spoutnik.recipe.teachers import TeacherSpec
from spoutnik.run import interrupt
from spoutnik.teacher.base import Answer, Done, Failure, Provenance, Question, Sampling, Usage
from spoutnik.teacher.dialects import DIALECTS, Reply
from spoutnik.teacher.ledger import CapReachedError, Found, RequestLedger, Totals
from spoutnik.teacher.limits import Pace, backoff
from spoutnik.teacher.money import Estimate, billionths, cost, likely_prompt_tokens, money, most_prompt_tokens, worst_cost, worst_usage
from spoutnik.teacher.transport import Refused, Transport, TryAgain

ATTEMPTS = 6
LONGEST_WAIT_S = 600.0
"""A teacher that asks to be left alone for longer ends the run, which can be resumed."""
FAILURES_IN_A_ROW = 8
ENOUGH_TO_MEASURE = 20
POLL_S = 0.1


class RemoteTeacher:
    """See `Teacher`. `purse` is whose money is spent: its bookings in the ledger are held under the cap. Use it with `with`."""

    def __init__(self, spec: TeacherSpec, key: str | None, ledger: Path, purse: str, provenance: Provenance, first_backoff_s: float = 1.0):
        self.spec, self.name, self.provenance, self._purse = spec, spec.name, provenance, purse
        self._key, self._cap, self._first_backoff_s = key, billionths(spec.max_cost), first_backoff_s
        self._ledger = RequestLedger(ledger)
        self._pace = Pace(spec.requests_per_minute, spec.tokens_per_minute)
        self._rng = random.Random()
        self._in_flight = self._failures = 0
        self._stop: UserError | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: object) -> None:
        self._ledger.close()

    def totals(self) -> Totals:
        """What this purse has spent so far."""
        return self._ledger.totals(self._purse)

    def estimate(self, questions: Sequence[Question], sampling: Sampling) -> Estimate:
        """What asking these would cost now; sends nothing."""
        new = [question for question in questions if self._ledger.find(self._request(question, sampling)[0]).state in ("free", "busy")]
        totals, price = self.totals(), self.spec.price
        measured = totals.answers >= ENOUGH_TO_MEASURE
        length = totals.completion_tokens // totals.answers if measured else sampling.max_tokens // 2
        likely = sum(cost(Usage(likely_prompt_tokens(question.messages), min(length, sampling.max_tokens)), price) for question in new)
        worst = sum(worst_cost(question.messages, sampling.max_tokens, price) for question in new)
        return Estimate(len(questions), len(questions) - len(new), worst, likely, price.currency, measured)

    def answers(self, questions: Sequence[Question], sampling: Sampling, done: Done) -> list[Answer | Failure]:
        """See `Teacher`. After Ctrl-C no new request is sent; those in flight are waited for, for they are being paid."""
        self._stop, self._failures = None, 0
        results = asyncio.run(self._ask_all(questions, sampling, done))
        if self._stop is not None:
            raise self._stop
        interrupt.check()
        return [result or Failure("it was not asked") for result in results]

    async def _ask_all(self, questions: Sequence[Question], sampling: Sampling, done: Done) -> list[Answer | Failure | None]:
        results: list[Answer | Failure | None] = [None] * len(questions)
        places = iter(range(len(questions)))
        transport = Transport(self.spec, self._key)

        async def work() -> None:
            for place in places:
                result = results[place] = await self._ask(transport, questions[place], sampling)
                if result is None:
                    return
                done(place, result)

        watch = asyncio.create_task(self._say_what_a_stop_waits_for())
        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(min(self.spec.concurrency, len(questions))):
                    group.create_task(work())
        except* UserError as raised:
            self._stop = next(error for error in _flat(raised) if isinstance(error, UserError))
        finally:
            watch.cancel()
            await transport.close()
        return results

    async def _say_what_a_stop_waits_for(self) -> None:
        while not interrupt.asked():
            await asyncio.sleep(POLL_S)
        if self._in_flight:
            waits = f"Waiting for {self._in_flight} answers of {self.name} that are being paid for; Ctrl-C again leaves at once."
            print(waits, file=sys.stderr, flush=True)

    async def _ask(self, transport: Transport, question: Question, sampling: Sampling) -> Answer | Failure | None:
        """None if a stop came first. Whatever is waited for before the claim, the request is not yet anyone's."""
        key, request, body = self._request(question, sampling)
        while not self._stopped():
            found = self._ledger.find(key)
            if found.state == "free":
                if not await self._may_go(question, sampling):
                    return None
                found = self._claim(key, request, question, sampling)
                if found.state != "mine":
                    self._pace.take_back()
            if found.state == "mine":
                return await self._send(transport, key, body, question, sampling)
            if found.state == "answered":
                return _read(found.text)
            if found.state == "failed":
                return Failure(found.text)
            await asyncio.sleep(POLL_S)
        return None

    async def _send(self, transport: Transport, key: str, body: dict[str, Any], question: Question, sampling: Sampling) -> Answer | Failure:
        """A claimed request, until its end: answered, or failed."""
        self._in_flight += 1
        try:
            for attempt in range(ATTEMPTS):
                outcome = await transport.send(body)
                if isinstance(outcome, Reply):
                    return self._keep(key, outcome, question, sampling)
                if isinstance(outcome, Refused):
                    return self._refuse(key, outcome)
                if attempt + 1 == ATTEMPTS or not await self._wait_and_book_again(key, outcome, attempt, question, sampling):
                    return self._give_up(key, outcome)
            raise AssertionError("the last attempt returns")
        except asyncio.CancelledError:
            self._ledger.abandon(key)
            raise
        finally:
            self._in_flight -= 1

    def _keep(self, key: str, reply: Reply, question: Question, sampling: Sampling) -> Answer:
        usage = reply.usage or worst_usage(question.messages, sampling.max_tokens)
        price = self.spec.price
        paid = cost(usage, price) if reply.usage else worst_cost(question.messages, sampling.max_tokens, price)
        answer = Answer(reply.text, reply.reasoning, reply.finish_reason, usage, paid, reply.model)
        text = json.dumps(dataclasses.asdict(answer), ensure_ascii=False)
        self._ledger.answered(key, text, paid, usage.prompt_tokens, usage.completion_tokens)
        self._failures = 0
        return answer

    def _refuse(self, key: str, outcome: Refused) -> Failure:
        self._ledger.failed(key, outcome.error, final=not outcome.hopeless, doubtful=False)
        self._failures += 1
        if outcome.hopeless or self._failures >= FAILURES_IN_A_ROW:
            times = "" if outcome.hopeless else f" {self._failures} requests in a row"
            self._end_with(f"Teacher {self.name!r} refuses{times}: {outcome.error}; mend that and run the same command again.")
        return Failure(outcome.error)

    def _give_up(self, key: str, outcome: TryAgain) -> Failure:
        """After too many attempts, or because a stop came; a later run asks again."""
        self._ledger.failed(key, outcome.error, final=False, doubtful=outcome.paid)
        self._failures += not self._stopped()
        if self._failures >= FAILURES_IN_A_ROW:
            self._end_with(
                f"Teacher {self.name!r} gave no answer to {self._failures} requests in a row: {outcome.error}; "
                "run the same command again later."
            )
        return Failure(outcome.error)

    async def _wait_and_book_again(self, key: str, outcome: TryAgain, attempt: int, question: Question, sampling: Sampling) -> bool:
        """Waits until the next attempt may go; False if none may."""
        if outcome.after_s is not None and outcome.after_s > LONGEST_WAIT_S:
            self._end_with(f"Teacher {self.name!r} asks to come back in {outcome.after_s:,.0f} s; run the same command again then.")
            return False
        if outcome.after_s is not None:
            self._pace.hold(outcome.after_s, time.monotonic())
        if not await self._sleep(backoff(attempt, self._first_backoff_s, self._rng)) or not await self._may_go(question, sampling):
            return False
        if outcome.paid:
            try:
                self._ledger.again(key, self._purse, worst_cost(question.messages, sampling.max_tokens, self.spec.price), self._cap)
            except CapReachedError:
                return False
        return True

    def _claim(self, key: str, request: str, question: Question, sampling: Sampling) -> Found:
        """Books the worst case. Where the cap leaves no room, requests in flight may still free some: then "busy"."""
        worst = worst_cost(question.messages, sampling.max_tokens, self.spec.price)
        try:
            return self._ledger.claim(key, request, self._purse, worst, self._cap)
        except CapReachedError:
            if not self._in_flight:
                self._end_with(self._cap_reached(worst))
            return Found("busy")

    def _cap_reached(self, worst: int) -> str:
        totals, currency = self.totals(), self.spec.price.currency
        doubtful = f" ({money(totals.doubtful, currency)} of it only possibly paid)" if totals.doubtful else ""
        return (
            f"Teacher {self.name!r} has cost {money(totals.booked, currency)}{doubtful}, and the next request could cost "
            f"{money(worst, currency)}: more than max_cost = {self.spec.max_cost:g}; raise it and run the same command again."
        )

    async def _may_go(self, question: Question, sampling: Sampling) -> bool:
        """Waits for the teacher's pace; False if a stop comes first."""
        tokens = most_prompt_tokens(question.messages) + sampling.max_tokens
        while not self._stopped():
            wait = self._pace.enter(tokens, time.monotonic())
            if not wait:
                return True
            await asyncio.sleep(min(wait, POLL_S))
        return False

    async def _sleep(self, seconds: float) -> bool:
        """False if a stop comes first."""
        until = time.monotonic() + seconds
        while not self._stopped() and (left := until - time.monotonic()) > 0:
            await asyncio.sleep(min(left, POLL_S))
        return not self._stopped()

    def _stopped(self) -> bool:
        return self._stop is not None or interrupt.asked()

    def _end_with(self, sentence: str) -> None:
        self._stop = self._stop or UserError(sentence)

    def _request(self, question: Question, sampling: Sampling) -> tuple[str, str, dict[str, Any]]:
        """(key, what it is the hash of, body). The key never enters: who asks does not change the answer."""
        dialect = DIALECTS[self.spec.dialect]
        body = dialect.body(self.spec, question.messages, sampling)
        if question.sample and isinstance(seed := body.get(dialect.seed_field), int):
            body[dialect.seed_field] = seed + question.sample  # else all samples of a question would be one
        whole = {"dialect": self.spec.dialect, "base_url": self.spec.base_url.rstrip("/"), "sample": question.sample, "body": body}
        request = json.dumps(whole, sort_keys=True)
        return hashlib.sha256(request.encode()).hexdigest(), request, body


def _read(text: str) -> Answer:
    content = json.loads(text)
    return Answer(**{**content, "usage": Usage(**content["usage"])})


def _flat(group: BaseExceptionGroup[BaseException]) -> list[BaseException]:
    return [leaf for error in group.exceptions for leaf in (_flat(error) if isinstance(error, BaseExceptionGroup) else [error])]
