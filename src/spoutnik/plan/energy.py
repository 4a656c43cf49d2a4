"""From hours of chips to electricity, carbon dioxide and water: always a range, for nobody knows a data centre from outside.

energy = hours x TDP x load x host x PUE            (load: what a chip draws of its TDP; host: the rest of the server for each watt of it)
CO2    = energy x what the grid of that place emits  (location-based: certificates change nothing)
water  = energy / PUE x what the site evaporates + energy x what its power stations do
"""

import difflib
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

from spoutnik.errors import Phrase, UserError
from spoutnik.plan.chips import Chip
from spoutnik.plan.figure import Figure, Input, Status
from spoutnik.plan.uncertain import Number, Uncertain, triangular

WORLD = "world"
"""Where nobody says where."""


@dataclass(frozen=True)
class Spread:
    """Three points of a triangular distribution, and who says so."""

    low: float
    mode: float
    high: float
    source: str
    status: Status

    def input(self, name: str, unit: str = "") -> Input:
        """As an input of a figure; `name` also says which other plans draw the same."""
        return Input(name, triangular(self.low, self.mode, self.high, name=name), unit, self.source, self.status)


@dataclass(frozen=True)
class Grid:
    """The electricity of one place: grams of CO2 equivalents and litres of water evaporated for a kWh."""

    name: str
    title: str
    year: str
    carbon: Spread
    water: Spread


def energy(hours: Figure, chip: Chip, location: str = WORLD, watts: Input | None = None) -> dict[str, Figure]:
    """energy_kwh, co2_t, water_m3 and embodied_t of so many hours of a chip.

    `watts`: what one chip with its share of the server was measured to draw (see `measured_power`), instead of TDP x load x host.
    Raises UserError for a location that is not in the table.
    """
    where, shared = grid(location), _shared()
    pue = shared["pue"].input("pue")
    if watts is not None:
        drawn = Figure(
            "watts_per_device", watts.value if isinstance(watts.value, Uncertain) else float(watts.value), "W", watts.name, (watts,)
        )
    else:
        drawn = _drawn(chip)
    kwh = Figure("energy_kwh", hours.value * drawn.value * _value(pue) / 1000, "kWh", f"{hours.name} * watts_per_device * pue / 1000",
                 (hours, drawn, pue))  # fmt: skip
    carbon = where.carbon.input("grid", "g/kWh")
    note = Phrase("Location-based, {grid}, {year}; making the chips is apart.", grid=Phrase(where.title), year=where.year)
    co2 = Figure("co2_t", kwh.value * _value(carbon) / 1e6, "tCO2", "energy_kwh * grid / 1e6", (kwh, carbon), note)
    site, stations = shared["site_water"].input("site_water", "L/kWh"), where.water.input("grid_water", "L/kWh")
    litres = kwh.value * (_value(site) / _value(pue) + _value(stations))
    water = Figure("water_m3", litres / 1000, "m3", "energy_kwh * (site_water / pue + grid_water) / 1000", (kwh, site, pue, stations))
    made = shared["embodied"].input("embodied", "g/h")
    embodied = Figure("embodied_t", hours.value * _value(made) / 1e6, "tCO2", f"{hours.name} * embodied / 1e6", (hours, made),
                      "A share of what making the servers emitted.")  # fmt: skip
    return {figure.name: figure for figure in (kwh, co2, water, embodied)}


def _drawn(chip: Chip) -> Figure:
    shared = _shared()
    load, tdp = shared["load"].input("load"), chip.input("tdp_w")
    if chip.power_is_all_in:
        return Figure("watts_per_device", chip.tdp_w * _value(load), "W", f"{tdp.name} * load", (tdp, load))
    host = shared["host"].input("host")
    return Figure("watts_per_device", chip.tdp_w * _value(load) * _value(host), "W", f"{tdp.name} * load * host", (tdp, load, host))


def _value(one: Input) -> Number:
    assert not isinstance(one.value, str)
    return one.value


def measured_power(events: Sequence[dict[str, Any]]) -> Input | None:
    """Watts that one device of a run drew on average while its stages worked, from its record (`run.record.read`); None where nothing was
    measured.

    Of a machine without accelerators it is the processors' own counters (RAPL), all cores together, as one device. An estimate is no
    measurement.
    """
    costs = [event["costs"] for event in events if event.get("event") == "stage_end" and event.get("costs")]
    measured = [
        cost for cost in costs if str(cost.get("energy_source", "")).startswith("measured") and "estimated" not in cost["energy_source"]
    ]
    seconds = sum(cost["wall_s"] * max(1, cost.get("accelerators", 0)) for cost in measured)
    if not seconds:
        return None
    joules = sum(cost["energy_joules"] for cost in measured)
    source = Phrase("{stages} stages of a run: {source}", stages=len(measured), source=measured[0]["energy_source"])
    return Input("measured_watts", joules / seconds, "W", source, "measured")


def grid(name: str) -> Grid:
    """The grid of that name. Raises UserError naming those that there are."""
    found = grids().get(name.lower())
    if found is None:
        near = difflib.get_close_matches(name.lower(), grids(), n=2)
        raise UserError("No grid {name!r} in the table; there is {near}.", name=name, near=", ".join(near or grids()))
    return found


@cache
def grids() -> dict[str, Grid]:
    """All places of the table."""
    return {
        name: Grid(name, row["title"], row["year"], Spread(**row["carbon"]), Spread(**row["water"]))
        for name, row in _table()["grid"].items()
    }


@cache
def _shared() -> dict[str, Spread]:
    return {name: Spread(**row) for name, row in _table()["shared"].items()}


@cache
def _table() -> dict[str, Any]:
    return tomllib.loads(files("spoutnik.plan").joinpath("grids.toml").read_text(encoding="utf-8"))
