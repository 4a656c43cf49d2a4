"""A whole programme as one sum: pretraining, context extension, fine-tuning, reinforcement learning, distillation, months of serving.

A programme is a TOML file of lines. A line says what is done; it may also say what it took, by whom disclosed, and then that counts, unless
everything is to be predicted. So one file holds both the published sum and what the planner would have said.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from spoutnik.errors import UserError
from spoutnik.plan.bill import Rent
from spoutnik.plan.chips import Chip, chip
from spoutnik.plan.components import counts
from spoutnik.plan.distillation import Lesson, plan_distillation
from spoutnik.plan.energy import WORLD
from spoutnik.plan.figure import Figure, Input, Status
from spoutnik.plan.models import open_model
from spoutnik.plan.programme_file import Programme
from spoutnik.plan.reinforcement import Campaign, plan_reinforcement
from spoutnik.plan.result import Plan
from spoutnik.plan.serving import Service, Throughput, plan_serving
from spoutnik.plan.sums import line_of, with_totals
from spoutnik.plan.training import plan_training
from spoutnik.plan.trend import programmes
from spoutnik.plan.uncertain import Uncertain, lognormal
from spoutnik.plan.update import update_hours


def plan_programme(programme: Programme, predict: bool = False, price: float | None = None, location: str = WORLD) -> Plan:
    """The sum of all lines. `predict` sets aside what the lines disclose; `price` replaces theirs."""
    lines, projects = [], _project_flops(programme)
    days: float | Uncertain = 0.0
    spans: list[Input] = []
    for line in programme.lines:
        device, rent = chip(line["chip"]), _rent(line, price, location)
        hours, status = _hours(line, device, rent, predict, projects.get(line.get("group", "")))
        made = line_of(line["name"], line.get("group", ""), line["kind"], hours, device, rent, status)
        lines.append(made)
        span = line["days"] if "days" in line else hours.value / (24.0 * line["devices"]) if "devices" in line else None
        if span is not None:
            known: Status = "assumed" if "days" in line else "computed"
            spans.append(Input(f"{len(lines)}.days", span, "days", f"{len(lines)}. {line['name']}", known))
            days = days + span
    plan = with_totals(Plan("programme", programme.title, {}, tuple(lines)))
    one_by_one = Figure("days", days, "days", "sum(days)", tuple(spans), "Lines that say neither devices nor days are not in it.")
    return Plan(
        plan.kind, plan.title, plan.figures | {"days": one_by_one, "cost_with_development_usd": _with_development(plan)}, plan.lines
    )


def _with_development(plan: Plan) -> Figure:
    """What the training lines cost with everything that was tried before."""
    trained = [(number, line.figures["cost_usd"]) for number, line in enumerate(plan.lines, start=1) if line.kind != "serve"]
    value: float | Uncertain = 0.0
    for _, cost in trained:
        value = value + cost.value
    parts = tuple(replace(cost, name=f"{number}.cost_usd") for number, cost in trained)
    final = Figure("final_runs_usd", value, "USD", "sum(cost_usd)", parts, "All lines but services.")
    times = development()
    return Figure("cost_with_development_usd", final.value * times.value, "USD", "final_runs_usd * development", (final, times))


def development() -> Figure:
    """What a programme takes with its failed and exploratory runs, as a multiple of its final runs: between the two that were published."""
    told = sorted(programmes(Input("one", 1.0)).items(), key=lambda pair: pair[1].middle)
    low, high = told[0][1].middle, told[-1][1].middle
    shares = tuple(replace(one, name=f"{name}.{one.name}") for name, figure in told for one in figure.inputs if one.name == "final_share")
    value = lognormal(low, math.sqrt(low * high), high, name="development")
    return Figure("development", value, "", "lognormal(1 / highest, 1 / sqrt(highest * lowest), 1 / lowest)", shares)


def _rent(line: Mapping[str, Any], price: float | None, location: str) -> Rent:
    if price is not None:
        return Rent(price, location=location)
    return Rent(line.get("price"), "programme", "assumed", location)


def _disclosed(line: Mapping[str, Any]) -> Figure | None:
    """What the line itself says that it took."""
    source, status = line.get("source", "programme"), line.get("status", "disclosed")
    if "gpu_hours" in line:
        return Figure(
            "gpu_hours",
            line["gpu_hours"],
            "GPU-hours",
            "disclosed",
            (Input("disclosed_hours", line["gpu_hours"], "GPU-hours", source, status),),
        )
    if "devices" in line and "hours" in line:
        parts = (Input("devices", line["devices"], "", source, status), Input("hours", line["hours"], "h", source, status))
        return Figure("gpu_hours", line["devices"] * line["hours"], "GPU-hours", "devices * hours", parts)
    return None


def _project_flops(programme: Programme) -> dict[str, float]:
    """Operations of all training lines of each group: a group is one project, whose short runs are prepared as well as its long one."""
    found: dict[str, float] = {}
    for line in programme.lines:
        if line["kind"] == "train" and line.get("group"):
            model = open_model(line["model"])
            parts = zip(line["tokens"], line["sequence_length"], strict=True)
            operations = sum(tokens * counts(model, round(length)).training() for tokens, length in parts)
            found[line["group"]] = found.get(line["group"], 0.0) + operations
    return found


def _hours(line: dict[str, Any], device: Chip, rent: Rent, predict: bool, project_flops: float | None) -> tuple[Figure, str]:
    disclosed = _disclosed(line)
    if disclosed and (line["kind"] == "given" or not predict):
        return disclosed, line.get("status", "disclosed")
    makers: dict[str, Callable[[dict[str, Any], Chip, Rent], Figure]] = {
        "train": partial(_train_hours, project_flops=project_flops),
        "sft": _sft_hours,
        "rl": _rl_hours,
        "distill": _distill_hours,
    }
    if line["kind"] == "serve":
        given = "prefill_per_node" in line and not predict
        return _serve_hours(line, device, rent, given), line.get("status", "disclosed") if given else "computed"
    return makers[line["kind"]](line, device, rent), "computed"


def _train_hours(line: dict[str, Any], device: Chip, rent: Rent, project_flops: float | None) -> Figure:
    """The hours of one training plan for each length of sequence; the line's layout is that of each."""
    if "devices" not in line:
        raise UserError("The line {name!r} (train) does not say how many devices train; give it devices.", name=line["name"])
    model, parts = open_model(line["model"]), []
    for tokens, length in zip(line["tokens"], line["sequence_length"], strict=True):
        batch = round(line["batch_tokens"]) if "batch_tokens" in line else None
        made = plan_training(
            model,
            tokens,
            device,
            line["devices"],
            line.get("layout"),
            sequence_length=round(length),
            batch_tokens=batch,
            precision=line.get("precision", "bf16"),
            rent=rent,
            project_flops=project_flops,
        )
        parts.append(replace(made.figures["gpu_hours"], name=f"hours_at_{length:.0f}"))
    if len(parts) == 1:
        return parts[0]
    value: float | Uncertain = 0.0
    for part in parts:
        value = value + part.value
    return Figure("gpu_hours", value, "GPU-hours", " + ".join(part.name for part in parts), tuple(parts))


def _sft_hours(line: dict[str, Any], device: Chip, rent: Rent) -> Figure:
    tokens = line["samples"] * line["length"] * line.get("epochs", 1.0)
    parts = tuple(Input(key, line.get(key, 1.0), "", "programme", "assumed") for key in ("samples", "length", "epochs"))
    counted = Figure("learned_tokens", tokens, "tokens", "samples * length * epochs", parts)
    return update_hours("gpu_hours", open_model(line["model"]), counted, line["length"], device)


def _rl_hours(line: dict[str, Any], device: Chip, rent: Rent) -> Figure:
    campaign = Campaign(
        line["steps"],
        line["prompts"],
        line["group_size"],
        line["length"],
        line["max_length"],
        line.get("prompt", 300.0),
        line.get("minibatches", 1),
    )
    if "devices" not in line:
        raise UserError("The line {name!r} (rl) does not say how many devices sample; give it devices.", name=line["name"])
    return plan_reinforcement(open_model(line["model"]), line["name"], device, line["devices"], campaign, rent).figures["gpu_hours"]


def _distill_hours(line: dict[str, Any], device: Chip, rent: Rent) -> Figure:
    lesson = Lesson(line.get("mode", "samples"), line["samples"], line["length"], line.get("epochs", 2.0), line.get("kept", 1.0))
    teacher, student = open_model(line["teacher"]), open_model(line["student"])
    return plan_distillation(teacher, student, line["name"], device, line.get("devices"), lesson, rent).figures["gpu_hours"]


def _serve_hours(line: dict[str, Any], device: Chip, rent: Rent, given: bool) -> Figure:
    keys = {key: line[key] for key in ("found", "prompt", "context", "speed", "days", "accepted") if key in line}
    service = Service(line["input_tokens"], line["output_tokens"], **keys)
    rates = (
        Throughput(line["prefill_per_node"], line["decode_per_node"], line.get("source", "programme"), line.get("status", "disclosed"))
        if given
        else None
    )
    return plan_serving(open_model(line["model"]), line["name"], device, service, rent, rates).figures["gpu_hours"]
