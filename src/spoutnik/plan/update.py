"""What an update takes where no layout is planned: operations over what the devices reach of their peak."""

import math

from spoutnik.errors import UserError
from spoutnik.plan.chips import Chip
from spoutnik.plan.components import counts
from spoutnik.plan.figure import Figure, Input
from spoutnik.plan.shape import Model
from spoutnik.plan.uncertain import triangular

FINE_TUNING_MFU = (0.20, 0.35, 0.45)
"""Least, mode and most of what fine-tuning reaches: sequences of uneven length, small batches. Assumed."""
TRAINED_BYTES = 12.0
"""Of one parameter, without activations: weight, gradient and Adam's two moments in 16 bits, and a copy in 32. DeepSeek-V3 keeps more."""


def update_hours(name: str, config: Model, tokens: Figure, length: float, chip: Chip, passes: float = 1.0) -> Figure:
    """GPU-hours to train on `tokens` in sequences of `length`.

    `passes` is in updates: 1 forward and backward, and 1/3 more for each further forward (reference, old policy, teacher).
    """
    flops = counts(config, round(length)).training(mtp=True)
    per_token = Figure(
        "update_flops_per_token",
        flops * passes,
        "FLOP/token",
        "train_flops_per_token * passes",
        (
            Input("train_flops_per_token", flops, "FLOP/token", f"plan/components.py({length:.0f})", "computed"),
            Input("passes", passes, "", "1 + (reference + old) / 3", "computed"),
        ),
    )
    points = three_points("update_mfu", FINE_TUNING_MFU)
    mfu = Figure("update_mfu", triangular(*FINE_TUNING_MFU, name="mfu"), "share", "triangular(least, mode, most)", points)
    rate = chip.rate("fp16")
    peak = Input("peak_16_bits", rate, "FLOP/s", chip.title, "disclosed")
    hours = tokens.value * per_token.value / (mfu.value * (rate * 3600))
    return Figure(
        name,
        hours,
        "GPU-hours",
        f"{tokens.name} * update_flops_per_token / (3600 * peak_16_bits * update_mfu)",
        (tokens, per_token, peak, mfu),
    )


def update_fits(config: Model, chip: Chip, devices: int) -> None:
    """Raises UserError where the devices together cannot hold what an update needs even without its activations."""
    enough = update_devices(config, chip)
    if enough > devices:
        raise UserError(
            "Training this model takes {needed:,.0f} GB without activations ({each:g} bytes a parameter), and {devices} x {title} have "
            "{has:,.0f}; give --devices {enough} or more.",
            needed=counts(config).parameters * TRAINED_BYTES / 1e9, each=TRAINED_BYTES, devices=devices, title=chip.title,
            has=devices * chip.memory_gb, enough=enough,
        )  # fmt: skip


def update_devices(config: Model, chip: Chip) -> int:
    """The fewest devices that together hold what an update needs, without its activations."""
    return math.ceil(counts(config).parameters * TRAINED_BYTES / (chip.memory_gb * 1e9))


def three_points(name: str, values: tuple[float, float, float]) -> tuple[Input, ...]:
    """The assumed least, mode and most of a share."""
    return tuple(
        Input(f"{name}_{place}", value, "share", "", "assumed") for place, value in zip(("least", "mode", "most"), values, strict=True)
    )
