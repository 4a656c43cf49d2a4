"""Two plans side by side. Both draw what is uncertain from the same named streams, so a difference is taken draw by draw."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from spoutnik.plan.figure import Figure
from spoutnik.plan.result import Plan
from spoutnik.plan.uncertain import Uncertain, samples_of


@dataclass(frozen=True)
class Comparison:
    """`differences` holds second minus first for every figure of the same unit in both."""

    first: Plan
    second: Plan
    differences: dict[str, Figure]
    cheaper: float
    """Share of the draws in which the second costs less."""

    def differs(self, name: str) -> bool:
        """Whether a figure differs in any draw, by more than rounding."""
        difference, size = self.differences[name].value, abs(self.first.figures[name].middle)
        return bool(np.any(np.abs(samples_of(difference)) > 1e-9 * size))

    def to_json(self) -> dict[str, Any]:
        """Both plans, and what lies between them."""
        return {
            "first": self.first.to_json(),
            "second": self.second.to_json(),
            "difference": {name: figure.to_json() for name, figure in self.differences.items()},
            "second_is_cheaper": self.cheaper,
        }


def compare(first: Plan, second: Plan, changes: str = "") -> Comparison:
    """The comparison of two plans; `changes` tells the second one apart where it has the first one's title."""
    if second.title == first.title and changes:
        second = replace(second, title=f"{second.title} ({changes})")
    differences = {}
    for name, one in first.figures.items():
        other = second.figures.get(name)
        if other and other.unit == one.unit:
            differences[name] = Figure(name, other.value - one.value, one.unit, "second - first", (one, other))
    cost = differences["cost_usd"].value
    cheaper = float(np.mean(cost.samples < 0)) if isinstance(cost, Uncertain) else float(cost < 0)
    return Comparison(first, second, differences, cheaper)
