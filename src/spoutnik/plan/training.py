"""A plan of pretraining: the best layout, its step, and from there hours, days, money, energy and CO2.

A step's time says what the chips can do while they train (MFU). Not all hours that are paid for train the final model: devices fail, runs
start again from their last state, evaluations take their share. That is `goodput`, a factor of its own with a range of its own. And people
do not run the best layout: `practice` is what published runs made of it. So none hides in another.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from spoutnik.errors import Phrase, UserError
from spoutnik.plan.bill import Rent, bill
from spoutnik.plan.calibration import Calibration, calibration
from spoutnik.plan.chips import Chip
from spoutnik.plan.chips import chip as open_chip
from spoutnik.plan.components import counts
from spoutnik.plan.figure import Figure, Input
from spoutnik.plan.layout import Layout
from spoutnik.plan.memory import GIB, Memory, memory
from spoutnik.plan.model_figures import model_figures
from spoutnik.plan.result import Plan
from spoutnik.plan.search import best_layout, default_batch_tokens
from spoutnik.plan.shape import Model
from spoutnik.plan.step import Step, step
from spoutnik.plan.uncertain import Range, Uncertain, lognormal, middle, triangular

EFFECTIVE = (0.85, 0.93, 0.98)
"""Least, usual and most share of paid time that trains."""


@dataclass(frozen=True)
class TrainingPlan(Plan):
    """A plan of one run, with the layout that it was made for."""

    layout: Layout | None = None
    step: Step | None = None

    @property
    def setting(self) -> str | Phrase:
        """The layout."""
        return self.layout.phrase() if self.layout else ""

    def to_json(self) -> dict[str, Any]:
        """Adds the layout, where a step's seconds go, and what a device holds, in GiB."""
        assert self.layout is not None
        assert self.step is not None
        return super().to_json() | {
            "layout": self.layout.to_dict() | {"devices": self.layout.devices, "microbatches": self.layout.microbatches},
            "step_seconds": dict(self.step.parts) | {"total": self.step.seconds},
            "memory_gib": {name: size / GIB for name, size in self.memory.items()},
        }


def plan_training(
    model: Model,
    tokens: float,
    chip: Chip | str,
    count: int,
    layout: Layout | Mapping[str, Any] | None = None,
    *,
    sequence_length: int = 4096,
    batch_tokens: int | None = None,
    precision: str = "bf16",
    rent: Rent | None = None,
    budget_usd: float | None = None,
    title: str = "",
    constants: Calibration | None = None,
    project_flops: float | None = None,
) -> TrainingPlan:
    """What training on `tokens` tokens takes with `count` chips.

    `layout`: a whole layout, or fields that the search keeps. `rent`: a price instead of the table's range, and a location.
    `project_flops`: operations of all the training that is prepared together, where this is one part of it. Raises UserError for what
    cannot be: a layout that does not divide or fit, tokens that are not positive, a budget that would not do.
    """
    if not tokens > 0:
        raise UserError("A run of {tokens:g} tokens cannot be planned; give a positive number, as --tokens 15e12.", tokens=tokens)
    if count < 1:
        raise UserError("A run on {count} chips cannot be planned; give 1 or more.", count=count)
    if budget_usd is not None and not budget_usd > 0:
        raise UserError("A budget of {budget_usd:,.6g} USD pays for nothing; give a positive one, as --budget 5e6.", budget_usd=budget_usd)
    chip = open_chip(chip) if isinstance(chip, str) else chip
    if count > 1 and not chip.scale_out_gbs:
        raise UserError("Nothing is known of links between several {title}; plan for one, with --count 1.", title=chip.title)
    constants = constants or calibration()
    how = constants.efficiency(chip)
    if batch_tokens is None and default_batch_tokens(model, count, sequence_length) > tokens:
        batch_tokens = max(sequence_length, int(tokens))
    if not isinstance(layout, Layout):
        layout = best_layout(
            model,
            chip,
            count,
            **({"sequence_length": sequence_length, "batch_tokens": batch_tokens, "precision": precision, "how": how} | dict(layout or {})),
        )
    held = check_layout(model, layout, chip, count)
    if layout.global_batch_tokens > 1.5 * tokens:  # a step is rounded to whole microbatches
        raise UserError(
            "A run of {tokens:,.6g} tokens is less than one step ({layout}); give more tokens, fewer chips or a smaller batch.",
            tokens=tokens, layout=layout.phrase(),
        )  # fmt: skip
    one = step(model, layout, chip, how)
    figures = _figures(model, tokens, chip, layout, one, held, constants, rent or Rent(), project_flops)
    if budget_usd is not None:
        _check_budget(figures["cost_usd"], tokens, budget_usd)
    title = title or f"{tokens / 1e12:g} T tokens on {count:,} x {chip.title}"
    return TrainingPlan("train", title, figures, memory=asdict(held), layout=layout, step=one)


def check_layout(model: Model, layout: Layout, chip: Chip, count: int) -> Memory:
    """What a device holds. Raises UserError if the layout has another number of chips, or does not fit them."""
    if layout.devices != count:
        raise UserError(
            "The layout ({layout}) takes {devices:,} chips, but {count:,} are planned; ask for --count {devices}, or change data.",
            layout=layout.phrase(),
            devices=layout.devices,
            count=count,
        )
    layout.check(model)
    held = memory(model, layout)
    if held.total > chip.memory_gb * 1e9:
        raise UserError(
            "The layout holds {gib:.1f} GiB on a chip of {memory:.1f}; take more tensor or pipeline parallelism, more "
            "recomputation or a higher ZeRO stage, or leave the layout out to have one found.",
            gib=held.gib,
            memory=chip.memory_gb * 1e9 / GIB,
        )
    return held


def _check_budget(cost: Figure, tokens: float, budget_usd: float) -> None:
    usual = cost.middle
    if budget_usd < (cost.value.range().p10 if isinstance(cost.value, Uncertain) else usual):
        raise UserError(
            "{budget_usd:,.0f} USD would not do: the run costs about {usual:,.0f} USD; that budget pays for about {tokens:.3g} tokens.",
            budget_usd=budget_usd,
            usual=usual,
            tokens=tokens * budget_usd / usual,
        )


def spread(found: Range, name: str) -> Uncertain:
    """A fitted range as a distribution."""
    return lognormal(found.p10, found.p50, found.p90, name=name)


def _figures(
    model: Model,
    tokens: float,
    chip: Chip,
    layout: Layout,
    one: Step,
    held: Memory,
    constants: Calibration,
    rent: Rent,
    project_flops: float | None,
) -> dict[str, Figure]:
    made_of = model_figures(model, counts(model, layout.sequence_length))
    total, active, flops = (made_of[name] for name in ("params_total", "params_active", "flops_per_token"))
    given = Input("tokens", tokens, "tokens", "the plan", "assumed")
    chips = Input("count", layout.devices, "chips", "the plan", "assumed")
    software = spread(constants.software, "mfu") / constants.software.p50
    peak = chip.input("bf16_tflops" if chip.bf16_tflops else "fp16_tflops")
    seconds = Figure(
        "step_seconds", one.seconds / software, "s", f"({' + '.join(one.parts)}) / software",
        (
            *(Input(name, seconds, "s", "roofline of every operator, in the pipeline's schedule", "computed")
              for name, seconds in one.parts.items()),
            Input("software", software, "", "how programs differ, fitted on calibration rows (runs.toml)", "measured"),
            peak, chip.input("bandwidth_tbs"), chip.input("scale_up_gbs"), chip.input("scale_out_gbs"),
        ),
        layout.phrase(),
    )  # fmt: skip
    throughput = Figure(
        "tokens_per_second_per_device", one.tokens / seconds.value / layout.devices, "tokens/s", "step_tokens / step_seconds / count",
        (Input("step_tokens", one.tokens, "tokens", "layout", "computed"), seconds, chips),
    )  # fmt: skip
    mfu = Figure(
        "mfu", flops.value * throughput.value / chip.rate("fp16"), "", f"flops_per_token * tokens_per_second_per_device / {peak.name}",
        (flops, throughput, peak),
    )  # fmt: skip
    operations: Figure | Input = Figure("run_flops", flops.value * tokens, "FLOP", "flops_per_token * tokens", (flops, given))
    if project_flops is not None:
        operations = Input("project_flops", project_flops, "FLOP", "all training of the project", "computed")
    goodput, practice = _beyond_the_step(operations, constants)
    hours = Figure(
        "gpu_hours", tokens / throughput.value / 3600 / goodput.value / practice.value, "h",
        "tokens / tokens_per_second_per_device / 3600 / goodput / practice", (given, throughput, goodput, practice),
    )  # fmt: skip
    days = Figure("days", hours.value / layout.devices / 24, "d", "gpu_hours / count / 24", (hours, chips))
    billed = bill(hours, chip, rent)
    billed["cost_usd"] = replace(billed["cost_usd"], note="rental value of the final run alone")
    share = Figure(
        "memory_gib_per_device",
        held.gib,
        "GiB",
        "weights + gradients + optimiser + activations + cache + buffers",
        (*(Input(name, size / GIB, "GiB", "layout", "computed") for name, size in asdict(held).items()), chip.input("memory_gb")),
        "A layout that is sought leaves a part of the chip's memory free where it can.",
    )
    bubble = Figure("bubble", one.bubble, "", "time that the fullest device waits / time of the pipeline", (), "simulated cell by cell")
    found = (total, active, flops, hours, days, *billed.values(), share, seconds, throughput, mfu, bubble, goodput, practice)
    return {figure.name: figure for figure in found}


def _beyond_the_step(operations: Figure | Input, constants: Calibration) -> tuple[Figure, Figure]:
    """(goodput, practice). Their product is what calibration runs made of the best layout's throughput; goodput is told apart by what the
    few who publish it say, the rest is practice."""
    share = triangular(*EFFECTIVE, name="availability")
    source = "effective time of Llama 3 (over 90 %, arXiv 2407.21783) and of runs with more trouble"
    goodput = Figure(
        "goodput", share, "", "effective time / paid time", (Input("effective_time", share, "", source, "assumed"),),
        "failures, restarts, checkpoints, evaluations; not part of the MFU",
    )  # fmt: skip
    assert not isinstance(operations.value, str)
    fitted = constants.goodput.at(middle(operations.value))
    rest = math.sqrt(max(0.0, constants.goodput.deviation**2 - float(np.log(share.samples).std()) ** 2))
    usual = fitted.p50 / goodput.middle
    reached = lognormal(*(usual * math.exp(z * rest) for z in (-1.2816, 0.0, 1.2816)), name="practice")
    practice = Figure(
        "practice", reached, "", "throughput of runs like this over that of the best layout",
        (Input("practice", reached, "", "fitted on calibration runs (runs.toml), by operations", "measured"), operations),
        "layouts and batches that were not the best, and hours on cards that hold more than the run",
    )  # fmt: skip
    return goodput, practice
