"""Fits the roofline's shares on the calibration rows of runs.toml: least bounded errors in log time, one factor for each program.

A program's factor is what remains of its rows on average, drawn towards none, so that what is common to programs goes into the shares.
"""

import math
import statistics
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from spoutnik.plan.bill import Rent
from spoutnik.plan.calibration import Calibration, Goodput
from spoutnik.plan.layout import Layout
from spoutnik.plan.pieces import pieces
from spoutnik.plan.runs import Measured, Run, measured, runs
from spoutnik.plan.step import step
from spoutnik.plan.training import TrainingPlan, plan_training
from spoutnik.plan.uncertain import Range

BOUNDS = {
    "products.a100": (0.5, 0.95),
    "products.h100": (0.4, 0.95),
    "products_fp8.h100": (0.3, 0.9),
    "attention.a100": (0.15, 0.75),
    "attention.h100": (0.1, 0.75),
    "shared.small_side": (50, 1500),
    "shared.memory": (0.5, 0.95),
    "shared.links": (0.4, 0.95),
    "shared.tensor_hidden": (0.0, 0.95),
    "shared.expert_hidden": (0.0, 0.95),
    "shared.data_hidden": (0.2, 1.0),
    "shared.host": (1e-4, 3e-3),
    "shared.host_experts": (1e-3, 2e-2),
}
"""What is fitted, and within what."""
HUBER = 0.08
"""Errors beyond this count in proportion, not squared: a row that the model does not understand shall not bend the others."""
MOST_GOODPUT = 0.95
"""No run is planned with more in the middle: published ones report 90 to 95 % of effective time at best (arXiv 2407.21783)."""
PULL = 3.0
"""Rows without error that a program's factor is averaged with."""


def factors(rows: Sequence[Measured], log_errors: Sequence[float], pull: float = PULL) -> dict[str, float]:
    """For each program the log of measured over predicted time on these rows."""
    found: dict[str, list[float]] = defaultdict(list)
    for row, error in zip(rows, log_errors, strict=True):
        found[row.program].append(-error)
    return {program: sum(errors) / (len(errors) + pull) for program, errors in found.items()}


def log_errors(rows: Sequence[Measured], constants: Calibration, exact: bool = True) -> list[float]:
    """Log of predicted over measured time of each row, without any program's factor."""
    found = []
    for row in rows:
        how = replace(constants.efficiency(row.chip), software=1.0)
        found.append(math.log(step(row.model, row.layout, row.chip, how, exact, pieces(row.model)).seconds / row.step_seconds))
    return found


def loss(rows: Sequence[Measured], constants: Calibration) -> float:
    """What the fit makes small."""
    errors = log_errors(rows, constants, exact=False)
    shared = factors(rows, errors)
    rest = [abs(error + shared[row.program]) for row, error in zip(rows, errors, strict=True)]
    return sum(0.5 * r * r if r < HUBER else HUBER * (r - 0.5 * HUBER) for r in rest) + 0.01 * sum(f * f for f in shared.values())


def fit(start: Calibration, rounds: int = 6, report: Callable[[str], None] = lambda _: None) -> Calibration:
    """One share after the other, by smaller and smaller steps."""
    rows = [row for row in measured() if row.side == "calibration"]
    best, least = start, loss(rows, start)
    for number in range(rounds):
        size = 0.25 * 0.6**number
        for name, (low, high) in BOUNDS.items():
            for direction in (1, -1):
                while True:
                    value = min(high, max(low, get(best, name) * (1 + direction * size) + (direction * size * 0.1 if low == 0 else 0)))
                    tried = put(best, name, value)
                    found = loss(rows, tried)
                    if found >= least - 1e-9:
                        break
                    best, least = tried, found
        report(f"round {number + 1}: {least:.4f}")
    return best


def get(constants: Calibration, name: str) -> float:
    """A share by its dotted name."""
    table, key = name.split(".")
    found: float = getattr(constants, table)[key]
    return found


def put(constants: Calibration, name: str, value: float) -> Calibration:
    """Constants with one share changed; "other" chips have the mean of the fitted ones."""
    table, key = name.split(".")
    changed = dict(getattr(constants, table)) | {key: value}
    if "other" in changed:
        changed["other"] = statistics.fmean(part for kind, part in changed.items() if kind != "other")
    return replace(constants, **{table: changed})  # type: ignore[arg-type]


def spreads(constants: Calibration) -> Calibration:
    """Adds how programs differ, and goodput, both from calibration rows."""
    rows = [row for row in measured() if row.side == "calibration"]
    software = software_range(rows, log_errors(rows, constants))
    plain = replace(constants, software=Range(software.p50, software.p50, software.p50), goodput=Goodput(0.0, 0.0, 1.0, 0.0))
    seen = [run for run in runs() if run.side == "calibration"]
    sizes, logs = [], []
    for run in seen:
        figures = plan_run(run, plain).figures
        sizes.append(math.log10(figures["flops_per_token"].middle * run.tokens))
        logs.append(math.log(figures["gpu_hours"].middle / run.gpu_hours))
    table = np.column_stack([np.ones(len(sizes)), sizes])
    line = np.linalg.lstsq(table, np.array(logs), rcond=None)[0]
    left_out = []
    for index in range(len(logs)):
        kept = np.arange(len(logs)) != index
        other = np.linalg.lstsq(table[kept], np.array(logs)[kept], rcond=None)[0]
        left_out.append(logs[index] - float(table[index] @ other))
    total = float(np.mean(np.square(left_out)))
    programs = (math.log(software.p90 / software.p10) / 2 / 1.2816) ** 2
    deviation = math.sqrt(max(0.05**2, total - programs))
    return replace(constants, software=software, goodput=Goodput(float(line[0]), float(line[1]), MOST_GOODPUT, deviation))


def software_range(rows: Sequence[Measured], errors: Sequence[float]) -> Range:
    """Throughput over the roofline's, all programs alike however many rows they have."""
    count = {program: sum(row.program == program for row in rows) for program in {row.program for row in rows}}
    order = sorted(zip(errors, (1 / count[row.program] / len(count) for row in rows), strict=True))
    reached, found = 0.0, []
    for share in (0.1, 0.5, 0.9):
        reached = 0.0
        for error, weight in order:
            reached += weight
            if reached >= share - 1e-9:
                found.append(math.exp(error))
                break
    return Range(*found)


def plan_run(run: Run, constants: Calibration) -> TrainingPlan:
    """The plan of a published run, knowing only what was known before it; money plays no part."""
    known: Layout | dict[str, object] = run.layout
    if "data" in run.layout:
        known = Layout(**run.layout, sequence_length=run.sequence_length, global_batch_tokens=run.batch_tokens)
    return plan_training(
        run.model, run.tokens, run.chip, run.count, known, sequence_length=run.sequence_length, batch_tokens=run.batch_tokens,
        precision=run.precision, rent=Rent(1.0), constants=constants,
    )  # fmt: skip
