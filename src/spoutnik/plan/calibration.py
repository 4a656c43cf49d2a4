"""The fitted constants and which chip takes which."""

import tomllib
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from spoutnik.plan.chips import Chip
from spoutnik.plan.operators import Efficiency
from spoutnik.plan.uncertain import Range

GENERATIONS = {"a100": ("a100",), "h100": ("h100", "h800", "h200")}
"""Chips whose shares are fitted, by the beginning of their names; others take the mean of these."""


@dataclass(frozen=True)
class Calibration:
    """Contents of calibration.toml."""

    products: dict[str, float]
    products_fp8: dict[str, float]
    attention: dict[str, float]
    software: Range
    """Throughput of a program over the roofline's: how programs of different makers differ."""
    goodput: Range
    """The share of a run's hours that the final model's tokens take at that throughput."""

    def efficiency(self, chip: Chip) -> Efficiency:
        """The roofline's shares for a chip."""
        kind = generation(chip)
        return Efficiency(
            products=self.products.get(kind, self.products["other"]),
            products_fp8=self.products_fp8.get(kind, self.products_fp8["other"]),
            attention=self.attention.get(kind, self.attention["other"]),
            software=self.software.p50,
        )


def generation(chip: Chip) -> str:
    """The generation whose shares a chip takes."""
    return next((name for name, starts in GENERATIONS.items() if chip.name.startswith(starts)), "other")


@cache
def calibration() -> Calibration:
    """The constants in use."""
    content = tomllib.loads(files("spoutnik.plan").joinpath("calibration.toml").read_text(encoding="utf-8"))
    ranges = {name: Range(**content.pop(name)) for name in ("software", "goodput")}
    return Calibration(content["products"], content["products_fp8"], content["attention"], **ranges)
