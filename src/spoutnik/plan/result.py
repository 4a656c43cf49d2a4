"""What a plan comes to: named figures, the lines that its sum is made of, and what is drawn of it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from spoutnik.errors import Phrase, UserError
from spoutnik.plan.figure import Figure, Input
from spoutnik.plan.uncertain import Uncertain

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

    @property
    def setting(self) -> str | Phrase:
        """What the plan chose, in a few words; empty where there was nothing to choose."""
        return ""

    def figure(self, name: str) -> Figure:
        """The figure of that name: one of the plan's, one that those are made of, or one of a line, by its number (2.cost_usd) or the first
        line that has it. Raises UserError naming what there is.
        """
        found = self.all_figures()
        key = name if name in found else next((key for key in found if key.partition(".")[2] == name), None)
        if key is None:
            names = dict.fromkeys(known.partition(".")[2] or known for known in found)
            raise UserError("This plan has no figure {name!r}; it has {names}.", name=name, names=", ".join(names))
        return found[key]

    def all_figures(self) -> dict[str, Figure]:
        """Every figure by name, with those that it is made of; those of lines have the line's number, from 1, before their name."""
        found: dict[str, Figure] = {}

        def visit(figure: Figure, prefix: str) -> None:
            key = prefix + figure.name
            if key not in found and not figure.name[0].isdigit():
                found[key] = figure
                for one in figure.inputs:
                    if not isinstance(one, Input):
                        visit(one, prefix)

        for figure in self.figures.values():
            visit(figure, "")
        for number, line in enumerate(self.lines, start=1):
            for figure in line.figures.values():
                visit(figure, f"{number}.")
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


def reasons(figure: Figure) -> dict[str, Any]:
    """A figure with its formula and inputs, those of figures among them included, for JSON."""
    told: dict[str, Any] = {"name": figure.name, "value": figure.to_json(), "unit": figure.unit, "formula": figure.formula, "inputs": []}
    if figure.note:
        told["note"] = str(figure.note)
    for one in figure.inputs:
        if isinstance(one, Input):
            value = one.value.range().to_dict() if isinstance(one.value, Uncertain) else one.value
            told["inputs"].append({"name": one.name, "value": value, "unit": one.unit, "source": str(one.source), "status": one.status})
        else:
            told["inputs"].append(reasons(one))
    return told


def _as_range(number: Any) -> Any:
    """What is known exactly has three equal percentiles."""
    return {"p10": number, "p50": number, "p90": number} if isinstance(number, (int, float)) else number
