"""What a plan comes to: named figures, the lines that its sum is made of, and what is drawn of it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from spoutnik.errors import UserError
from spoutnik.plan.figure import Figure, Input

TOTALS = ("gpu_hours", "days", "cost_usd", "energy_kwh", "co2_t")
EXACT = ("params_total", "params_active", "flops_per_token")


@dataclass(frozen=True)
class Line:
    """One row of a sum: what is done, on what, and what it takes. `status` is that of its GPU-hours ("disclosed", "computed"...)."""

    name: str
    group: str
    kind: str
    figures: Mapping[str, Figure]
    status: str


@dataclass(frozen=True)
class Plan:
    """A plan of one kind ("train", "rl", "distill", "serve", "programme"); every number it shows is a Figure."""

    kind: str
    title: str
    figures: dict[str, Figure]
    lines: tuple[Line, ...] = ()
    memory: Mapping[str, float] = field(default_factory=dict)
    """Bytes on one device, by what they hold."""
    drawings: Mapping[str, str] = field(default_factory=dict)
    """SVG by the key of its heading."""

    def figure(self, name: str) -> Figure:
        """The figure of that name, or one that another figure is made of. Raises UserError naming what there is."""
        found = self.all_figures()
        if name not in found:
            raise UserError(f"This plan has no figure {name!r}; it has {', '.join(sorted(found))}.")
        return found[name]

    def all_figures(self) -> dict[str, Figure]:
        """Every figure by name, those within others and those of lines (as NUMBER.NAME, from 1) included."""
        found: dict[str, Figure] = {}

        def visit(figure: Figure) -> None:
            if figure.name not in found:
                found[figure.name] = figure
            for one in figure.inputs:
                if not isinstance(one, Input):
                    visit(one)

        for figure in self.figures.values():
            visit(figure)
        for number, line in enumerate(self.lines, start=1):
            found |= {f"{number}.{name}": figure for name, figure in line.figures.items()}
        return found

    def to_json(self) -> dict[str, Any]:
        """One object: the fixed keys first, null where this kind of plan has no such figure; then all figures, and the lines."""
        numbers = {name: figure.to_json() for name, figure in self.figures.items()}
        fixed = {name: numbers.get(name) for name in EXACT}
        fixed |= {name: _as_range(numbers.get(name)) for name in TOTALS}
        return {
            "kind": self.kind,
            "title": self.title,
            **fixed,
            "memory_gib_per_device": numbers.get("memory_gib_per_device"),
            "figures": {name: {"value": number, "unit": self.figures[name].unit} for name, number in numbers.items()},
            "lines": [
                {"name": line.name, "group": line.group, "kind": line.kind, "status": line.status}
                | {name: _as_range(line.figures[name].to_json()) for name in TOTALS if name in line.figures}
                for line in self.lines
            ],
        }


def _as_range(number: Any) -> Any:
    """What is known exactly has three equal percentiles."""
    return {"p10": number, "p50": number, "p90": number} if isinstance(number, (int, float)) else number
