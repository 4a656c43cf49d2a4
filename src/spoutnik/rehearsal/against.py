"""Predictions beside what a run took: as they were made before anything ran, and again with the lengths that the run turned out to have."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from spoutnik.errors import UserError
from spoutnik.plan.laptop import Factors, Predicted, as_it_was, predict, samples
from spoutnik.plan.probe import Probe
from spoutnik.plan.speech import Speech, speech
from spoutnik.plan.taken import Taken, taken
from spoutnik.plan.uncertain import Range
from spoutnik.recipe import Recipe
from spoutnik.rehearsal.forecast import forecast
from spoutnik.run.machine import GIB
from spoutnik.run.progress import duration
from spoutnik.run.record import read

CROWDED = 0.7
"""A stage that used less than this share of the cores' time shared the machine with others."""
ALONE = ("corpus", "traces")
"""Kinds of which most work keeps one core busy."""


@dataclass(frozen=True)
class Compared:
    """A stage's prediction, and what it took; `knowing` is the prediction with its lengths and signals known, in seconds."""

    predicted: Predicted
    knowing: float
    taken: Taken

    @property
    def seconds(self) -> Range:
        """Predicted."""
        found = self.predicted.range
        assert found is not None, "only stages whose time can be predicted are compared"
        return found

    @property
    def crowded(self) -> bool:
        """Whether something else ran beside the stage."""
        return self.taken.busy < CROWDED and self.taken.kind not in ALONE


@dataclass(frozen=True)
class Comparison:
    """Stages of a run beside their predictions; `total` is their sum's range in seconds, `left_out` stages that were resumed or not run."""

    recipe: str
    run: Path
    stages: list[Compared]
    total: Range
    left_out: list[str]

    @property
    def taken(self) -> float:
        """Seconds by the clock."""
        return sum(stage.taken.seconds for stage in self.stages)

    @property
    def undisturbed(self) -> float:
        """Seconds without pauses."""
        return sum(stage.taken.undisturbed for stage in self.stages)

    @property
    def knowing(self) -> float:
        """Predicted seconds with the lengths and signals that the run turned out to have."""
        return sum(stage.knowing for stage in self.stages)

    def sentence(self, words: Speech) -> str:
        """The answer."""
        held_up = self.taken - self.undisturbed
        crowded = [stage.taken.name for stage in self.stages if stage.crowded]
        without = error(self.total.p50, self.undisturbed)
        return words(
            "recipe.compared", recipe=self.recipe, predicted=duration(self.total.p50), took=duration(self.taken),
            error=error(self.total.p50, self.taken),
            pauses=words("recipe.pauses", error=without, held_up=duration(held_up)) if held_up >= 1 else "",
            known=words("recipe.known", error=error(self.knowing, self.undisturbed)),
            beside=words("recipe.beside", crowded=len(crowded), stages=len(self.stages)) if crowded else "",
        )  # fmt: skip

    def rows(self, words: Speech) -> list[list[str]]:
        """A table, its heading first."""
        columns = ("stage", "kind", "predicted", "interval", "took", "error", "held_up", "busy", "lengths", "held", "taken")
        return [[words(f"recipe.{name}") for name in columns], *(_row(stage, words) for stage in self.stages)]

    def to_json(self) -> dict[str, Any]:
        """For machines: seconds, bytes and shares."""
        return {
            "answer": self.sentence(speech("en")),
            "predicted": asdict(self.total),
            "taken": self.taken,
            "undisturbed": self.undisturbed,
            "with_lengths_known": self.knowing,
            "error": self.total.p50 / self.taken - 1,
            "left_out": self.left_out,
            "stages": [
                {
                    "stage": stage.taken.name,
                    "kind": stage.taken.kind,
                    "predicted": asdict(stage.seconds),
                    "taken": stage.taken.seconds,
                    "undisturbed": stage.taken.undisturbed,
                    "busy": stage.taken.busy,
                    "error": stage.seconds.p50 / stage.taken.seconds - 1,
                    "with_lengths_known": stage.knowing,
                    "memory_predicted": stage.predicted.memory,
                    "memory_taken": stage.taken.memory or None,
                }
                for stage in self.stages
            ],
        }


def compare(recipe: Recipe, run: Path, probe: Probe, factors: Factors, memory: bool = True) -> Comparison:
    """Holds the predictions of a recipe's stages against a run of it. Raises UserError where the run finished none of them."""
    record = run / "record.jsonl"
    if not record.exists():
        raise UserError("{run} holds no record.jsonl; give the folder of a run, such as runs/{name}.", run=run, name=recipe.name)
    took = taken(read(record))
    wanted = [stage for stage in recipe.stages if stage.name in took]
    found = forecast(recipe, wanted, probe, factors, memory)
    stages = [_compared(stage, took, probe, factors) for stage in found.stages if stage.range is not None]
    if not stages:
        raise UserError("{run} finished no stage of {name} in one go; give a run of this recipe.", run=run, name=recipe.name)
    left_out = [stage.name for stage in recipe.stages if stage.kind != "report" and stage.name not in {kept.taken.name for kept in stages}]
    return Comparison(recipe.name, run, stages, found.total, left_out)


def error(predicted: float, took: float) -> str:
    """Of a prediction, in percent of what was taken."""
    return f"{100 * (predicted / took - 1):+.0f} %"


def _compared(stage: Predicted, took: Mapping[str, Taken], probe: Probe, factors: Factors) -> Compared:
    mine = took[stage.work.name]
    work, shares = as_it_was(stage.work, mine)
    known = predict(work, probe, factors, shares)
    assert known.seconds is not None, "its time can be predicted"
    return Compared(stage, samples(known.seconds.value).range().p50, mine)


def _row(stage: Compared, words: Speech) -> list[str]:
    predicted, took = stage.seconds, stage.taken
    between = words("recipe.between", low=duration(predicted.p10), high=duration(predicted.p90))
    return [
        took.name, took.kind, duration(predicted.p50), between, duration(took.seconds),
        error(predicted.p50, took.seconds), duration(took.paused) if took.paused >= 1 else "", f"{took.busy:.0%}",
        error(stage.knowing, took.undisturbed), _gib(stage.predicted.memory, words), _gib(took.memory, words),
    ]  # fmt: skip


def _gib(size: float | None, words: Speech) -> str:
    return words.quantity(size / GIB, "GiB", exact=False) if size else ""
