"""Reinforcement learning: rollouts, and updates that run reference and old policy beside the trained one.

A rollout is not over before its longest answer is. All answers of a device start together and leave as they end, so a step of decoding
costs what one request costs (the weights are read whoever is there) plus a share for each that is still there:

    seconds = (longest * step_of_one + answers * mean_length * step_of_one_more) / reach

R1-Zero is the one public check: 10,400 steps of 32 prompts and 16 answers, rollouts of 16 steps at once, on 512 H800 for 198 hours.
"""

from dataclasses import dataclass

from spoutnik.errors import UserError
from spoutnik.plan import inference, units
from spoutnik.plan.bill import Rent
from spoutnik.plan.chips import Chip
from spoutnik.plan.figure import Figure, Input
from spoutnik.plan.rates import decode_reach
from spoutnik.plan.result import Line, Plan
from spoutnik.plan.shape import Model
from spoutnik.plan.sums import line_of, model_figures, with_totals
from spoutnik.plan.uncertain import triangular
from spoutnik.plan.update import three_points, update_fits, update_hours

OVERHEAD = (0.03, 0.10, 0.30)
"""Rewards, weights handed to the sampler, what waits for both; as a share of rollouts and updates. Assumed."""


@dataclass(frozen=True)
class Campaign:
    """A run of reinforcement learning, in the words of `spoutnik rl`."""

    steps: int
    prompts: int
    group: int
    length: float
    """Mean tokens of an answer over the whole run."""
    max_length: float
    """The longest answer that is let go on; one of every rollout is taken to reach it."""
    prompt: float = 300.0
    minibatches: int = 1
    """Updates that share one rollout (R1: 16)."""
    reference: bool = True
    old: bool = True
    """Whether the sampler's log-probabilities are worked out once more before the update."""

    def __post_init__(self) -> None:
        if min(self.steps, self.prompts, self.group, self.minibatches) < 1 or min(self.length, self.prompt) <= 0:
            raise UserError("Reinforcement learning needs --steps, --prompts, --group and --minibatches of 1 or more, and lengths above 0.")
        if self.minibatches > self.steps:
            raise UserError(
                "--minibatches {minibatches} updates of one rollout are more than --steps {steps}; lower one or raise the other.",
                minibatches=self.minibatches, steps=self.steps,
            )  # fmt: skip
        if self.max_length < self.length:
            raise UserError(
                "Answers of {length:g} tokens on average cannot all end by {max_length:g}; raise --max-length or lower --length.",
                length=self.length,
                max_length=self.max_length,
            )


def plan_reinforcement(config: Model, title: str, chip: Chip, devices: int, campaign: Campaign, rent: Rent) -> Plan:
    """Hours and money of rollouts, updates and what lies between. Raises UserError where the devices cannot hold the model."""
    sampled = campaign.steps * campaign.prompts * campaign.group
    answers = Figure(
        "answers",
        sampled,
        "",
        "steps * prompts * group",
        tuple(Input(name, getattr(campaign, name), "", f"--{name}", "assumed") for name in ("steps", "prompts", "group")),
    )
    written = Figure(
        "answer_tokens",
        sampled * campaign.length,
        "tokens",
        "answers * length",
        (answers, Input("length", campaign.length, "tokens", "--length", "assumed")),
    )
    update_fits(config, chip, devices)
    rollout, memory, held = _rollout_hours(config, chip, devices, campaign)
    passes = 1 + (campaign.reference + campaign.old) / 3
    learned = Figure(
        "update_tokens",
        sampled * (campaign.length + campaign.prompt),
        "tokens",
        "answers * (length + prompt)",
        (answers, *written.inputs[1:], Input("prompt", campaign.prompt, "tokens", "--prompt", "assumed")),
    )
    update = update_hours("update_hours", config, learned, campaign.length + campaign.prompt, chip, passes)
    share = Figure(
        "overhead",
        triangular(*OVERHEAD, name="rl_overhead"),
        "share",
        "triangular(least, mode, most)",
        three_points("overhead", OVERHEAD),
    )
    between = Figure(
        "overhead_hours",
        share.value * (rollout.value + update.value),
        "GPU-hours",
        "overhead * (rollout_hours + update_hours)",
        (share, rollout, update),
    )
    lines: list[Line] = [
        line_of("rollouts", "rl", "rollout", rollout, chip, rent),
        line_of("updates", "rl", "update", update, chip, rent),
        line_of("between", "rl", "overhead", between, chip, rent),
    ]
    figures = model_figures(config, campaign.length + campaign.prompt) | {one.name: one for one in (answers, written, held)}
    return with_totals(Plan("rl", title, figures, tuple(lines), memory), devices)


def _rollout_hours(config: Model, chip: Chip, devices: int, campaign: Campaign) -> tuple[Figure, dict[str, float], Figure]:
    """Hours of all rollouts, and what a device holds meanwhile: bytes by kind, and their sum."""
    at_once = campaign.prompts * campaign.group * campaign.minibatches
    context = campaign.prompt + campaign.length / 2
    units.check_holds(config, chip, devices, context)
    unit = units.smallest_unit(config, chip, context)
    groups = devices / unit.tensor
    waiting = at_once / groups
    together = max(min(waiting, inference.most_sequences(config, unit, chip, context)), 1.0)
    one = inference.decode(config, unit, chip, 1.0, context).seconds
    more = (inference.decode(config, unit, chip, together, context).seconds - one) / (together - 1) if together > 1 else one
    reach = decode_reach(chip)
    longest = campaign.max_length + max(waiting / together - 1, 0) * campaign.length
    rollouts = campaign.steps / campaign.minibatches
    source = f"plan/inference.py, {unit.devices} x {chip.title}"
    inputs = (
        Input("rollouts", rollouts, "", "--steps / --minibatches", "computed"),
        Input("longest", longest, "tokens", "--max-length", "computed"),
        Input("step_of_one", one, "s", source, "computed"),
        Input("step_of_one_more", more, "s", source, "computed"),
        Input("answers_per_copy", waiting, "", "--prompts * --group * --minibatches / copies", "computed"),
        Input("length", campaign.length, "tokens", "--length", "assumed"),
        Input("devices", devices, "", "--devices", "assumed"),
    )
    least = longest * one + waiting * campaign.length * more
    seconds = Figure(
        "rollout_seconds",
        least / reach.value,
        "s",
        "(longest * step_of_one + answers_per_copy * length * step_of_one_more) / decode_reach",
        (*inputs[1:6], reach),
    )
    hours = seconds.value * (rollouts * devices / 3600)
    return (
        Figure("rollout_hours", hours, "GPU-hours", "rollouts * rollout_seconds * devices / 3600", (inputs[0], seconds, inputs[6])),
        *units.held(config, unit, chip, together, context),
    )
