"""A whole programme as one sum: pretraining, context extension, fine-tuning, reinforcement learning, distillation, months of serving.

A programme is a TOML file of lines. A line says what is done; it may also say what it took, by whom disclosed, and then that counts, unless
everything is to be predicted. So one file holds both the published sum and what the planner would have said.
"""

import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from importlib.resources import files
from pathlib import Path
from typing import Any

from spoutnik.errors import UserError
from spoutnik.plan.bill import Rent
from spoutnik.plan.chips import Chip, chip
from spoutnik.plan.distillation import Lesson, plan_distillation
from spoutnik.plan.figure import Figure, Input
from spoutnik.plan.models import open_model
from spoutnik.plan.reinforcement import Campaign, plan_reinforcement
from spoutnik.plan.result import Plan
from spoutnik.plan.serving import Service, Throughput, plan_serving
from spoutnik.plan.sums import line_of, with_totals
from spoutnik.plan.training import plan_training
from spoutnik.plan.uncertain import Uncertain, lognormal
from spoutnik.plan.update import update_hours
from spoutnik.plan.words import LANGUAGES

FOLDER = "programmes"
COMMON: dict[str, type] = {
    "name": str,
    "group": str,
    "kind": str,
    "chip": str,
    "price": float,
    "gpu_hours": float,
    "devices": int,
    "hours": float,
    "source": str,
    "status": str,
}
"""Keys that every line may have."""
KINDS: dict[str, tuple[dict[str, type], dict[str, type]]] = {
    "given": ({}, {}),
    "train": ({"model": str, "tokens": list, "sequence_length": list}, {"precision": str, "batch_tokens": float, "layout": dict}),
    "sft": ({"model": str, "samples": float, "length": float}, {"epochs": float}),
    "rl": (
        {"model": str, "steps": int, "prompts": int, "group_size": int, "length": float, "max_length": float},
        {"prompt": float, "minibatches": int},
    ),
    "distill": ({"teacher": str, "student": str, "samples": float, "length": float}, {"mode": str, "epochs": float, "kept": float}),
    "serve": (
        {"model": str, "input_tokens": float, "output_tokens": float},
        dict.fromkeys(("found", "prompt", "context", "speed", "days", "accepted", "prefill_per_node", "decode_per_node"), float),
    ),
}  # fmt: skip
"""For each kind of line what it must and what it may say besides."""
DEVELOPMENT = (1.5, 2.9, 5.6)
"""What a programme takes with its failed and exploratory runs, as a multiple of its final runs: 1.5 in OLMo's account (arXiv 2503.05804),
5.6 in Olmo 3's (82.2 % of its computation)."""


@dataclass(frozen=True)
class Programme:
    """A checked file: its title, and its lines with the file's chip and price filled in."""

    title: str
    lines: tuple[dict[str, Any], ...]


def names() -> list[str]:
    """The programmes that come with Spoutnik."""
    return sorted(
        entry.name.removesuffix(".toml") for entry in files("spoutnik.plan").joinpath(FOLDER).iterdir() if entry.name.endswith(".toml")
    )


def read_programme(name: str, language: str = "en") -> Programme:
    """A programme by name or path; `title_fr`, `name_fr`, `group_fr` stand in for title, name and group in French.

    Raises UserError for what is unknown, missing or of another type.
    """
    path = Path(name)
    if name in names():
        text = files("spoutnik.plan").joinpath(FOLDER, f"{name}.toml").read_text(encoding="utf-8")
    elif path.is_file():
        text = path.read_text(encoding="utf-8")
    else:
        raise UserError(f"There is no programme {name!r}; give a TOML file or one of {', '.join(names())}.")
    try:
        raw = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise UserError(f"{name} is not a TOML file: {error}.") from error
    return check(_in_language(raw, language), name)


def _in_language(raw: dict[str, Any], language: str) -> dict[str, Any]:
    """The table without the texts of other languages, and with this one's in their place."""
    suffixes = {f"_{one}": one for one in LANGUAGES}

    def chosen(table: dict[str, Any]) -> dict[str, Any]:
        plain = {key: value for key, value in table.items() if key[-3:] not in suffixes}
        return plain | {key[:-3]: value for key, value in table.items() if key.endswith(f"_{language}")}

    lines = raw.get("line")
    return chosen(raw) | ({"line": [chosen(line) for line in lines]} if isinstance(lines, list) else {})


def check(raw: dict[str, Any], name: str) -> Programme:
    """The programme that a TOML table says. Raises UserError naming file, line and key."""
    unknown = set(raw) - {"title", "chip", "price", "line"}
    if unknown:
        raise UserError(f"{name}: unknown key {min(unknown)!r}; a programme has title, chip, price and [[line]] tables.")
    if not isinstance(raw.get("line"), list) or not raw["line"]:
        raise UserError(f"{name} has no [[line]]; a programme needs one or more.")
    shared = {key: raw[key] for key in ("chip", "price") if key in raw}
    lines = tuple(_check_line(shared | line, f"{name}, line {number}") for number, line in enumerate(raw["line"], start=1))
    return Programme(str(raw.get("title", name)), lines)


def _check_line(line: dict[str, Any], where: str) -> dict[str, Any]:
    kind = line.get("kind")
    if kind not in KINDS:
        raise UserError(f"{where}: kind is {kind!r}; it must be one of {', '.join(KINDS)}.")
    required, optional = KINDS[kind]
    known = COMMON | required | optional
    for key in line:
        if key not in known:
            raise UserError(f"{where} ({kind}): unknown key {key!r}; it may have {', '.join(sorted(known))}.")
    for key in ("name", "chip", *required):
        if key not in line:
            raise UserError(f"{where} ({kind}): {key!r} is missing; a line of this kind needs {', '.join(('name', 'chip', *required))}.")
    checked = {key: _typed(value, known[key], f"{where}: {key}") for key, value in line.items()}
    if kind == "given" and _disclosed(checked) is None:
        raise UserError(f"{where} (given): it says neither gpu_hours nor devices and hours; give one or the other.")
    if kind == "train" and len(checked["tokens"]) != len(checked["sequence_length"]):
        raise UserError(f"{where} (train): tokens and sequence_length must be lists of the same length, or both one number.")
    if ("prefill_per_node" in checked) != ("decode_per_node" in checked):
        raise UserError(f"{where} (serve): prefill_per_node and decode_per_node belong together; give both or neither.")
    return checked


def _typed(value: Any, kind: type, where: str) -> Any:
    """The value as the key's type; a whole number is a number, and one number a list of one. Numbers must be above 0."""
    if kind is list:
        values = value if isinstance(value, list) else [value]
        return [_typed(one, float, where) for one in values]
    if kind is dict:
        if not isinstance(value, dict):
            raise UserError(f"{where} is {value!r}; it must be a table, as in {{ pipeline = 16, expert = 64 }}.")
        return value
    if kind is str:
        if not isinstance(value, str):
            raise UserError(f"{where} is {value!r}; it must be text.")
        return value
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not number or value < 0 or (kind is int and (value != int(value) or value < 1)):
        raise UserError(f"{where} is {value!r}; it must be a {'whole number of 1 or more' if kind is int else 'number, not negative'}.")
    return kind(value)


def plan_programme(programme: Programme, predict: bool = False, price: float | None = None) -> Plan:
    """The sum of all lines. `predict` sets aside what the lines disclose; `price` replaces theirs."""
    lines = []
    days: float | Uncertain = 0.0
    for line in programme.lines:
        device, rent = chip(line["chip"]), _rent(line, price)
        hours, status = _hours(line, device, rent, predict)
        made = line_of(line["name"], line.get("group", ""), line["kind"], hours, device, rent, status)
        lines.append(made)
        days = days + (line["days"] if "days" in line else hours.value / (24.0 * line["devices"]) if "devices" in line else 0.0)
    plan = with_totals(Plan("programme", programme.title, {}, tuple(lines)))
    one_by_one = Figure("days", days, "days", "sum(gpu_hours / (24 * devices) of lines with devices) + days of services", ())
    return Plan(
        plan.kind, plan.title, plan.figures | {"days": one_by_one, "cost_with_development_usd": _with_development(plan)}, plan.lines
    )


def _with_development(plan: Plan) -> Figure:
    """What the training lines cost with everything that was tried before."""
    trained = [(number, line.figures["cost_usd"]) for number, line in enumerate(plan.lines, start=1) if line.kind != "serve"]
    value: float | Uncertain = 0.0
    for _, cost in trained:
        value = value + cost.value
    final = Figure("final_runs_usd", value, "USD", "sum(cost_usd of lines that are no service)", ())
    times = Figure(
        "development",
        lognormal(*DEVELOPMENT, name="development"),
        "",
        "lognormal(p10, p50, p90)",
        (
            Input("development_p10", DEVELOPMENT[0], "", "OLMo, arXiv 2503.05804", "disclosed"),
            Input("development_p50", DEVELOPMENT[1], "", "sqrt(1.5 * 5.6)", "assumed"),
            Input("development_p90", DEVELOPMENT[2], "", "Olmo 3: 1 / (1 - 0.822)", "disclosed"),
        ),
    )
    return Figure("cost_with_development_usd", final.value * times.value, "USD", "final_runs_usd * development", (final, times))


def _rent(line: Mapping[str, Any], price: float | None) -> Rent:
    if price is not None:
        return Rent(price)
    return Rent(line["price"], line.get("source", "programme"), "assumed") if "price" in line else Rent()


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


def _hours(line: dict[str, Any], device: Chip, rent: Rent, predict: bool) -> tuple[Figure, str]:
    disclosed = _disclosed(line)
    if disclosed and (line["kind"] == "given" or not predict):
        return disclosed, line.get("status", "disclosed")
    makers: dict[str, Callable[[dict[str, Any], Chip, Rent], Figure]] = {
        "train": _train_hours,
        "sft": _sft_hours,
        "rl": _rl_hours,
        "distill": _distill_hours,
    }
    if line["kind"] == "serve":
        given = "prefill_per_node" in line and not predict
        return _serve_hours(line, device, rent, given), line.get("status", "disclosed") if given else "computed"
    return makers[line["kind"]](line, device, rent), "computed"


def _train_hours(line: dict[str, Any], device: Chip, rent: Rent) -> Figure:
    """The hours of one training plan for each length of sequence; the line's layout is that of each."""
    if "devices" not in line:
        raise UserError(f"The line {line['name']!r} (train) does not say how many devices train; give it devices.")
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
        raise UserError(f"The line {line['name']!r} (rl) does not say how many devices sample; give it devices.")
    return plan_reinforcement(open_model(line["model"]), line["name"], device, line["devices"], campaign, rent).figures["gpu_hours"]


def _distill_hours(line: dict[str, Any], device: Chip, rent: Rent) -> Figure:
    lesson = Lesson(line.get("mode", "samples"), line["samples"], line["length"], line.get("epochs", 2.0), line.get("kept", 1.0))
    teacher, student = open_model(line["teacher"]), open_model(line["student"])
    return plan_distillation(teacher, student, line["name"], device, line.get("devices", 8), lesson, rent).figures["gpu_hours"]


def _serve_hours(line: dict[str, Any], device: Chip, rent: Rent, given: bool) -> Figure:
    keys = {key: line[key] for key in ("found", "prompt", "context", "speed", "days", "accepted") if key in line}
    service = Service(line["input_tokens"], line["output_tokens"], **keys)
    rates = (
        Throughput(line["prefill_per_node"], line["decode_per_node"], line.get("source", "programme"), line.get("status", "disclosed"))
        if given
        else None
    )
    return plan_serving(open_model(line["model"]), line["name"], device, service, rent, rates).figures["gpu_hours"]
