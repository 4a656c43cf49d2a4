"""What a stage cost: wall time, processor time, tokens, FLOPs, energy and money, added up over every resumption."""

import json
import os
import time
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from spoutnik.recipe.schema import Price
from spoutnik.run.directory import write_whole
from spoutnik.run.energy import EnergyMeter


@dataclass
class Costs:
    """wall_s and cpu_s in seconds, energy_joules in joules, money in the price's currency."""

    wall_s: float = 0.0
    cpu_s: float = 0.0
    cores: int = 0
    tokens: int = 0
    flops: float = 0.0
    energy_joules: float = 0.0
    energy_source: str = ""
    money: float = 0.0
    currency: str = ""
    resumptions: int = 0


class Ledger:
    """Keeps one stage's costs in `path`. Work that a crash threw away was still paid for, so it stays in the sum.

    Money is wall time x cores x price.cpu_core_hour (what a rented machine bills) + energy x price.kwh (what an own one draws):
    set the one that does not apply to 0.
    """

    def __init__(self, path: Path, price: Price, meter: EnergyMeter | None = None) -> None:
        self._path, self._price = path, price
        self._meter = meter or EnergyMeter()
        self._wall, self._cpu = time.monotonic(), _cpu_seconds()
        self._costs = read_costs(path)
        self._costs.resumptions += path.exists()
        self._costs.cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1

    def add(self, tokens: int = 0, flops: float = 0.0) -> None:
        """Counts tokens processed (trained on, or sampled) and floating-point operations."""
        self._costs.tokens += tokens
        self._costs.flops += flops

    def costs(self) -> Costs:
        """The costs up to now."""
        wall, cpu = time.monotonic(), _cpu_seconds()
        costs, price = self._costs, self._price
        costs.wall_s += wall - self._wall
        costs.cpu_s += cpu - self._cpu
        if self._meter.available:
            costs.energy_joules += self._meter.take()
            costs.energy_source = "measured (RAPL, whole processor)"
        else:
            costs.energy_joules += (cpu - self._cpu) * price.watts_per_core
            costs.energy_source = f"estimated ({price.watts_per_core:g} W per busy core)"
        self._wall, self._cpu = wall, cpu
        costs.money = costs.wall_s / 3600 * costs.cores * price.cpu_core_hour + costs.energy_joules / 3.6e6 * price.kwh
        costs.currency = price.currency
        return costs

    def save(self) -> Costs:
        costs = self.costs()
        write_whole(self._path, json.dumps(asdict(costs), indent=2) + "\n")
        return costs


def read_costs(path: Path) -> Costs:
    """The costs that a ledger file holds; none where there is no file."""
    if not path.exists():
        return Costs()
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    known = {field.name for field in fields(Costs)}
    return Costs(**{key: value for key, value in content.items() if key in known})


def _cpu_seconds() -> float:
    """Processor time of this process and of the children it has waited for."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system
