"""The EU AI Act's lines of training compute, and the duties that come with them. Not legal advice."""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

from spoutnik.errors import UserError
from spoutnik.plan.figure import Figure
from spoutnik.plan.uncertain import Number, Uncertain, samples_of

Text = Mapping[str, str]


@dataclass(frozen=True)
class Duty:
    """One duty; `falls_away` for a model under a free licence."""

    article: str
    text: Text
    falls_away: bool


@dataclass(frozen=True)
class Line:
    """One line of compute and how likely a model lies beyond it (0 or 1 where its compute is known)."""

    name: str
    flop: float
    title: Text
    rests_on: Text
    chance: float


@dataclass(frozen=True)
class Standing:
    """Where a model stands: every line with its chance, the duties that it then has, dates, and whose model it is."""

    flop: Figure
    lines: tuple[Line, ...]
    duties: tuple[Duty, ...]
    dates: tuple[Mapping[str, Any], ...]
    provider: bool | None
    """Of a changed model: whether who changed it counts as its provider. None for a model from nothing."""
    source: str
    modifier: Text
    open_text: Text

    def line(self, name: str) -> Line:
        """The line of that name."""
        return next(line for line in self.lines if line.name == name)


def standing(flop: Figure, open_source: bool = False, original_flop: float | None = None, modified: bool = False) -> Standing:
    """Where a model that took `flop` to train stands.

    `modified`: the compute is that of a change to another's model, which took `original_flop` (None: unknown). A line counts as met from a
    chance of one half. Raises UserError for compute that is not positive.
    """
    if not flop.middle > 0 or (original_flop is not None and not original_flop > 0):
        raise UserError("Training compute must be a positive number of FLOP, as in 3.4e24.")
    table = _table()
    share = table["modifier"]["share"]
    provider = None
    if modified:
        provider = flop.middle > share * (original_flop or table["line"][0]["flop"])
    lines = tuple(
        Line(line["name"], line["flop"], line["title"], line["rests_on"], _chance(flop.value, line["flop"], "above" in line))
        for line in table["line"]
    )
    if modified:
        lines = tuple(_of_change(line, flop, original_flop, share) for line in lines)
    met = {line.name for line in lines if line.chance >= 0.5}
    systemic = "systemic" in met
    duties = tuple(
        Duty(duty["article"], duty["text"], bool(open_source and duty.get("open_exempt") and not systemic))
        for duty in table["duty"]
        if duty["line"] in met
    )
    return Standing(flop, lines, duties, tuple(table["date"]), provider, table["source"], table["modifier"]["text"], table["open"]["text"])


def _of_change(line: Line, flop: Figure, original: float | None, share: float) -> Line:
    """A change counts against a third of what the original took, if that was over the line; of the line itself where it is unknown."""
    if original is not None and original < line.flop:
        return Line(line.name, line.flop, line.title, line.rests_on, 0.0)
    return Line(line.name, line.flop, line.title, line.rests_on, _chance(flop.value, share * (original or line.flop), True))


def _chance(flop: Number, line: float, strictly: bool) -> float:
    if isinstance(flop, Uncertain):
        return flop.chance_above(line)
    return float(samples_of(flop) > line if strictly else samples_of(flop) >= line)


@cache
def _table() -> dict[str, Any]:
    return tomllib.loads(files("spoutnik.plan").joinpath("rules/eu-ai-act.toml").read_text(encoding="utf-8"))
