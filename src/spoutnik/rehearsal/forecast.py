"""What a recipe's stages will take on this machine: time by `plan.laptop`, memory by the dry run's steps without numbers."""

from collections.abc import Iterable
from dataclasses import dataclass, replace

from spoutnik.device import computing_device, memory_of
from spoutnik.plan import laptop
from spoutnik.plan.laptop import Factors, Predicted, predict
from spoutnik.plan.probe import Probe
from spoutnik.plan.speech import Speech
from spoutnik.plan.uncertain import Range
from spoutnik.recipe import AnyStage, Recipe
from spoutnik.rehearsal.answer import memory_fault
from spoutnik.rehearsal.stages import Rehearsal
from spoutnik.rehearsal.work import Workload
from spoutnik.run.machine import GIB
from spoutnik.run.progress import duration


@dataclass(frozen=True)
class Forecast:
    """Of the stages that compute something, in the recipe's order. `total` in seconds, of those whose time can be predicted; `faults` by
    stage say why it cannot run here."""

    recipe: str
    stages: list[Predicted]
    total: Range
    faults: dict[str, str]

    def unknown(self, words: Speech) -> list[str]:
        """Why some stages' times are not in the total."""
        untimed = [stage.work for stage in self.stages if stage.work.unknown]
        return [words("plain.pair", name=work.name, value=words.phrase(work.unknown)) for work in untimed]

    def sentence(self, words: Speech) -> str:
        """The answer. Faults are told in English."""
        if self.faults:
            return f"{self.recipe} cannot run here: " + "; ".join(f"stage {name!r}: {fault}" for name, fault in self.faults.items()) + "."
        fullest = max(self.stages, key=lambda stage: stage.memory or 0.0, default=None)
        size = words.quantity(fullest.memory / GIB, "GiB", exact=False) if fullest and fullest.memory else ""
        unknown = self.unknown(words)
        return words(
            "recipe.answer", recipe=self.recipe, middle=duration(self.total.p50), low=duration(self.total.p10),
            high=duration(self.total.p90),
            memory=words("recipe.memory", size=size, stage=fullest.work.name) if fullest and size else "",
            without=words("recipe.without", stages="; ".join(unknown)) if unknown else "",
        )  # fmt: skip

    @property
    def expected(self) -> dict[str, dict[str, float]]:
        """By stage, as the record has it: p10, p50 and p90 in seconds, memory in bytes where it was worked out."""
        return {
            stage.work.name: {**stage.range.to_dict(), **({"memory": stage.memory} if stage.memory else {})}
            for stage in self.stages
            if stage.range is not None
        }


def forecast(recipe: Recipe, stages: Iterable[AnyStage], probe: Probe, factors: Factors, memory: bool = True) -> Forecast:
    """Predicts these stages of a recipe. Without `memory` it takes no time; with it, seconds. Raises UserError where a model is missing."""
    wanted = [stage for stage in stages if stage.kind != "report"]
    held = {found.name: found.memory for found in Rehearsal(recipe, {}, accelerated=False).stages()} if memory else {}
    faults = {stage.name: memory_fault(held.get(stage.name), memory_of(computing_device())) for stage in wanted} if memory else {}
    workload = Workload(recipe)
    predicted = [predict(replace(workload.of(stage), memory=held.get(stage.name)), probe, factors) for stage in wanted]
    kept = {name: fault for name, fault in faults.items() if fault is not None}
    return Forecast(recipe.name, predicted, laptop.total(predicted).range(), kept)
