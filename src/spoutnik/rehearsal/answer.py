"""The dry run's answer: whether a recipe can run, in one sentence, and what each stage takes."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from spoutnik.device import HOST, Memory, computing_device, memory_of
from spoutnik.preflight import WEIGHT
from spoutnik.recipe import Recipe
from spoutnik.recipe.tables import Optimised
from spoutnik.rehearsal.stages import Rehearsal, Rehearsed, checkpoint_bytes
from spoutnik.run import machine
from spoutnik.run.progress import duration

USABLE = 0.95
"""Share of an accelerator's memory that a step may be planned to fill: its libraries and the gaps between tensors take the rest."""


@dataclass(frozen=True)
class Answer:
    """`faults` are sentences; without any the recipe can run. Memory and disk in bytes."""

    stages: list[Rehearsed]
    faults: list[str]
    fetched: list[str]
    memory: Memory
    disk: int
    disk_free: int

    @property
    def sentence(self) -> str:
        """The answer."""
        if self.faults:
            return "It cannot run here: " + "; ".join(self.faults) + "."
        fullest = max(self.stages, key=lambda stage: stage.memory or 0)
        memory = f"at most {_gib(fullest.memory)} of {_gib(self.memory.total)} ({fullest.name})" if fullest.memory else "no model"
        minutes = sum(stage.minutes for stage in self.stages)
        planned = f", planned for {duration(minutes * 60)}" if minutes else ""
        disk = f", {_gib(self.disk)} of disk" if self.disk else ""
        count = "1 stage" if len(self.stages) == 1 else f"{len(self.stages)} stages"
        return f"It fits: {count}, {memory}{disk}{planned}."


def rehearse(recipe: Recipe, out: Path, given: Mapping[str, Path], memory: int | None = None) -> Answer:
    """Looks at everything and runs nothing. `memory`, in bytes, is an assumed accelerator's; its machine's disk is not judged then."""
    device = computing_device()
    accelerated = memory is not None or device.type != HOST
    here = Memory(memory, memory, "the accelerator that --memory assumes") if memory is not None else memory_of(device)
    rehearsal = Rehearsal(recipe, given, accelerated)
    stages = rehearsal.stages()
    for stage in stages:
        stage.fault = stage.fault or memory_fault(stage.memory, here, accelerated)
    faults = [f"stage {stage.name!r}: {stage.fault.rstrip('.')}" for stage in stages if stage.fault]
    disk, free = checkpoint_bytes(stages, recipe), machine.disk_free(out)
    if memory is None and disk > free:
        faults.append(f"it needs {_gib(disk)} on the disk of {out}, and {_gib(free)} are free")
    trained = [found.parameters for found, stage in zip(stages, recipe.stages, strict=True) if isinstance(stage, Optimised)]
    saved = 3 * WEIGHT * max(trained, default=0)
    if accelerated and memory is None and saved > machine.inspect().memory:
        faults.append(f"saving a state takes {_gib(saved)} of the machine's own memory, which has {_gib(machine.inspect().memory)}")
    return Answer(stages, faults, list(rehearsal.missing.values()), here, disk, free)


def memory_fault(needed: int | None, here: Memory, accelerated: bool = False) -> str | None:
    """Why a stage that needs so many bytes at its fullest step cannot run in that memory; None where it can."""
    if (needed or 0) <= here.total * (USABLE if accelerated else 1.0):
        return None
    return f"it needs {_gib(needed)}, and {here.where} has {_gib(here.total)}"


def rows(answer: Answer) -> list[list[str]]:
    """A table, its heading first."""
    heading = ["stage", "kind", "model", "parameters", "memory", "minutes", "what is assumed"]
    return [heading] + [
        [
            stage.name, stage.kind, stage.model, f"{stage.parameters / 1e6:,.1f} M" if stage.parameters else "", _gib(stage.memory),
            f"{stage.minutes:g}" if stage.minutes else "", stage.fault or "; ".join(stage.notes),
        ]
        for stage in answer.stages
    ]  # fmt: skip


def _gib(size: int | None) -> str:
    return f"{size / machine.GIB:.1f} GiB" if size else ""
