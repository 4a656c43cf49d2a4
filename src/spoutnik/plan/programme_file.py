"""Files of programmes: which there are, what a line may say, and a sentence for whatever is wrong with one."""

import tomllib
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from spoutnik.errors import UserError
from spoutnik.plan.amount import LARGEST
from spoutnik.plan.figure import STATUSES
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
        text = _read(path)
    else:
        raise UserError("There is no programme {name!r}; give a TOML file or one of {known}.", name=name, known=", ".join(names()))
    try:
        raw = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise UserError("{name} is not a TOML file: {error}.", name=name, error=str(error)) from error
    return check(_in_language(raw, language), name)


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise UserError("{name} is not a TOML file: {error}.", name=path, error=error) from error


def _in_language(raw: dict[str, Any], language: str) -> dict[str, Any]:
    """The table without the texts of other languages, and with this one's in their place."""
    suffixes = {f"_{one}": one for one in LANGUAGES}

    def chosen(table: dict[str, Any]) -> dict[str, Any]:
        plain = {key: value for key, value in table.items() if key[-3:] not in suffixes}
        return plain | {key[:-3]: value for key, value in table.items() if key.endswith(f"_{language}")}

    lines = raw.get("line")
    if not isinstance(lines, list) or not all(isinstance(line, dict) for line in lines):
        return chosen(raw) | {"line": None}
    return chosen(raw) | {"line": [chosen(line) for line in lines]}


def check(raw: dict[str, Any], name: str) -> Programme:
    """The programme that a TOML table says. Raises UserError naming file, line and key."""
    unknown = set(raw) - {"title", "chip", "price", "line"}
    if unknown:
        raise UserError("{name}: unknown key {key!r}; a programme has title, chip, price and [[line]] tables.", name=name, key=min(unknown))
    if not isinstance(raw.get("line"), list) or not raw["line"]:
        raise UserError("{name} has no [[line]]; a programme needs one or more.", name=name)
    shared = {key: raw[key] for key in ("chip", "price") if key in raw}
    lines = tuple(_check_line(shared | line, f"{name}, [[line]] {number}") for number, line in enumerate(raw["line"], start=1))
    return Programme(str(raw.get("title", name)), lines)


def _check_line(line: dict[str, Any], where: str) -> dict[str, Any]:
    kind = line.get("kind")
    if kind not in KINDS:
        raise UserError("{where}: kind is {kind!r}; it must be one of {kinds}.", where=where, kind=kind, kinds=", ".join(KINDS))
    required, optional = KINDS[kind]
    known = COMMON | required | optional
    for key in line:
        if key not in known:
            raise UserError(
                "{where} ({kind}): unknown key {key!r}; it may have {known}.",
                where=where,
                kind=kind,
                key=key,
                known=", ".join(sorted(known)),
            )
    for key in ("name", "chip", *required):
        if key not in line:
            raise UserError(
                "{where} ({kind}): {key!r} is missing; a line of this kind needs {known}.",
                where=where,
                kind=kind,
                key=key,
                known=", ".join(("name", "chip", *required)),
            )
    checked = {key: _typed(value, known[key], f"{where}: {key}") for key, value in line.items()}
    if checked.get("status", "disclosed") not in STATUSES:
        raise UserError(
            "{where}: status is {status!r}; it must be one of {statuses}.",
            where=where, status=line["status"], statuses=", ".join(STATUSES),
        )  # fmt: skip
    if kind == "given" and "gpu_hours" not in checked and not {"devices", "hours"} <= set(checked):
        raise UserError("{where} (given): it says neither gpu_hours nor devices and hours; give one or the other.", where=where)
    if kind == "train" and len(checked["tokens"]) != len(checked["sequence_length"]):
        raise UserError("{where} (train): tokens and sequence_length must be lists of the same length, or both one number.", where=where)
    for length in checked.get("sequence_length", ()):
        _typed(length, int, f"{where}: sequence_length")
    if ("prefill_per_node" in checked) != ("decode_per_node" in checked):
        raise UserError("{where} (serve): prefill_per_node and decode_per_node belong together; give both or neither.", where=where)
    return checked


def _typed(value: Any, kind: type, where: str) -> Any:
    """The value as the key's type; a whole number is a number, and one number a list of one. Numbers are not negative."""
    if kind is list:
        values = value if isinstance(value, list) else [value]
        if not values:
            raise UserError("{where} is empty; give it a number, or several.", where=where)
        return [_typed(one, float, where) for one in values]
    if kind is dict:
        if not isinstance(value, dict):
            raise UserError("{where} is {value!r}; it must be a table, as in {{ pipeline = 16, expert = 64 }}.", where=where, value=value)
        return value
    if kind is str:
        if not isinstance(value, str):
            raise UserError("{where} is {value!r}; it must be text.", where=where, value=value)
        return value
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not number or not 0 <= value <= LARGEST or (kind is int and (value != int(value) or value < 1)):
        if kind is int:
            raise UserError("{where} is {value!r}; it must be a whole number of 1 or more.", where=where, value=value)
        raise UserError("{where} is {value!r}; it must be a number, not negative.", where=where, value=value)
    return kind(value)
