"""Lines and their sums: GPU-hours of each, what they cost, and the totals that every plan ends with."""

from dataclasses import replace

from spoutnik.plan.bill import Rent, bill
from spoutnik.plan.chips import Chip
from spoutnik.plan.components import counts
from spoutnik.plan.figure import Figure, Input
from spoutnik.plan.model_figures import model_figures as describe
from spoutnik.plan.result import Line, Plan
from spoutnik.plan.shape import Model
from spoutnik.plan.uncertain import Uncertain

SUMMED = ("gpu_hours", "cost_usd", "energy_kwh", "co2_t", "water_m3", "embodied_t")


def line_of(name: str, group: str, kind: str, hours: Figure, chip: Chip, rent: Rent, status: str = "computed") -> Line:
    """A line for work that takes so many hours of devices."""
    named = hours if hours.name == "gpu_hours" else Figure("gpu_hours", hours.value, "GPU-hours", hours.name, (hours,))
    return Line(name, group, kind, {"gpu_hours": named} | bill(named, chip, rent), status)


def model_figures(config: Model, length: float) -> dict[str, Figure]:
    """Parameters, and operations of training on one token in sequences of `length`, with multi-token prediction where the model has it."""
    found = describe(config, counts(config, round(length)))
    trained = replace(found.get("flops_per_token_mtp", found["flops_per_token"]), name="flops_per_token")
    return {"params_total": found["params_total"], "params_active": found["params_active"], "flops_per_token": trained}


def with_totals(plan: Plan, devices: int | None = None) -> Plan:
    """The plan with its sums: GPU-hours, money, energy and carbon dioxide of all lines, and days where the devices are known."""
    totals = {name: _sum(plan, name) for name in SUMMED if any(name in line.figures for line in plan.lines)}
    if devices:
        hours, count = totals["gpu_hours"], Input("devices", float(devices), "", "--devices", "assumed")
        totals["days"] = Figure("days", hours.value / (24.0 * devices), "days", "gpu_hours / (24 * devices)", (hours, count))
    return replace(plan, figures=plan.figures | totals)


def _sum(plan: Plan, name: str) -> Figure:
    value: float | Uncertain = 0.0
    parts: list[Figure] = []
    for number, line in enumerate(plan.lines, start=1):
        if name in line.figures:
            figure = line.figures[name]
            value = value + figure.value
            parts.append(replace(figure, name=f"{number}.{name}"))
    return Figure(name, value, parts[0].unit, f"sum({name})", tuple(parts))
