"""What training costs as years pass: the declines that people name, the press's own numbers on them, and what those leave out.

cost(t) = cost(t0) / k^(t - t0), k = 1.68, 3 or 4 a year
"""

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

import numpy as np

from spoutnik.errors import UserError
from spoutnik.plan.figure import Figure, Input, Status
from spoutnik.plan.uncertain import Number, apply, triangular, uniform

Text = Mapping[str, str]
FIRST_YEAR, LAST_YEAR = 1950, 2100
"""No decline is claimed for longer; beyond them powers leave what a computer can write."""


@dataclass(frozen=True)
class Run:
    """One training and what was said of its cost; `counts` is "final_run" or "unknown"."""

    name: str
    title: Text
    usd: Input
    said: tuple[float, float, float]
    """Lowest, most usual and highest figure that was named."""
    year: float
    ends: str
    counts: str


@dataclass(frozen=True)
class Decline:
    """By how many times training becomes cheaper in a year, as somebody says."""

    name: str
    title: Text
    factor: Input

    @property
    def times(self) -> float:
        """The factor as a number."""
        assert isinstance(self.factor.value, float)
        return self.factor.value


@dataclass(frozen=True)
class Comparison:
    """Two runs held against each other. `yearly`: the decline that they imply; `expected`: the older one's cost at the newer's date."""

    older: Run
    newer: Run
    figures: dict[str, Figure]
    expected: dict[str, Figure]


def comparisons() -> tuple[Comparison, ...]:
    """The pairs that the press draws, each with the yearly decline that it implies."""
    return tuple(_compared(run(pair["older"]), run(pair["newer"])) for pair in _table()["comparison"])


def programmes(final_run: Input) -> dict[str, Figure]:
    """What the whole programme may have cost: the final run's value over the share that final runs had where all was published."""
    found = {}
    for name, row in _table()["programme"].items():
        share = Input("final_share", float(row["final_share"]), "", row["source"], row["status"])
        found[name] = Figure(f"programme.{name}", _number(final_run) / row["final_share"], "USD", f"{final_run.name} / final_share",
                             (final_run, share))  # fmt: skip
    return found


def programme_titles() -> dict[str, Text]:
    """What each entry of `programmes` is."""
    return {name: row["title"] for name, row in _table()["programme"].items()}


def later(cost: Input, years: Number, decline: Decline) -> Figure:
    """The same performance so many years later (earlier where negative), if that decline held."""
    lapse = Input("years", years, "years", "between the two dates", "computed")
    value = _number(cost) / _power(decline.times, years)
    return Figure(f"later.{decline.name}", value, "USD", "cost / factor^years", (cost, decline.factor, lapse))


def months_behind(cost: Input, decline: Decline) -> Figure:
    """What performance of 7 to 10 months ago costs, where `cost` is what it cost then."""
    months = uniform(7, 10, name="months behind")
    lag = Input("months", months, "months", "On DeepSeek and Export Controls, January 2025: 7 to 10 months older", "claimed")
    value = _number(cost) / _power(decline.times, months / 12)
    return Figure(f"behind.{decline.name}", value, "USD", "cost / factor^(months / 12)", (cost, decline.factor, lag))


def declines() -> tuple[Decline, ...]:
    """The yearly factors that people name, the least first."""
    rows = _table()["decline"].items()
    return tuple(
        Decline(name, row["title"], Input("factor", float(row["factor"]), "a year", row["source"], row["status"])) for name, row in rows
    )


def run(name: str) -> Run:
    """The run of that name. Raises UserError naming those that there are."""
    found = runs().get(name)
    if found is None:
        raise UserError("No run {name!r} among the claims; there is {known}.", name=name, known=", ".join(runs()))
    return found


@cache
def runs() -> dict[str, Run]:
    """All runs of the table."""
    return {name: _run(name, row) for name, row in _table()["run"].items()}


def year_of(day: str) -> float:
    """ "2024-12" or "2024-12-26" as a year with its fraction. Raises UserError."""
    found = re.fullmatch(r"(\d{4})-(\d{2})(?:-(\d{2}))?", day)
    if not found or not 1 <= int(found[2]) <= 12 or not FIRST_YEAR <= int(found[1]) <= LAST_YEAR:
        raise UserError("{day!r} is no month; write it as 2024-12.", day=day)
    return int(found[1]) + (int(found[2]) - 1) / 12 + (int(found[3] or 15) - 1) / 365


def _run(name: str, row: Mapping[str, Any]) -> Run:
    low, mode, high = (float(value) for value in row["usd"])
    value: Number = mode if low == high else triangular(low, mode, high, name=f"claim {name}")
    status: Status = row["status"]
    usd = Input(f"{name}.usd", value, "USD", row["source"], status)
    return Run(name, row["title"], usd, (low, mode, high), year_of(row["ends"]), row["ends"], row["counts"])


def _compared(older: Run, newer: Run) -> Comparison:
    years = Figure("years", newer.year - older.year, "years", f"{newer.ends} - {older.ends}")
    ratio = Figure("ratio", _number(older.usd) / _number(newer.usd), "", f"{older.usd.name} / {newer.usd.name}", (older.usd, newer.usd))
    yearly = Figure("yearly", ratio.value ** (1 / years.middle), "a year", "ratio^(1 / years)", (ratio, years))
    found = {figure.name: figure for figure in (ratio, years, yearly)}
    return Comparison(older, newer, found, {decline.name: later(older.usd, years.middle, decline) for decline in declines()})


def _power(base: float, exponent: Number) -> Number:
    return base**exponent if isinstance(exponent, float | int) else apply(lambda power: np.power(base, power), exponent)


def _number(one: Input) -> Number:
    assert not isinstance(one.value, str)
    return one.value


@cache
def _table() -> dict[str, Any]:
    return tomllib.loads(files("spoutnik.plan").joinpath("claims.toml").read_text(encoding="utf-8"))
