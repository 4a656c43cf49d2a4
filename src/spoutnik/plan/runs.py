"""The table of published runs (runs.toml), typed, and which side of the split each row is on."""

import hashlib
import math
import tomllib
from dataclasses import dataclass, replace
from datetime import date
from functools import cache
from importlib.resources import files
from typing import Any, Literal

from spoutnik.plan.chips import Chip, chip
from spoutnik.plan.components import counts
from spoutnik.plan.layout import Layout
from spoutnik.plan.models import open_model
from spoutnik.plan.shape import Model, Shape

Side = Literal["calibration", "held out", "claimed"]


@dataclass(frozen=True)
class Run:
    """One model's training, as its makers (or others: claimed) put it."""

    name: str
    published: date
    status: str
    chip: Chip
    gpu_hours: float
    tokens: float
    count: int
    """Chips; where nobody says, a power of two that makes the run last about a month."""
    sequence_length: int
    batch_tokens: int
    source: str
    model: Model
    side: Side
    layout: dict[str, Any]
    """What is known of it; the search finds the rest."""
    precision: str


@dataclass(frozen=True)
class Measured:
    """One row of a table of throughputs, its layout known."""

    table: str
    number: int
    name: str
    program: str
    chip: Chip
    model: Model
    layout: Layout
    tokens_per_second_per_device: float
    memory_gib: float
    """0 where it is not published."""
    source: str
    side: Side

    @property
    def step_seconds(self) -> float:
        """Of the layout's step at that throughput."""
        return self.layout.global_batch_tokens / self.tokens_per_second_per_device / self.layout.devices


@cache
def content() -> dict[str, Any]:
    """runs.toml as it is."""
    return tomllib.loads(files("spoutnik.plan").joinpath("runs.toml").read_text(encoding="utf-8"))


def model_of(name: str) -> Model:
    """A model of the catalogue or of the table itself."""
    shapes = content()["shapes"]
    if name not in shapes:
        return open_model(name)
    fields = dict(shapes[name])
    fields.setdefault("num_key_value_heads", fields["num_attention_heads"])
    return Shape(model_type="published", **fields)


@cache
def runs() -> tuple[Run, ...]:
    """All runs, in the table's order."""
    return tuple(_run(*row) for row in content()["runs"])


def _run(
    name: str, day: str, status: str, chip_name: str, hours: float, tokens: float, count: int, length: int, batch: int, source: str
) -> Run:
    published = date.fromisoformat(day)
    side: Side = "claimed" if status == "claimed" else "calibration" if published < content()["split_date"] else "held out"
    chips = count or max(8, 2 ** round(math.log2(hours / 24 / 30)))
    layout, precision = dict(content()["layouts"].get(name, {})), content()["precision"].get(name, "bf16")
    return Run(
        name, published, status, chip(chip_name), hours, tokens, chips, length, batch, source, model_of(name), side, layout, precision
    )


@cache
def measured() -> tuple[Measured, ...]:
    """All rows of all tables of throughputs."""
    return tuple(
        _measured(name, table, number) for name, table in content()["throughput"].items() for number in range(1, len(table["rows"]) + 1)
    )


def _measured(name: str, table: dict[str, Any], number: int) -> Measured:
    row = dict(zip(table["columns"], table["rows"][number - 1], strict=True))
    model_name, device = row.pop("model"), replace(chip(table["chip"]), **table.get("chip_changes", {}))
    rate, utilisation, memory_gib = row.pop("tokens_per_second_per_device", 0.0), row.pop("mfu", 0.0), row.pop("memory_gib", 0)
    sequences, model = row.pop("sequences"), model_of(model_name)
    fields = {"sequence_length": 4096} | table["layout"] | row
    layout = Layout(**fields, global_batch_tokens=sequences * fields["sequence_length"])
    if utilisation:
        rate = utilisation * device.rate("fp16") / counts(model, layout.sequence_length).training()
    even = int(hashlib.sha256(f"{name}/{number}".encode()).hexdigest()[-1], 16) % 2 == 0
    return Measured(
        name,
        number,
        model_name,
        table["program"],
        device,
        model,
        layout,
        rate,
        memory_gib,
        table["source"],
        "calibration" if even else "held out",
    )
