"""Two plans side by side. Both draw what is uncertain from the same named streams, so a difference is taken draw by draw."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from spoutnik.plan.figure import Figure
from spoutnik.plan.result import Plan
from spoutnik.plan.uncertain import Uncertain


@dataclass(frozen=True)
class Comparison:
    """`differences` holds second minus first for every figure of the same unit in both."""

    first: Plan
    second: Plan
    differences: dict[str, Figure]
    cheaper: float
    """Share of the draws in which the second costs less."""

    def to_json(self) -> dict[str, Any]:
        """Both plans, and what lies between them."""
        return {
            "first": self.first.to_json(),
            "second": self.second.to_json(),
            "difference": {name: figure.to_json() for name, figure in self.differences.items()},
            "second_is_cheaper": self.cheaper,
        }


def compare(first: Plan, second: Plan) -> Comparison:
    """The comparison of two plans."""
    differences = {}
    for name, one in first.figures.items():
        other = second.figures.get(name)
        if other and other.unit == one.unit:
            differences[name] = Figure(name, other.value - one.value, one.unit, "second - first", (one, other))
    cost = differences["cost_usd"].value
    cheaper = float(np.mean(cost.samples < 0)) if isinstance(cost, Uncertain) else float(cost < 0)
    return Comparison(first, second, differences, cheaper)
