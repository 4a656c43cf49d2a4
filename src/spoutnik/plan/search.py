"""The fastest layout that fits into memory: tries the ways that people lay out a run, and takes the least recomputation that fits."""

from collections.abc import Iterator
from dataclasses import replace
from itertools import product
from typing import Any

from spoutnik.errors import UserError
from spoutnik.plan.chips import Chip
from spoutnik.plan.layout import RECOMPUTE, Layout, check_fields
from spoutnik.plan.memory import memory
from spoutnik.plan.operators import Efficiency
from spoutnik.plan.pieces import pieces
from spoutnik.plan.shape import Model
from spoutnik.plan.step import Step, step

ROOM = 0.92
"""The share of a device's memory that a plan fills: drivers, collectives' buffers and fragments take the rest. Where nothing fits so, a
layout that fits at all is taken."""

WIDEST_SHARING = 512
"""Replicas that ZeRO 3 shares weights among at most: larger rings than are published with it are not proposed."""


def best_layout(
    model: Model,
    chip: Chip,
    count: int,
    sequence_length: int = 4096,
    batch_tokens: int | None = None,
    how: Efficiency | None = None,
    precision: str = "bf16",
    schedules: tuple[str, ...] | None = None,
    **fixed: Any,
) -> Layout:
    """The layout of `count` chips with the least time for a token. `fixed` holds fields of the layout that are not to be searched.
    Unless `schedules` says otherwise, dense models get those that they are trained with: ZB1P and DualPipe are DeepSeek's, for experts.

    Raises UserError if none fits, naming what the nearest one would need.
    """
    check_fields({"precision": precision, "sequence_length": sequence_length, **fixed})
    if batch_tokens is not None and batch_tokens < sequence_length:
        raise UserError(
            "A step of {batch_tokens:,} tokens holds no sequence of {sequence_length:,}; give --batch-tokens {sequence_length} or more.",
            batch_tokens=batch_tokens, sequence_length=sequence_length,
        )  # fmt: skip
    schedules = schedules or (("1f1b", "interleaved", "zb1p", "dualpipe") if model.n_routed_experts else ("1f1b", "interleaved"))
    batch = batch_tokens or default_batch_tokens(model, count, sequence_length)
    ranked: list[tuple[float, int, Layout]] = []
    tight: list[tuple[float, int, Layout]] = []
    least: tuple[float, Layout] | None = None
    parts = pieces(model)
    for place, layout in enumerate(_candidates(model, chip, count, sequence_length, batch, precision, schedules, fixed)):
        fitting, room = None, ROOM
        for recompute in (fixed.get("recompute"),) if "recompute" in fixed else RECOMPUTE:
            tried = replace(layout, recompute=str(recompute))
            held = memory(model, tried, parts=parts).total
            if least is None or held < least[0]:
                least = held, tried
            if held <= chip.memory_gb * 1e9:
                fitting, room = tried, held / (chip.memory_gb * 1e9)
            if held <= ROOM * chip.memory_gb * 1e9:
                break
        if fitting:
            quick = step(model, fitting, chip, how, exact=False, parts=parts)
            (ranked if room <= ROOM else tight).append((-quick.tokens_per_second_per_device, place, fitting))
    if not (ranked or tight):
        raise _nothing_fits(model, chip, count, least, fixed)
    finalists = sorted(ranked or tight)[:6]
    return max((layout for _, _, layout in finalists), key=lambda layout: _speed(step(model, layout, chip, how)))


def _speed(one: Step) -> float:
    return one.tokens_per_second_per_device


def default_batch_tokens(model: Model, count: int, sequence_length: int) -> int:
    """Tokens of a step where nobody says: 4 million for models like Llama 3 8B and Llama 2, 16 million from 100 B parameters on (Llama 3
    405B's), as people do; at least a sequence for each chip of a small cluster."""
    size = model.hidden_size * model.num_hidden_layers
    wanted = 1 << 20 if size < 50_000 else 1 << 22 if size < 1_000_000 else 1 << 24
    return max(wanted, sequence_length)


def _candidates(
    model: Model,
    chip: Chip,
    count: int,
    sequence_length: int,
    batch: int,
    precision: str,
    schedules: tuple[str, ...],
    fixed: dict[str, Any],
) -> Iterator[Layout]:
    choices = _ways(model, chip, count) | {
        "context": [ways for ways in _powers(64) if ways == 1 or sequence_length / ways >= 8192],
        "micro_batch_size": [1, 2, 4],
        "schedule": list(schedules),
        "zero": [1, 3],
    }
    names = list(choices)
    tried: list[list[Any]] = [[fixed[name]] if name in fixed else choices[name] for name in names]
    for values in product(*tried):
        fields = dict(zip(names, values, strict=True))
        data, rest = divmod(count, fields["tensor"] * fields["context"] * fields["pipeline"])
        one = fields["pipeline"] == 1
        if rest or (one and fields["schedule"] != fixed.get("schedule", schedules[0])) or (not one and fields["zero"] == 3):
            continue
        per_step = data * fields["micro_batch_size"] * sequence_length
        tokens = max(1, round(batch / per_step)) * per_step
        if fields["zero"] == 3 and data * fields["context"] > WIDEST_SHARING:
            continue
        if tokens > 1.5 * batch and fields["micro_batch_size"] > 1:
            continue
        fields |= {"data": data, "sequence_length": sequence_length, "global_batch_tokens": tokens, "precision": precision}
        try:
            layout = Layout(**{**fields, **fixed})
            layout.check(model)
            if layout.devices != count:
                continue
        except UserError:
            continue
        yield layout


def _ways(model: Model, chip: Chip, count: int) -> dict[str, list[Any]]:
    """The numbers of parts that divide the chips and the model."""
    return {
        "tensor": [ways for ways in _powers(chip.devices_per_node) if count % ways == 0],
        "pipeline": [stages for stages in range(1, min(64, model.num_hidden_layers) + 1) if count % stages == 0],
        "expert": [ways for ways in _powers(512) if ways == 1 or (model.n_routed_experts and model.n_routed_experts % ways == 0)],
    }


def _powers(most: int) -> list[int]:
    found = [1]
    while found[-1] * 2 <= most:
        found.append(found[-1] * 2)
    return found


def _nothing_fits(model: Model, chip: Chip, count: int, least: tuple[float, Layout] | None, fixed: dict[str, Any]) -> UserError:
    if least is None and fixed:
        asked = " ".join(f"{name}={value}" for name, value in fixed.items())
        could = "; ".join(f"{name} {', '.join(map(str, ways))}" for name, ways in _ways(model, chip, count).items() if name in fixed)
        if not could:
            return UserError(
                "{count} x {chip} cannot be laid out with {asked}; leave out what need not be so.", count=count, chip=chip.name, asked=asked
            )
        return UserError(
            "{count} x {chip} cannot be laid out with {asked}; leave out what need not be so, or take of these: {could}.",
            count=count, chip=chip.name, asked=asked, could=could,
        )  # fmt: skip
    if least is None:
        return UserError(
            "{count} x {chip} cannot be laid out for {layers} layers and {heads} heads; take a number of chips with small divisors, as "
            "{better}.",
            count=count, chip=chip.name, layers=model.num_hidden_layers, heads=model.num_attention_heads,
            better=1 << (count - 1).bit_length(),
        )  # fmt: skip
    held, layout = least
    have = chip.memory_gb * 1e9
    enough = count * 2 ** max(1, (held / have - 1e-9).__ceil__() - 1).bit_length()
    return UserError(
        "The model does not fit on {count} x {chip}: the smallest layout ({layout}) holds {held:.0f} GB a chip, which has {have:.0f}; "
        "take about {enough} chips, chips with more memory, or shorter sequences.",
        count=count, chip=chip.name, layout=layout.phrase(), held=held / 1e9, have=have / 1e9, enough=enough,
    )  # fmt: skip
