"""From graded answers to figures: what each model reached on a task, and how the models compare."""

import itertools
from collections.abc import Callable, Sequence
from datetime import UTC, datetime

from spoutnik.evaluate.answers import Answered
from spoutnik.evaluate.figures import Estimate, Pair, Result
from spoutnik.evaluate.paired import difference_interval, holm, sign_flip_p
from spoutnik.evaluate.statistics import pass_at, share_interval
from spoutnik.evaluate.voting import consensus
from spoutnik.recipe.tables import Price
from spoutnik.run.ledger import money
from spoutnik.run.machine import cores
from spoutnik.teacher.money import BILLIONTHS

JOULES_PER_KWH = 3.6e6
Table = Sequence[Sequence[Answered]]
"""The answers to each problem, equally many."""


def result_of(model: str, task: str, answers: Table, votes: bool, price: Price, currency: str | None = None) -> Result:
    """`currency` is a remote model's; a local one is charged at `price`. `votes` says whether a majority means anything (see `voting`)."""
    flat = list(itertools.chain.from_iterable(answers))
    came = [answer for answer in flat if answer.failure is None]
    n, k, correct = len(answers), len(answers[0]), sum(answer.correct for answer in flat)
    written, right = sum(answer.steps for answer in came), sum(answer.right_steps for answer in came)
    curve = {size: _passes(answers, size) for size in sizes(k)}
    agreed = [consensus([(answer.vote, answer.correct) for answer in each]) for each in answers]
    tokens = sum(answer.tokens for answer in came)
    cost = _cost(came, price, currency)
    kwh = None if currency else sum(answer.joules for answer in came) / JOULES_PER_KWH

    def per_solved(total: float | None) -> float | None:
        return total / correct if total is not None and correct else None

    return Result(
        model=model, task=task, date=_day(flat), n=n, k=k, correct=correct,
        pass_at_1=curve[1], pass_at_k=curve[k] if k > 1 else None, cons_at_k=_estimate(agreed, 1) if votes and k > 1 else None,
        pass_at=curve, format=_mean([answer.format for answer in flat if answer.format is not None]),
        truncated=sum(answer.finish == "length" for answer in flat) / len(flat), refused=_count(flat, lambda one: one.finish == "refused"),
        faulted=_count(flat, lambda one: one.fault is not None), failed=len(flat) - len(came),
        faithful_steps=right / written if written else None,
        supported=sum(answer.supported and answer.correct for answer in came) / correct if correct else None,
        tokens_per_answer=tokens / len(came) if came else None, tokens_per_solved=per_solved(tokens),
        cost=cost, cost_per_answer=cost / len(came) if cost is not None and came else None, cost_per_solved=per_solved(cost),
        cost_basis=None if cost is None else "billed" if currency else "machine",
        currency=None if cost is None else currency or price.currency, usage_unknown=_count(came, lambda one: not one.tokens_known),
        energy_kwh=kwh, energy_kwh_per_solved=per_solved(kwh),
        energy_source="; ".join(dict.fromkeys(one.energy_source for one in came if one.energy_source)) or None,
        wall_s=None if currency else sum(answer.seconds for answer in came),
    )  # fmt: skip


def pairs_of(task: str, answers: dict[str, Table]) -> list[Pair]:
    """Every two models on a task, the one named first less the other; p values corrected for the number of pairs."""
    found = [_pair(task, first, second, answers[first], answers[second]) for first, second in itertools.combinations(answers, 2)]
    if len(found) < 2:
        return found
    corrected = holm([pair.p for pair in found])
    return [pair.model_copy(update={"p_holm": p}) for pair, p in zip(found, corrected, strict=True)]


def first_pass(answers: Table) -> Estimate:
    """pass@1 on these problems."""
    return _passes(answers, 1)


def sizes(k: int) -> list[int]:
    """1, 2, 4, ... and k: where the curve of pass@k is given."""
    return sorted({*(2**power for power in range(k.bit_length()) if 2**power <= k), k})


def _pair(task: str, a: str, b: str, first: Table, second: Table) -> Pair:
    k = len(first[0])
    differences = [_right(ours) - _right(theirs) for ours, theirs in zip(first, second, strict=True)]
    mean, low, high = difference_interval(differences, k)
    return Pair(
        task=task, a=a, b=b, n=len(differences), difference=Estimate(value=mean, low=low, high=high),
        better=sum(difference > 0 for difference in differences), worse=sum(difference < 0 for difference in differences),
        p=sign_flip_p(differences), p_holm=None, test="mcnemar-exact" if k == 1 else "sign-flip-exact",
    )  # fmt: skip


def _passes(answers: Table, size: int) -> Estimate:
    return _estimate([pass_at(_right(each), len(each), size) for each in answers], len(answers[0]))


def _estimate(values: Sequence[float], most: int) -> Estimate:
    low, high = share_interval(values, most)
    return Estimate(value=sum(values) / len(values), low=low, high=high)


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None


def _right(answers: Sequence[Answered]) -> int:
    return sum(answer.correct for answer in answers)


def _count(answers: Sequence[Answered], is_one: Callable[[Answered], bool]) -> int:
    return sum(map(is_one, answers))


def _cost(came: Sequence[Answered], price: Price, currency: str | None) -> float | None:
    """None where nothing has a price."""
    if currency:
        return sum(answer.cost or 0 for answer in came) / BILLIONTHS
    if not price.cpu_core_hour and not price.kwh:
        return None
    return money(sum(answer.seconds for answer in came), cores(), sum(answer.joules for answer in came), price)


def _day(answers: Sequence[Answered]) -> str:
    return datetime.fromtimestamp(max(answer.time for answer in answers), UTC).date().isoformat()
