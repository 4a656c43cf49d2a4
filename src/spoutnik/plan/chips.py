"""The chips that plans are made for: what their makers publish, what hiring them costs, and where each number comes from."""

import difflib
import tomllib
from dataclasses import dataclass, fields
from functools import cache
from importlib.resources import files
from typing import Any

from spoutnik.errors import Phrase, UserError
from spoutnik.plan.figure import Input, Status
from spoutnik.plan.uncertain import Uncertain, triangular

UNITS = {
    "bf16_tflops": "TFLOP/s", "fp16_tflops": "TFLOP/s", "fp8_tflops": "TFLOP/s", "int8_tops": "TOP/s", "fp4_tflops": "TFLOP/s",
    "memory_gb": "GB", "bandwidth_tbs": "TB/s", "scale_up_gbs": "GB/s", "scale_out_gbs": "GB/s", "tdp_w": "W", "die_mm2": "mm2",
}  # fmt: skip


@dataclass(frozen=True)
class Price:
    """US dollars for one chip and hour: lowest, most usual, highest offer found, on a date."""

    low: float
    mode: float
    high: float
    date: str
    source: str
    status: Status = "assumed"

    def distribution(self) -> Uncertain:
        """The price as it may turn out; all plans draw the same market."""
        return triangular(self.low, self.mode, self.high, name="price")


THIS_MACHINE = "this-machine"


@dataclass(frozen=True)
class Chip:
    """One accelerator (or processor socket). Rates are dense; 0 where it has no such format. Bytes in powers of ten."""

    name: str
    title: str
    released: str
    sources: str
    bf16_tflops: float
    memory_gb: float
    bandwidth_tbs: float
    scale_up_gbs: float
    """Between chips of one node, both directions together, as makers print it."""
    scale_out_gbs: float
    """Between nodes, one direction, for each chip."""
    devices_per_node: int
    tdp_w: float
    fp16_tflops: float = 0.0
    """Where it is not bf16's: chips from before bf16."""
    fp8_tflops: float = 0.0
    int8_tops: float = 0.0
    fp4_tflops: float = 0.0
    die_mm2: float = 0.0
    """Of compute dies made in a non-planar process, together; 0 where it is not known."""
    price: Price | None = None
    status: Status = "disclosed"
    """Who vouches for the numbers: the maker's data sheet, or others (claimed)."""
    assumed: tuple[str, ...] = ()
    """Fields that no source was found for."""
    note: str = ""
    power_is_all_in: bool = False
    """`tdp_w` counts the chip's share of server and network, too."""
    under_us_rules: bool = True
    """False for what is made and sold outside their reach: its export class is a comparison only."""

    def rate(self, precision: str = "bf16") -> float:
        """Dense operations a second at "bf16", "fp16", "fp8", "int8" or "fp4", in FLOP/s. Raises UserError where it has no such units."""
        rates = {
            "bf16": self.bf16_tflops, "fp16": self.fp16_tflops or self.bf16_tflops, "fp8": self.fp8_tflops, "int8": self.int8_tops,
            "fp4": self.fp4_tflops,
        }  # fmt: skip
        if precision not in rates:
            raise UserError("No precision {precision!r}; it must be one of {rates}.", precision=precision, rates=", ".join(rates))
        if not rates[precision]:
            known = ", ".join(name for name, rate in rates.items() if rate)
            raise UserError("{title} has no {precision} units; choose one of {known}.", title=self.title, precision=precision, known=known)
        return rates[precision] * 1e12

    def input(self, field: str) -> Input:
        """A field as an input of a figure, with its source."""
        status: Status = "assumed" if field in self.assumed else self.status
        return Input(f"{self.name}.{field}", getattr(self, field), UNITS.get(field, ""), self.sources, status)

    def price_input(self) -> Input:
        """The hourly price as an input of a figure. Raises UserError where none is known."""
        if self.price is None:
            raise UserError("No hourly price is known for {title}; give one with --price.", title=self.title)
        note = Phrase("{source}, {date}", source=Phrase(self.price.source), date=self.price.date)
        return Input(f"{self.name}.price", self.price.distribution(), "USD/h", note, self.price.status)


def chip(name: str) -> Chip:
    """The chip of that name, THIS_MACHINE among them once it was measured. Raises UserError naming those that are near."""
    if name == THIS_MACHINE:
        from spoutnik.plan.probe import as_chip, kept

        return as_chip(kept())
    found = chips().get(name.lower().replace("_", "-").replace(" ", "-"))
    if found is None:
        near = [key for key in chips() if name.lower() in key] or difflib.get_close_matches(name.lower(), chips(), n=3, cutoff=0.3)
        raise UserError("No chip {name!r} in the table; near it are {near}.", name=name, near=", ".join(near or chips()))
    return found


@cache
def chips() -> dict[str, Chip]:
    """All chips of the table, by name."""
    content = tomllib.loads(files("spoutnik.plan").joinpath("chips.toml").read_text(encoding="utf-8"))
    return {name: _read(name, row) for name, row in content.items()}


def _read(name: str, row: dict[str, Any]) -> Chip:
    values = dict(row)
    if "price" in values:
        values["price"] = Price(**values["price"])
    values["assumed"] = tuple(values.get("assumed", ()))
    for field in fields(Chip):
        if field.type is float and field.name in values:
            values[field.name] = float(values[field.name])
    return Chip(name=name, **values)
