"""The fitted constants and which chip takes which."""

import math
import tomllib
from dataclasses import asdict, dataclass
from functools import cache
from importlib.resources import files

from spoutnik.plan.chips import Chip
from spoutnik.plan.operators import Efficiency
from spoutnik.plan.uncertain import Range

HEAD = """# What the roofline cannot know: shares of data sheets that programs reach, and hours that make no progress. Fitted by
# `spoutnik plan grade --fit` on the calibration rows of runs.toml alone.
"""
GENERATIONS = {"a100": ("a100",), "h100": ("h100", "h800", "h200")}
"""Chips whose shares are fitted, by the beginning of their names; others take the mean of these."""


@dataclass(frozen=True)
class Goodput:
    """What runs made of the best layout's throughput, goodput and practice together: larger runs are prepared better, so it grows with the
    logarithm of their operations."""

    intercept: float
    slope: float
    """Both of the natural logarithm of goodput over the decimal one of operations."""
    most: float
    """No run is taken to do better in the middle."""
    deviation: float
    """Standard deviation of the logarithm, beside that of programs."""

    def at(self, flops: float) -> Range:
        """For a run of that many operations."""
        middle = min(self.most, math.exp(self.intercept + self.slope * math.log10(flops)))
        return Range(*(middle * math.exp(z * self.deviation) for z in (-1.2816, 0.0, 1.2816)))


@dataclass(frozen=True)
class Calibration:
    """Contents of calibration.toml."""

    products: dict[str, float]
    products_fp8: dict[str, float]
    attention: dict[str, float]
    shared: dict[str, float]
    """The other shares, alike for all chips."""
    software: Range
    """Throughput of a program over the roofline's: how programs of different makers differ."""
    goodput: Goodput

    def efficiency(self, chip: Chip) -> Efficiency:
        """The roofline's shares for a chip."""
        kind = generation(chip)
        return Efficiency(
            products=self.products.get(kind, self.products["other"]),
            products_fp8=self.products_fp8.get(kind, self.products_fp8["other"]),
            attention=self.attention.get(kind, self.attention["other"]),
            software=self.software.p50,
            **self.shared,
        )


def generation(chip: Chip) -> str:
    """The generation whose shares a chip takes."""
    return next((name for name, starts in GENERATIONS.items() if chip.name.startswith(starts)), "other")


def to_toml(constants: Calibration) -> str:
    """The contents of calibration.toml, to three digits."""
    tables = {name: getattr(constants, name) for name in ("products", "products_fp8", "attention", "shared")}
    tables |= {"software": constants.software.to_dict(), "goodput": asdict(constants.goodput)}
    lines = [HEAD]
    for name, table in tables.items():
        lines += [f"[{name}]", *(f"{key} = {float(f'{value:.4g}')}" for key, value in table.items()), ""]
    return "\n".join(lines[:-1]) + "\n"


@cache
def calibration() -> Calibration:
    """The constants in use."""
    content = tomllib.loads(files("spoutnik.plan").joinpath("calibration.toml").read_text(encoding="utf-8"))
    return Calibration(
        products=content["products"],
        products_fp8=content["products_fp8"],
        attention=content["attention"],
        shared=content["shared"],
        software=Range(**content["software"]),
        goodput=Goodput(**content["goodput"]),
    )
