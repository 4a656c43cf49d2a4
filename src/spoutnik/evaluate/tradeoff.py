"""Cost against quality: points of measured and of published figures, and which of them nothing beats."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from spoutnik.errors import UserError
from spoutnik.evaluate.figures import Evaluation, Result
from spoutnik.evaluate.published import PublishedModel, benchmarks

Axis = Literal["price", "cost"]
Origin = Literal["measured", "maker", "other"]
AXES: dict[Axis, str] = {"price": "a million output tokens", "cost": "a solved problem"}
MILLION = 1_000_000


@dataclass(frozen=True)
class Point:
    """A model's score (a share) and what it costs in the plot's currency. `date` is the day of measuring, or of the model's release.

    `origin` says who vouches for the score: measured here, published by the model's maker, or by somebody else.
    """

    model: str
    date: str
    cost: float
    score: float
    low: float
    high: float
    origin: Origin
    by: str
    """Who published it, or "measured"."""
    note: str
    """What is known of the cost."""
    sources: tuple[str, ...] = ()
    """Where published figures stand."""


@dataclass(frozen=True)
class LeftOut:
    """A model that has no point, and why."""

    model: str
    reason: str


def measured_points(
    evaluations: Sequence[Evaluation], task: str, axis: Axis, currency: str, rates: Mapping[str, float]
) -> tuple[list[Point], list[LeftOut]]:
    """One point a result on `task`. `rates` turns other currencies into the plot's: so many of it for one of theirs."""
    points, left_out = [], []
    for evaluation in evaluations:
        prices = {model.name: model.price for model in evaluation.models}
        for result in (result for result in evaluation.results if result.task == task):
            price = prices.get(result.model)
            listed = price if axis == "price" else None
            amount, unit, note = (listed.completion, listed.currency, "list price") if listed else _cost(result, axis)
            rate = 1.0 if unit == currency else rates.get(unit or "")
            if not amount or unit is None:
                left_out.append(LeftOut(result.model, note))
            elif rate is None:
                left_out.append(LeftOut(result.model, f"its cost is in {unit}; give --rate {unit}=... in {currency}"))
            else:
                score = result.pass_at_1
                points.append(
                    Point(result.model, result.date, amount * rate, score.value, score.low, score.high, "measured", "measured", note)
                )
    return points, left_out


def _cost(result: Result, axis: Axis) -> tuple[float | None, str | None, str]:
    """(amount, currency, what it is); without an amount, why there is none."""
    if result.cost is None:
        return None, None, "its cost is not known; evaluate it with --price"
    if axis == "cost":
        return result.cost_per_solved, result.currency, "it solved nothing" if not result.cost_per_solved else str(result.cost_basis)
    tokens = (result.tokens_per_answer or 0) * (result.n * result.k - result.failed)
    if not tokens:
        return None, None, "it wrote no tokens"
    return result.cost / tokens * MILLION, result.currency, f"all costs ({result.cost_basis}) over the tokens written"


def published_points(
    models: Sequence[PublishedModel], benchmark: str, currency: str, rates: Mapping[str, float]
) -> tuple[list[Point], list[LeftOut]]:
    """One point a model that has a score and a price. Raises UserError for a benchmark that no model has a score for."""
    points, left_out = [], []
    if not any(model.score(benchmark) for model in models):
        raise UserError(f"No figures were published here for {benchmark!r}; there are some for {', '.join(benchmarks(models))}.")
    for model in models:
        score, price = model.score(benchmark), model.price
        rate = None if price is None else 1.0 if price.currency == currency else rates.get(price.currency)
        if score is None or price is None or rate is None:
            reason = "no score was published" if score is None else "no price is known" if price is None else f"priced in {price.currency}"
            left_out.append(LeftOut(model.name, reason))
            continue
        value = score.value / 100
        origin: Origin = "maker" if score.by == model.maker else "other"
        note = f"{'list price' if price.by == 'maker' else 'price of a host'}, {price.as_of or 'undated'}"
        sources = tuple(dict.fromkeys((score.source, price.source, model.released_source)))
        points.append(
            Point(
                model.name, model.released.isoformat(), price.completion * rate, value, value, value, origin, f"published by {score.by}",
                note, sources,
            )
        )  # fmt: skip
    return points, left_out


def frontier(points: Sequence[Point]) -> list[Point]:
    """The points that no other one beats: whatever costs no more scores less. From cheap to dear."""
    best: list[Point] = []
    for point in sorted(points, key=lambda point: (point.cost, -point.score)):
        if not best or point.score > best[-1].score:
            best.append(point)
    return best


def tasks_of(evaluations: Sequence[Evaluation]) -> list[str]:
    """All tasks that something was measured on."""
    return list(dict.fromkeys(result.task for evaluation in evaluations for result in evaluation.results))
