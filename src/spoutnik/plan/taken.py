"""What a recipe's stages took, from a run's record: to fit the factors of `laptop.py` to, and to hold its predictions against."""

from dataclasses import dataclass, field
from itertools import pairwise
from statistics import fmean, median
from typing import Any

from spoutnik.run.record import Event

FEW_STEPS = 10
PAUSE = 3.0
"""A step that took so many times the median was held up by something else on the machine."""


@dataclass
class Taken:
    """Of one finished stage. `seconds` by the clock, `paused` of them beyond the usual step in steps that were held up; `busy` is the share
    of the cores' time that the stage used; `memory` in bytes, 0 where the record does not say. Shares are None where there was none."""

    name: str
    kind: str
    seconds: float
    paused: float
    busy: float
    memory: int
    answer: float | None = None
    signal: float | None = None
    definition: dict[str, Any] = field(default_factory=dict)
    example: float | None = None
    """Tokens of an example on average, where the stage learnt from given ones."""
    stepping: float | None = None
    """Seconds of all steps if each had taken what the later ones did on average, without those that were held up; None of a few steps."""

    @property
    def undisturbed(self) -> float:
        """Seconds without the pauses."""
        return self.seconds - self.paused


def taken(events: list[Event]) -> dict[str, Taken]:
    """Every finished stage of a record that was never resumed, by its name."""
    open_stages: dict[str, list[Event]] = {}
    found: dict[str, Taken] = {}
    for event in events:
        name = event.get("stage")
        if not name:
            continue
        if event["event"] == "stage_start":
            open_stages[name] = [event]
        elif name in open_stages:
            open_stages[name].append(event)
            if event["event"] == "stage_end" and event.get("costs", {}).get("wall_s") and not event["costs"].get("resumptions"):
                found[name] = _taken(name, open_stages[name], event["costs"])
    return found


def _taken(name: str, events: list[Event], costs: dict[str, Any]) -> Taken:
    definition = events[0].get("definition", {})
    steps = [event for event in events if event["event"] == "step"]
    times = [events[0]["time"], *(event["time"] for event in steps)]
    longest, lengths = definition.get("max_new_tokens"), _lengths(events)
    answer = fmean(lengths) / longest if longest and lengths else None
    signals = [event["informative"] / definition["prompts"] for event in steps if "informative" in event]
    rows = (definition.get("batch_size") or 0) * (2 if definition.get("kind") == "dpo" else 1)
    sizes = [event["tokens"] / rows for event in steps if rows and "tokens" in event]
    return Taken(
        name, definition.get("kind", ""), costs["wall_s"], _paused(times), costs["cpu_s"] / costs["wall_s"] / max(1, costs.get("cores", 1)),
        costs.get("peak_memory", 0), answer, fmean(signals) if signals else None, definition, fmean(sizes) if sizes else None,
        _stepping(times),
    )  # fmt: skip


def _lengths(events: list[Event]) -> list[float]:
    """Answers' tokens: means of steps, or of evaluations, each as often as it has problems."""
    found = [event["response_length"] for event in events if event["event"] == "step" and "response_length" in event]
    for event in events:
        if event["event"] == "eval":
            found += [event["mean_length"]] * max(1, round(event["n"] / 50))
    return found


def _stepping(times: list[float]) -> float | None:
    """The first step also warms up: memory is touched for the first time, kernels are opened."""
    steps = [later - earlier for earlier, later in pairwise(times)]
    usual = median(steps) if steps else 0.0
    later = [step for step in steps[1:] if step <= PAUSE * usual]
    return len(steps) * fmean(later) if len(later) >= 3 else None


def _paused(times: list[float]) -> float:
    """Seconds beyond the median step of the steps that took more than PAUSE times as long."""
    steps = [later - earlier for earlier, later in pairwise(times)]
    if len(steps) < FEW_STEPS:
        return 0.0
    usual = median(steps)
    return sum(step - usual for step in steps[1:] if step > PAUSE * usual)  # the first one warms up
