"""A plan as text for a terminal: the answer in the first line, then its figures, its lines, and the way to ask why."""

import re
from collections.abc import Sequence

from spoutnik.plan.compare import Comparison
from spoutnik.plan.figure import Figure, Input
from spoutnik.plan.result import Line, Plan
from spoutnik.plan.speech import Speech
from spoutnik.plan.uncertain import Number, Uncertain

UNITS = {
    "gpu_hours": "GPU-hours", "days": "days", "cost_usd": "USD", "co2_t": "tCO2", "params_total": "parameters",
    "params_active": "parameters", "flops_per_token": "FLOP/token", "mfu": "share", "goodput": "share", "practice": "share",
    "bubble": "share",
}  # fmt: skip

MODELLED = ("memory_gib_per_device", "bubble")
"""One number, and not exact: what a layout holds and how long a pipeline waits by the planner's model of it."""


def answer(plan: Plan, words: Speech) -> str:
    """The one sentence that a plan was made for."""
    figures = plan.figures
    cost, hours = figures["cost_usd"], figures["gpu_hours"]
    values = {
        "title": plan.title,
        "hours": words.quantity(hours.value, "GPU-hours"),
        "cost": words.quantity(cost.value, cost.unit),
        "range": words.interval(cost.value, cost.unit) if isinstance(cost.value, Uncertain) else "",
    }
    if "days" in figures:
        values["days"] = words.quantity(figures["days"].value, "days")
    unsure = bool(values["range"])
    if plan.kind == "serve":
        values["nodes"] = words.quantity(figures["nodes"].value, "")
        values |= {key: words.quantity(figures[f"usd_per_million_{key}"].value, "USD") for key in ("input", "output")}
        return words("answer.serve_unsure" if unsure else "answer.serve", **values)
    return words(f"answer.{'unsure' if unsure else 'sure'}{'_days' if 'days' in figures else ''}", **values)


def render(plan: Plan, words: Speech) -> str:
    """The whole text."""
    parts = [answer(plan, words), columns(figure_rows(plan, words), right=(1, 2))]
    if plan.lines:
        parts.append(columns(line_rows(plan, words), right=(1, 2, 3)))
        if isinstance(plan.figures["gpu_hours"].value, Uncertain) and len(plan.lines) > 1:
            parts.append(words("head.draws"))
    if plan.setting:
        parts.append(words("head.setting", setting=words.phrase(plan.setting)))
    parts.append(words("head.ask", names=", ".join(plan.figures)))
    return "\n\n".join(parts)


def figure_rows(plan: Plan, words: Speech) -> list[list[str]]:
    """Head and one row a figure: its name, its middle, what 8 of 10 cases lie between."""
    rows = [[words("head.figure"), words("head.middle"), words("head.interval")]]
    for figure in plan.figures.values():
        unit = shown_unit(figure)
        rows.append([words.label(figure.name), words.quantity(figure.value, unit), interval(figure, words, unit)])
    return rows


def unit_of(figure: Figure) -> str:
    """The unit that a figure is written with, by its name where all plans have it."""
    return UNITS.get(figure.name.lstrip(".0123456789"), figure.unit)


def shown_unit(figure: Figure) -> str:
    """The unit to write behind a figure that stands beside its label: none where the label names it."""
    return "" if unit_of(figure) in ("GPU-hours", "days") else unit_of(figure)


def interval(figure: Figure, words: Speech, unit: str) -> str:
    """What 8 of 10 cases lie between; "exact" where there is nothing to draw, "no range" of a model's result whose error nobody drew."""
    if not isinstance(figure.value, Uncertain):
        return words("plain.no_range" if figure.name in MODELLED else "plain.exact")
    return words.interval(figure.value, unit) or words("plain.narrow")


def line_rows(plan: Plan, words: Speech) -> list[list[str]]:
    """Head, one row a line, and the sum: hours, money, the line's share of the money, and what its hours rest on."""
    rows = [[words("head.line"), words.label("gpu_hours"), words.label("cost_usd"), words("head.share"), words("head.status")]]
    whole = plan.figures["cost_usd"].middle
    for line in plan.lines:
        cost, hours = line.figures["cost_usd"], line.figures["gpu_hours"]
        share = words.quantity(cost.middle / whole if whole else 0.0, "share")
        numbers = [words.quantity(hours.value, ""), words.quantity(cost.value, "USD"), share]
        rows.append([line_name(line, words), *numbers, words(f"status.{line.status}")])
    totals = [words.quantity(plan.figures["gpu_hours"].value, ""), words.quantity(plan.figures["cost_usd"].value, "USD")]
    rows.append([words("head.total"), *totals, "", ""])
    return rows


def line_name(line: Line, words: Speech) -> str:
    """The planner's own lines have words; those of a file have the file's."""
    return words(f"line.{line.name}") if words.has(f"line.{line.name}") else line.name


def why(figure: Figure, words: Speech) -> str:
    """The figure with its formula and inputs, and those of every figure among them, each once."""
    told: set[Figure] = set()
    rows = _why(figure, words, 0, told)
    return "\n".join([*rows, "", words("head.draws")] if isinstance(figure.value, Uncertain) else rows)


def _why(figure: Figure, words: Speech, depth: int, told: set[Figure]) -> list[str]:
    indent = "  " * depth
    unit = unit_of(figure)
    ends = in_brackets(figure.value, unit, words)
    label = f" ({words.label(figure.name)})" if words.has(f"figure.{figure.name}") else ""
    rows = [f"{indent}{figure.name}{label} = {words.quantity(figure.value, unit)}{ends}"]
    if figure in told:
        return rows
    told.add(figure)
    rows.append(f"{indent}  = {formula(figure, words)}")
    if figure.note:
        rows.append(f"{indent}  {words.phrase(figure.note)}")
    for one in figure.inputs:
        rows += [f"{indent}  {input_text(one, words)}"] if isinstance(one, Input) else _why(one, words, depth + 1, told)
    return rows


def in_brackets(value: Number, unit: str, words: Speech) -> str:
    """ " (2.4 M to 3.1 M)"; nothing for what is known or is written alike at both ends."""
    ends = words.interval(value, unit) if isinstance(value, Uncertain) else ""
    return f" ({ends})" if ends else ""


def formula(figure: Figure, words: Speech) -> str:
    """As people write it."""
    return re.sub(" [*x] ", " \N{MULTIPLICATION SIGN} ", words.phrase(figure.formula))


def input_text(one: Input, words: Speech) -> str:
    """ "tokens = 14.8 T tokens [disclosed: DeepSeek-V3 technical report]"."""
    value = words.phrase(one.value) if isinstance(one.value, str) else words.quantity(one.value, one.unit)
    if isinstance(one.value, Uncertain):
        value += in_brackets(one.value, one.unit, words)
    status = words(f"status.{one.status}")
    return f"{one.name} = {value} [{words('plain.pair', name=status, value=words.phrase(one.source)) if one.source else status}]"


def render_comparison(comparison: Comparison, words: Speech) -> str:
    """Which costs less and how surely, then both plans' figures and their differences."""
    return "\n\n".join([compared(comparison, words), columns(comparison_rows(comparison, words), right=(1, 2, 3, 4)), words("head.shared")])


def compared(comparison: Comparison, words: Speech) -> str:
    """The sentence that a comparison was made for."""
    names = {"first": comparison.first.title, "second": comparison.second.title}
    difference = comparison.differences["cost_usd"]
    value = difference.middle
    if value == 0:
        return words("answer.compare_same", **names)
    amount = Figure("", difference.value * (1.0 if value > 0 else -1.0), "USD", "", ())
    ends = interval(amount, words, "USD")
    share = words.quantity(comparison.cheaper, "share")
    return words(
        f"answer.compare_{'more' if value > 0 else 'less'}", amount=words.quantity(amount.value, "USD"), range=ends, share=share, **names
    )


def comparison_rows(comparison: Comparison, words: Speech) -> list[list[str]]:
    """Head and one row for every figure that both plans have."""
    keys = ("head.figure", "head.first", "head.second", "head.difference", "head.interval")
    rows = [[words(key) for key in keys]]
    for name, difference in comparison.differences.items():
        first, second = comparison.first.figures[name], comparison.second.figures[name]
        unit = shown_unit(difference)
        numbers = [words.quantity(one.value, unit) for one in (first, second)]
        if comparison.differs(name):
            numbers += [words.quantity(difference.value, unit), interval(difference, words, unit)]
        else:
            numbers += [words("plain.same"), words("plain.empty")]
        rows.append([words.label(name), *numbers])
    return rows


def columns(rows: Sequence[Sequence[str]], right: Sequence[int] = ()) -> str:
    """A table, two spaces between columns; those in `right` are set to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        cells = [
            cell.rjust(width) if place in right else cell.ljust(width) for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)
