"""What a stage cost: wall time, processor time, tokens, FLOPs, energy and money, added up over every resumption."""

import json
import os
import time
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spoutnik.run.directory import write_whole
from spoutnik.run.energy import EnergyMeter
from spoutnik.run.machine import cores, forget_peak, peak_memory

if TYPE_CHECKING:
    from spoutnik.recipe.tables import Price


@dataclass
class Costs:
    """wall_s and cpu_s in seconds, energy_joules in joules, money in the price's currency, peak_memory in bytes of the machine's own (the
    most that this process held at once; 0 where the system does not say); `accelerators` that computed."""

    wall_s: float = 0.0
    cpu_s: float = 0.0
    cores: int = 0
    accelerators: int = 0
    tokens: int = 0
    flops: float = 0.0
    energy_joules: float = 0.0
    energy_source: str = ""
    money: float = 0.0
    currency: str = ""
    resumptions: int = 0
    peak_memory: int = 0


class CostMeter:
    """Measures what this process and the children it has waited for use, from now on.

    Money is wall time x (cores x price.cpu_core_hour + accelerators x price.accelerator_hour), which a rented machine bills, + energy x
    price.kwh, which an own one draws: set the one that does not apply to 0. Accelerators' counters are not read: their energy is wall time
    x price.accelerator_watts, and the source says so.
    """

    def __init__(self, energy: EnergyMeter | None = None, accelerators: int = 0) -> None:
        self._energy, self._accelerators = energy or EnergyMeter(), accelerators
        self._wall, self._cpu = time.monotonic(), _cpu_seconds()

    def charge(self, costs: Costs, price: "Price") -> None:
        """Adds what was used since the last call, or since the meter was made, to `costs`."""
        wall, cpu = time.monotonic(), _cpu_seconds()
        costs.cores, costs.accelerators = cores(), self._accelerators
        costs.peak_memory = max(costs.peak_memory, peak_memory())
        costs.wall_s += wall - self._wall
        costs.cpu_s += cpu - self._cpu
        if self._energy.available:
            costs.energy_joules += self._energy.take()
            costs.energy_source = "measured (RAPL, whole processor)"
        else:
            costs.energy_joules += (cpu - self._cpu) * price.watts_per_core
            costs.energy_source = f"estimated ({price.watts_per_core:g} W per busy core)"
        if self._accelerators:
            costs.energy_joules += (wall - self._wall) * self._accelerators * price.accelerator_watts
            counted = f"estimated at {price.accelerator_watts:g} W" if price.accelerator_watts else "not counted"
            costs.energy_source += f", the accelerator {counted}"
        self._wall, self._cpu = wall, cpu
        costs.money = money(costs.wall_s, costs.cores, costs.energy_joules, price, costs.accelerators)
        costs.currency = price.currency


class Ledger:
    """Keeps one stage's costs in `path`. Work that a crash threw away was still paid for, so it stays in the sum."""

    def __init__(self, path: Path, price: "Price", energy: EnergyMeter | None = None, accelerators: int = 0) -> None:
        self._path, self.price = path, price
        forget_peak()
        self._meter = CostMeter(energy, accelerators)
        self._costs = read_costs(path)
        self._costs.resumptions += path.exists()

    def add(self, tokens: int = 0, flops: float = 0.0) -> None:
        """Counts tokens processed (trained on, or sampled) and floating-point operations."""
        self._costs.tokens += tokens
        self._costs.flops += flops

    def costs(self) -> Costs:
        """The costs up to now."""
        self._meter.charge(self._costs, self.price)
        return self._costs

    def save(self) -> Costs:
        costs = self.costs()
        write_whole(self._path, json.dumps(asdict(costs), indent=2) + "\n")
        return costs


def money(wall_s: float, cores: int, joules: float, price: "Price", accelerators: int = 0) -> float:
    """See `CostMeter`."""
    return wall_s / 3600 * (cores * price.cpu_core_hour + accelerators * price.accelerator_hour) + joules / 3.6e6 * price.kwh


def read_costs(path: Path) -> Costs:
    """The costs that a ledger file holds; none where there is no file."""
    if not path.exists():
        return Costs()
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    known = {field.name for field in fields(Costs)}
    return Costs(**{key: value for key, value in content.items() if key in known})


def _cpu_seconds() -> float:
    """Processor time of this process and of the children it has waited for; the latter in ticks of the system, often 10 ms."""
    children = os.times()
    return time.process_time() + children.children_user + children.children_system
