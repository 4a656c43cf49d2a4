"""What could a laboratory with only H20 do? The export rules cut its operations and left its memory: so it trains slowly, and answers one
reader faster than the chip whose export was stopped. Between these lies answering many at once, where latent attention needs so many
operations for each byte of cache that the H20 falls behind again, and plain attention does not.

SGLang's published figures agree: 5.7 k tokens/s written by a node of H20 (lmsys.org, 26 September 2025) and 22.3 k by one of H100
(lmsys.org, 5 May 2025), a ratio of 0.26.
"""

from dataclasses import dataclass

from spoutnik.errors import UserError
from spoutnik.plan import inference, units
from spoutnik.plan.bill import Rent
from spoutnik.plan.chips import Chip
from spoutnik.plan.figure import Figure, Input
from spoutnik.plan.laws import SHARE_OF_PEAK, chinchilla
from spoutnik.plan.rules import performance_density, tpp
from spoutnik.plan.shape import Model
from spoutnik.plan.training import plan_training
from spoutnik.plan.uncertain import Number

CONTEXT = 5000.0
"""Tokens that a request has in its cache: DeepSeek's mean was 4,989 on the day that it published."""
SPEED = 20.0
"""Tokens a second that each user gets at least, as on that day."""


@dataclass(frozen=True)
class Beside:
    """One quantity of both chips, and how many times the first has what the second has."""

    name: str
    first: Figure
    second: Figure

    @property
    def ratio(self) -> Number:
        """First over second."""
        return self.first.value / self.second.value


@dataclass(frozen=True)
class Laboratory:
    """The two chips side by side: what rules see, what training takes, what writing takes, and what is left to do."""

    first: Chip
    second: Chip
    count: int
    days: float
    rows: tuple[Beside, ...]
    needed: Figure
    """Chips of the first kind that train the model in the time that `count` of the second take."""
    best_size: Figure
    best_tokens: Figure
    """What `count` of the first kind train best in `days`, by Chinchilla's law."""

    def row(self, name: str) -> Beside:
        """The row of that name."""
        return next(row for row in self.rows if row.name == name)

    def figures(self) -> dict[str, Figure]:
        """All numbers by name."""
        pairs = [figure for row in self.rows for figure in (row.first, row.second)]
        return {figure.name: figure for figure in (*pairs, self.needed, self.best_size, self.best_tokens)}


def laboratory(
    model: Model, dense: Model, tokens: float, first: Chip, second: Chip, count: int, days: float = 90.0, batch_tokens: int | None = None
) -> Laboratory:
    """Both chips on one model, trained on `tokens` with `count` chips and answering, and on a `dense` one answering.

    Training is in FP8, as DeepSeek-V3's was, where both chips have it, each with the layout that suits it
    best. Raises UserError where a model does not fit.
    """
    if not days > 0:
        raise UserError("--days {days:g} leave no time to train; give a number above 0.", days=days)
    pair = (first, second)
    precision = "fp8-kept" if first.fp8_tflops and second.fp8_tflops else "bf16"
    hours_alone = Rent(0.0)
    plans = [plan_training(model, tokens, chip, count, precision=precision, batch_tokens=batch_tokens, rent=hours_alone) for chip in pair]
    hours = [_of(chip, "training_hours", plan.figures["gpu_hours"]) for chip, plan in zip(pair, plans, strict=True)]
    rows = (
        Beside("tpp", *(_of(chip, "tpp", tpp(chip)) for chip in pair)),
        *_densities(pair),
        Beside("balance", *(_balance(chip) for chip in pair)),
        Beside("training_hours", *hours),
        Beside("many", *(_many(model, chip, "many") for chip in pair)),
        Beside("many_dense", *(_many(dense, chip, "many_dense") for chip in pair)),
        Beside("one_reader", *(_one_reader(model, chip) for chip in pair)),
        *((Beside("many_usd", *(_usd(chip, _many(model, chip, "many")) for chip in pair)),) if all(chip.price for chip in pair) else ()),
    )
    given = Input("count", float(count), "", "--devices", "assumed")
    needed = Figure("needed", count * (hours[0].value / hours[1].value), "", f"count * {hours[0].name} / {hours[1].name}", (given, *hours))
    reach = SHARE_OF_PEAK.value
    assert not isinstance(reach, str)
    flop = Figure("flop", count * days * 86400 * first.rate("bf16") * reach, "FLOP", "count * days * 86400 * peak * share_of_peak",
                  (given, Input("days", days, "days", "--days", "assumed"), first.input("bf16_tflops"), SHARE_OF_PEAK))  # fmt: skip
    advised = chinchilla(flop).figures
    return Laboratory(first, second, count, days, rows, needed, advised["size"], advised["tokens"])


def _of(chip: Chip, name: str, figure: Figure) -> Figure:
    """The figure under a name that says whose it is."""
    return Figure(f"{name}.{chip.name}", figure.value, figure.unit, figure.formula, figure.inputs, figure.note)


def _densities(pair: tuple[Chip, Chip]) -> tuple[Beside, ...]:
    """TPP for each mm2, where both dies' areas are known."""
    found = [_of(chip, "performance_density", density) for chip in pair if (density := performance_density(chip))]
    return (Beside("performance_density", *found),) if len(found) == 2 else ()


def _balance(chip: Chip) -> Figure:
    """Operations that a chip does while it reads one byte: what needs fewer is bound by memory, what needs more by operations."""
    value = chip.rate("bf16") / (chip.bandwidth_tbs * 1e12)
    inputs = (chip.input("bf16_tflops"), chip.input("bandwidth_tbs"))
    return Figure(f"balance.{chip.name}", value, "FLOP/byte", "bf16_tflops / bandwidth_tbs", inputs)


def _many(model: Model, chip: Chip, name: str) -> Figure:
    """Tokens that one chip writes a second at best, by the roofline, among the numbers of chips that can share the model."""
    best, how = 0.0, (0, 0.0, 0.0)
    for unit in units.candidates(model, chip):
        sequences = units.speed_limited_batch(model, unit, chip, CONTEXT, SPEED, 1.0)
        if sequences >= 1:
            seconds = inference.decode(model, unit, chip, sequences, CONTEXT).seconds
            if sequences / seconds / unit.tensor > best:
                best, how = sequences / seconds / unit.tensor, (unit.devices, sequences, seconds)
    if not best:
        raise UserError(
            "No number of {chip} up to {most} answers many readers of this model, {speed:g} tokens a second for each; take another chip or "
            "model.",
            chip=chip.title, most=units.SIZES[-1], speed=SPEED,
        )  # fmt: skip
    inputs = (*_shared(*how), *_memory_inputs(chip))
    return Figure(f"{name}.{chip.name}", best, "tokens/s", "requests / step, by the roofline", inputs, "An upper bound; for each chip.")


def _one_reader(model: Model, chip: Chip) -> Figure:
    """Tokens a second for a single request on one node, by the roofline."""
    unit = units.unit_asked(model, chip, chip.devices_per_node)
    requests = unit.tensor / unit.devices
    seconds = inference.decode(model, unit, chip, requests, CONTEXT).seconds
    inputs = (*_shared(unit.devices, requests, seconds), *_memory_inputs(chip))
    return Figure(f"one_reader.{chip.name}", 1 / seconds, "tokens/s", "1 / step, by the roofline", inputs, "An upper bound.")


def _shared(devices: int, requests: float, seconds: float) -> tuple[Input, ...]:
    """How a model was served."""
    return (
        Input("chips", float(devices), "", "", "computed"), Input("requests", requests, "", "for each copy of the attention", "computed"),
        Input("step", seconds, "s", "plan/inference.py", "computed"), Input("least", SPEED, "tokens/s", "for each user", "assumed"),
        Input("context", CONTEXT, "tokens", "DeepSeek, 1 March 2025: 4,989 on average", "assumed"),
    )  # fmt: skip


def _memory_inputs(chip: Chip) -> tuple[Input, ...]:
    return (chip.input("bandwidth_tbs"), chip.input("memory_gb"), chip.input("bf16_tflops"))


def _usd(chip: Chip, written: Figure) -> Figure:
    price = chip.price_input()
    assert not isinstance(price.value, str)
    value = price.value / (written.middle * 3600) * 1e6
    return Figure(f"many_usd.{chip.name}", value, "USD", f"price / ({written.name} * 3600) * 1e6", (written, price),
                  "A million tokens written, chips alone and always busy.")  # fmt: skip
