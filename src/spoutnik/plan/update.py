"""What an update takes where no layout is planned: operations over what the devices reach of their peak."""

from spoutnik.plan.chips import Chip
from spoutnik.plan.components import counts
from spoutnik.plan.figure import Figure, Input
from spoutnik.plan.shape import Model
from spoutnik.plan.uncertain import triangular

FINE_TUNING_MFU = (0.20, 0.35, 0.45)
"""Least, mode and most of what fine-tuning reaches: sequences of uneven length, small batches. Assumed."""


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
    mfu = Figure("update_mfu", triangular(*FINE_TUNING_MFU, name="mfu"), "share", "triangular", (_mfu_input(),))
    rate = chip.rate()
    peak = Input("peak_bf16", rate, "FLOP/s", chip.title, "disclosed")
    hours = tokens.value * per_token.value / (mfu.value * (rate * 3600))
    return Figure(
        name,
        hours,
        "GPU-hours",
        f"{tokens.name} * update_flops_per_token / (3600 * peak_bf16 * update_mfu)",
        (tokens, per_token, peak, mfu),
    )


def _mfu_input() -> Input:
    return Input("update_mfu_mode", FINE_TUNING_MFU[1], "share", "", "assumed")
