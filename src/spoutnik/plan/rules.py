"""US export classes of chips, from dated rule files: what each rule says of a chip, and what followed when. Not legal advice.

Total processing performance (TPP) is the largest product of a dense rate in TFLOP/s (or TOP/s) and the bits of its format; performance
density is TPP for each mm2 of dies made in a non-planar process (ECCN 3A090, technical notes).
"""

import datetime
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

from spoutnik.errors import UserError
from spoutnik.plan.chips import Chip
from spoutnik.plan.figure import Figure, Status

BITS = {"bf16_tflops": 16, "fp16_tflops": 16, "fp8_tflops": 8, "int8_tops": 8, "fp4_tflops": 4}
REVIEWS = ("none", "licence", "case_by_case", "denial")
"""What an exporter to China meets, in words_*.toml: nothing by this list, a licence, one looked at by its merits, one mostly refused."""
Text = Mapping[str, str]


@dataclass(frozen=True)
class Verdict:
    """What one rule says of one chip. `review` is one of REVIEWS; `why` names the condition that holds, in numbers."""

    rule: str
    effective: str
    until: str | None
    title: Text
    explains: Text
    source: str
    classes: tuple[str, ...]
    review: str
    why: str
    status: Status


def tpp(chip: Chip) -> Figure:
    """Total processing performance."""
    rates = {field: getattr(chip, field) * bits for field, bits in BITS.items() if getattr(chip, field)}
    best = max(rates, key=lambda field: rates[field])
    return Figure("tpp", rates[best], "", f"{best} * {BITS[best]} bits", (chip.input(best),), "The largest over the chip's formats.")


def performance_density(chip: Chip) -> Figure | None:
    """TPP for each mm2; None where the die's area is not known."""
    if not chip.die_mm2:
        return None
    whole = tpp(chip)
    return Figure("performance_density", whole.middle / chip.die_mm2, "1/mm2", "tpp / die_mm2", (whole, chip.input("die_mm2")))


def history(chip: Chip) -> tuple[Verdict, ...]:
    """What every rule says of a chip, oldest first; rules that replaced or ended others included."""
    return tuple(_verdict(rule, chip) for rule in _rules())


def verdict(chip: Chip, day: str) -> Verdict:
    """What holds for a chip on a day (YYYY-MM-DD): the last rule in force then that concerns it, revised by later ones."""
    day = check_day(day)
    standing = [rule for rule in _rules() if rule["effective"] <= day and (rule.get("until") is None or day < rule["until"])]
    if not standing:
        raise UserError("No rule of the table was in force on {day}; the first is of {first}.", day=day, first=_rules()[0]["effective"])
    found = [_verdict(rule, chip) for rule in standing if "class" in rule]
    strictest = max(found, key=lambda one: (REVIEWS.index(one.review), one.effective))
    for rule in standing:
        revised = rule.get("revision")
        if revised and set(strictest.classes) & set(revised["of"]) and (why := _holds(revised, chip)):
            return _made(rule, strictest.classes, revised["review"], why, strictest.status)
    return strictest


def weights_line() -> dict[str, Any]:
    """The only line that US rules ever drew by training compute for a model's weights, with its rule's dates."""
    rule = next(rule for rule in _rules() if "weights" in rule)
    return {**rule["weights"], **{key: rule.get(key) for key in ("effective", "until", "title", "explains", "source")}}


def check_day(day: str) -> str:
    """The day, if it is one. Raises UserError."""
    try:
        return datetime.date.fromisoformat(day).isoformat()
    except ValueError:
        raise UserError("{day!r} is no day; write it as 2026-01-15.", day=day) from None


def _verdict(rule: Mapping[str, Any], chip: Chip) -> Verdict:
    if revised := rule.get("revision"):
        before = _before(rule, chip)
        if before and set(before.classes) & set(revised["of"]) and (why := _holds(revised, chip)):
            return _made(rule, before.classes, revised["review"], why, before.status)
        return _made(
            rule, before.classes if before else (), before.review if before else "none", "", before.status if before else "computed"
        )
    for one in rule.get("class", ()):
        if chip.name in one.get("chips", ()):
            return _made(rule, (one["name"],), one["review"], chip.title, one.get("status", rule["status"]))
        for condition in one.get("any", ()):
            if why := _holds(condition, chip):
                return _made(rule, (one["name"],), one["review"], why, one.get("status", rule["status"]))
    return _made(rule, (), "none", "", rule["status"])


def _before(rule: Mapping[str, Any], chip: Chip) -> Verdict | None:
    """The strictest that earlier rules, still standing when `rule` came, say of a chip."""
    earlier = [one for one in _rules() if "class" in one and one["effective"] < rule["effective"]]
    found = [_verdict(one, chip) for one in earlier if one.get("until") is None or one["until"] > rule["effective"]]
    return max(found, key=lambda one: (REVIEWS.index(one.review), one.effective), default=None)


def _made(rule: Mapping[str, Any], classes: tuple[str, ...], review: str, why: str, status: Status) -> Verdict:
    return Verdict(
        rule["name"], rule["effective"], rule.get("until"), rule["title"], rule["explains"], rule["source"], classes, review, why, status
    )


def _holds(condition: Mapping[str, Any], chip: Chip) -> str:
    """The condition's numbers with the chip's, if all hold; else nothing. Of an unknown die area no density holds."""
    said = []
    for key, bound, label, value in _measures(condition, chip):
        if value is None or (value < bound if key.endswith("_min") else value >= bound):
            return ""
        said.append(f"{label} {value:,.6g} {'>=' if key.endswith('_min') else '<'} {bound:,.6g}")
    return "; ".join(said)


def _measures(condition: Mapping[str, Any], chip: Chip) -> Iterator[tuple[str, float, str, float | None]]:
    """(key, bound, what it is called, the chip's value) for each bound of a condition."""
    density = performance_density(chip)
    known: dict[str, tuple[str, float | None]] = {
        "tpp": ("TPP", tpp(chip).middle),
        "pd": ("PD", density.middle if density else None),
        "link": ("links GB/s", chip.scale_up_gbs),
        "bandwidth": ("memory GB/s", chip.bandwidth_tbs * 1000),
    }
    for key, bound in condition.items():
        measure = key.rpartition("_")[0]
        if measure in known:
            yield key, float(bound), *known[measure]


@cache
def _rules() -> tuple[dict[str, Any], ...]:
    folder = files("spoutnik.plan").joinpath("rules")
    names = [entry.name for entry in folder.iterdir() if entry.name.startswith("us-") and entry.name.endswith(".toml")]
    read = [{"name": name.removesuffix(".toml"), **tomllib.loads(folder.joinpath(name).read_text(encoding="utf-8"))} for name in names]
    return tuple(sorted(read, key=lambda rule: str(rule["effective"])))
