"""How many devices share a model, and how many requests they answer at a time."""

import math

from spoutnik.errors import UserError
from spoutnik.plan import inference
from spoutnik.plan.chips import Chip
from spoutnik.plan.components import counts
from spoutnik.plan.figure import Figure, Input
from spoutnik.plan.inference import Unit
from spoutnik.plan.shape import Model

SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256)


def candidates(config: Model, chip: Chip) -> list[Unit]:
    """The units worth comparing, whether or not the model fits on them."""
    return [unit for devices in SIZES if (unit := unit_of(config, chip, devices))]


def smallest_unit(config: Model, chip: Chip, context: float = 4096.0) -> Unit:
    """The fewest devices (a power of two, or one) on which weights and the cache of eight requests lie.

    Of one request, where no number of devices has room for eight. Raises UserError where none has room for one.
    """
    for requests in (8, 1):
        for unit in candidates(config, chip):
            if inference.most_sequences(config, unit, chip, context) >= requests:
                return unit
    raise UserError(
        "A copy of this model ({billions:,.1f} B parameters) does not fit on any number of {title} with {context:,.0f} tokens "
        "of context; choose a chip with more than {memory_gb:g} GB, or less context.",
        billions=counts(config).parameters / 1e9,
        title=chip.title,
        context=context,
        memory_gb=chip.memory_gb,
    )


def unit_asked(config: Model, chip: Chip, devices: int) -> Unit:
    """That many devices. Raises UserError where they cannot share the model."""
    unit = unit_of(config, chip, devices)
    if unit is None:
        possible = ", ".join(str(one.devices) for one in candidates(config, chip))
        raise UserError(
            "{devices} x {title} cannot share one copy of this model; take one of {possible}.",
            devices=devices,
            title=chip.title,
            possible=possible,
        )
    return unit


def unit_of(config: Model, chip: Chip, devices: int) -> Unit | None:
    """How `devices` share a model: experts are spread and attention copied; a dense model is cut, within one node. None: they cannot."""
    if devices > 1 and not (chip.scale_up_gbs if devices <= chip.devices_per_node else chip.scale_out_gbs):
        return None
    if config.n_routed_experts:
        return Unit(devices) if devices <= config.n_routed_experts else None
    parts = min(devices, chip.devices_per_node)
    return Unit(devices, parts) if devices == parts and config.num_attention_heads % parts == 0 else None


def check_holds(config: Model, chip: Chip, devices: int, context: float) -> None:
    """Raises UserError where so many devices do not hold a copy of the model."""
    least = smallest_unit(config, chip, context).devices
    if least > devices:
        raise UserError(
            "{devices} x {title} do not hold one copy of the model to sample from; give --devices {needed} or more.",
            devices=devices,
            title=chip.title,
            needed=least,
        )


def held(config: Model, unit: Unit, chip: Chip, sequences: float, context: float) -> tuple[dict[str, float], Figure]:
    """What one device holds while its group answers so many requests: bytes by kind, and their sum in GiB as a figure."""
    weights = inference.weight_bytes(config, unit, chip)
    share = sequences / inference.most_sequences(config, unit, chip, context)
    kinds = {"weights": weights, "cache": (inference.ROOM * chip.memory_gb * 1e9 - weights) * share}
    parts = tuple(Input(f"{name}_gib", value / 2**30, "GiB", "plan/inference.py", "computed") for name, value in kinds.items())
    return kinds, Figure("memory_gib_per_device", sum(kinds.values()) / 2**30, "GiB", "weights_gib + cache_gib", parts)


def speed_limited_batch(
    config: Model,
    unit: Unit,
    chip: Chip,
    context: float,
    tokens_per_second_per_user: float,
    reach: float,
    drafts: int = 0,
    accepted: float = 0.0,
) -> float:
    """The most requests of a group at which each still gets its tokens a second, where a step takes 1 / `reach` of the least time.

    Bounded by memory; 0 where even one is too slow.
    """
    limit = inference.most_sequences(config, unit, chip, context)
    seconds = (1 + drafts * accepted) / tokens_per_second_per_user * reach

    def fits(sequences: float) -> bool:
        return inference.decode(config, unit, chip, sequences, context, drafts).seconds <= seconds

    if limit < 1 or not fits(1.0):
        return 0.0
    low, high = 1.0, float(math.floor(limit))
    if fits(high):
        return high
    while high - low > 1:
        middle = math.floor((low + high) / 2)
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low


def bulk(config: Model, chip: Chip, context: float, devices: int = SIZES[-1]) -> tuple[Unit, float, float]:
    """For answers that nobody waits for: the unit of at most `devices`, its requests a group and the least device-seconds for each token
    written."""
    best: tuple[Unit, float, float] | None = None
    for unit in candidates(config, chip):
        if unit.devices > devices:
            break
        many = float(math.floor(inference.most_sequences(config, unit, chip, context)))
        if many >= 1:
            seconds = inference.decode(config, unit, chip, many, context).seconds * unit.tensor / many
            if best is None or seconds < 0.99 * best[2]:
                best = (unit, many, seconds)
    if best is None:
        smallest_unit(config, chip, context)
        raise UserError(
            "The model does not fit on any number of {title} with {context:,.0f} tokens of context; choose a larger chip.",
            title=chip.title,
            context=context,
        )
    return best
