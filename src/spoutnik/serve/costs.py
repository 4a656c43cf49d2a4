"""What a step of the engine cost, and each request's share of it.

A step's cost is divided by the tokens that it computed: those of prompts that were not found in the cache, and those that were drawn.
"""

import time
from collections.abc import Mapping
from typing import Any

from spoutnik.recipe.tables import Price
from spoutnik.run.energy import EnergyMeter
from spoutnik.run.machine import cores
from spoutnik.serve.backend import Cost


class StepMeter:
    """Measures from `begin` to `end`: processor time of this process, energy, and what both cost at `price`.

    Money is as in a stage's ledger: wall time x cores x price.cpu_core_hour, for a rented machine, and energy x price.kwh, for an own one.
    """

    def __init__(self, price: Price, energy: EnergyMeter | None = None):
        self._price, self._energy, self._cores = price, energy or EnergyMeter(), cores()
        self._wall = self._cpu = 0.0

    def begin(self) -> None:
        """What was used before belongs to nobody."""
        if self._energy.available:
            self._energy.take()
        self._wall, self._cpu = time.monotonic(), time.process_time()

    def end(self) -> Cost:
        """What was used since `begin`."""
        wall, cpu = time.monotonic() - self._wall, time.process_time() - self._cpu
        measured, price = self._energy.available, self._price
        joules = self._energy.take() if measured else cpu * price.watts_per_core
        money = wall / 3600 * self._cores * price.cpu_core_hour + joules / 3.6e6 * price.kwh
        return Cost(cpu, joules, measured, money)


def shares(cost: Cost, tokens: Mapping[int, int]) -> dict[int, Cost]:
    """Divides a cost by the tokens computed for each request; without any tokens, evenly."""
    total = sum(tokens.values())
    return {key: _part(cost, count / total if total else 1 / len(tokens)) for key, count in tokens.items()}


def cost_body(cost: Cost, currency: str) -> dict[str, Any]:
    """What clients are told of it, in every dialect."""
    return {
        "cpu_seconds": cost.cpu_seconds,
        "energy_joules": cost.energy_joules,
        "energy_source": "measured" if cost.energy_measured else "estimated",
        "money": cost.money,
        "currency": currency,
    }


def _part(cost: Cost, share: float) -> Cost:
    return Cost(cost.cpu_seconds * share, cost.energy_joules * share, cost.energy_measured, cost.money * share)
