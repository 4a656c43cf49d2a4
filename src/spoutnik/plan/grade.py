"""Grades the planner on published runs: predicts each from what was known before it, and holds that against what was said after it.

Nothing here fits anything: constants come from calibration.toml, which calibration rows alone have made (fit.py).
"""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from spoutnik.plan.calibration import Calibration, calibration
from spoutnik.plan.components import counts
from spoutnik.plan.fit import factors, log_errors, plan_run
from spoutnik.plan.layout import Layout
from spoutnik.plan.memory import GIB, memory
from spoutnik.plan.models import open_model
from spoutnik.plan.runs import Measured, Run, content, measured, model_of, runs
from spoutnik.plan.uncertain import Range, Uncertain

TARGETS = {"gpu_hours": 0.15, "step": 0.05, "coverage": 0.80}


@dataclass(frozen=True)
class Graded:
    """One prediction and what was published."""

    what: str
    detail: str
    side: str
    predicted: Range
    published: float
    source: str

    @property
    def error(self) -> float:
        """Predicted over published, less one."""
        return self.predicted.p50 / self.published - 1

    @property
    def inside(self) -> bool:
        """Whether what was published lies between P10 and P90."""
        return self.predicted.p10 <= self.published <= self.predicted.p90


@dataclass(frozen=True)
class Score:
    """Of several predictions."""

    count: int
    median: float
    """Of errors without their sign."""
    bias: float
    """The median of errors with it."""
    coverage: float


@dataclass(frozen=True)
class Grades:
    """All of it."""

    hours: tuple[Graded, ...]
    steps: tuple[Graded, ...]
    memory: tuple[Graded, ...]
    known: frozenset[str]
    """Programs with calibration rows."""

    def score(self, rows: Sequence[Graded]) -> Score:
        """Median error and coverage; of no rows all zeroes."""
        if not rows:
            return Score(0, 0.0, 0.0, 0.0)
        errors = [row.error for row in rows]
        median = statistics.median(abs(error) for error in errors)
        return Score(len(rows), median, statistics.median(errors), sum(row.inside for row in rows) / len(rows))

    def scores(self) -> dict[str, Score]:
        """The figures that the planner is judged by."""
        held = [row for row in self.steps if row.side == "held out"]
        return {
            "gpu_hours_calibration": self.score([row for row in self.hours if row.side == "calibration"]),
            "gpu_hours_held_out": self.score([row for row in self.hours if row.side == "held out"]),
            "step_calibration": self.score([row for row in self.steps if row.side == "calibration"]),
            "step_held_out": self.score(held),
            "step_held_out_program_known": self.score([row for row in held if row.detail.split(";")[0] in self.known]),
            "step_held_out_program_unknown": self.score([row for row in held if row.detail.split(";")[0] not in self.known]),
            "memory": self.score(self.memory),
        }


def grade(constants: Calibration | None = None) -> Grades:
    """Predicts every row of the table."""
    constants = constants or calibration()
    hours = tuple(_hours(run, constants) for run in runs())
    steps, known = _steps(constants)
    return Grades(hours, steps, memory_rows(), known)


def _hours(run: Run, constants: Calibration) -> Graded:
    plan = plan_run(run, constants)
    assert isinstance(plan.figures["gpu_hours"].value, Uncertain)
    assert plan.layout is not None
    detail = f"{run.published}, {run.tokens / 1e12:g} T tokens, {run.count:,} x {run.chip.name}"
    return Graded(run.name, detail, run.side, plan.figures["gpu_hours"].value.range(), run.gpu_hours, run.source)


def _steps(constants: Calibration) -> tuple[tuple[Graded, ...], frozenset[str]]:
    """Seconds of a step; a program that has calibration rows is known, others take the range of all programs."""
    rows = measured()
    errors = log_errors(rows, constants)
    seen = [(row, error) for row, error in zip(rows, errors, strict=True) if row.side == "calibration"]
    known = factors([row for row, _ in seen], [error for _, error in seen], pull=1.0)
    width = _width(seen)
    found = []
    for row, error in zip(rows, errors, strict=True):
        plain = row.step_seconds * math.exp(error)
        if row.program in known:
            middle = plain * math.exp(known[row.program])
            predicted = Range(middle / width, middle, middle * width)
        else:
            software = constants.software
            spread = math.hypot(math.log(width), math.log(software.p90 / software.p10) / 2)
            middle = plain / software.p50
            predicted = Range(middle * math.exp(-spread), middle, middle * math.exp(spread))
        detail = f"{row.program}; {_shape(row.layout)}"
        found.append(Graded(f"{row.name}", detail, row.side, predicted, row.step_seconds, row.source))
    return tuple(found), frozenset(known)


def _width(seen: Sequence[tuple[Measured, float]]) -> float:
    """The factor within which four of five calibration rows lie if their program's other rows predict them."""
    rests = []
    for place, (row, error) in enumerate(seen):
        others = [(other, e) for index, (other, e) in enumerate(seen) if index != place and other.program == row.program]
        factor = factors([other for other, _ in others], [e for _, e in others], pull=1.0).get(row.program, 0.0)
        rests.append(abs(error + factor))
    rests.sort()
    return math.exp(rests[min(len(rests) - 1, math.ceil(0.8 * (len(rests) + 1)) - 1)])


def _shape(layout: Layout) -> str:
    ways = " ".join(
        f"{name}{getattr(layout, name)}" for name in ("data", "tensor", "context", "pipeline", "expert") if getattr(layout, name) > 1
    )
    pipe = f" {layout.schedule}" if layout.pipeline > 1 else ""
    return f"{ways}{pipe}, {layout.micro_batch_size} x {layout.sequence_length}, {layout.precision}, recompute {layout.recompute}"


def memory_rows() -> tuple[Graded, ...]:
    """GiB of the fullest device; the planner gives no range for it."""
    found = []
    table = content()["memory"]["megatron"]
    for values in table["rows"]:
        row = dict(zip(table["columns"], values, strict=True))
        name, states, activations = row.pop("model"), row.pop("states_gib"), row.pop("activations_gib")
        sequences = row.pop("sequences")
        layout = Layout(**row, sequence_length=2048, zero=0, global_batch_tokens=sequences * 2048)
        held = memory(model_of(name), layout)
        for part, published, size in (
            ("weights, gradients, optimiser", states, held.weights + held.gradients + held.optimiser),
            ("activations", activations, held.activations),
        ):
            value = size / GIB
            found.append(Graded(name, f"{part}; {_shape(layout)}", "held out", Range(value, value, value), published, table["source"]))
    for one in measured():
        if one.memory_gib:
            value = memory(one.model, one.layout).gib
            detail = f"most ever held, {one.program}; {_shape(one.layout)}"
            found.append(Graded(one.name, detail, "held out", Range(value, value, value), one.memory_gib, one.source))
    return tuple(found)


def v3_utilisation() -> dict[str, float]:
    """DeepSeek-V3's model FLOP utilisation from 180 K H800-hours a trillion tokens: causal 39.06 %, counting all keys 43.85 %."""
    found, peak = counts(open_model("deepseek-v3"), 4096), 989.4e12
    rate = 1e12 / (180e3 * 3600)
    return {"causal": found.training() * rate / peak, "full": found.training(causal=False) * rate / peak}


@dataclass(frozen=True)
class Carbon:
    """A card's CO2 as grams for a kilowatt-hour of its hours and watts."""

    name: str
    hours: float
    watts: float
    tonnes: float
    grams: float
    consistent: bool
    """Within a fifth of the median card."""


def carbon() -> tuple[Carbon, ...]:
    """Meta's cards: hours x W x one constant, but for one."""
    rows = [(name, hours, watts, tonnes, tonnes * 1e9 / (hours * watts)) for name, hours, watts, tonnes in content()["co2"]["rows"]]
    middle = statistics.median(row[4] for row in rows)
    return tuple(Carbon(*row, consistent=abs(row[4] / middle - 1) < 0.2) for row in rows)
