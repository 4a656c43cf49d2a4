"""Refuses what cannot work before anything runs: unknown models and tasks, impossible configurations, too little memory or disk."""

import dataclasses
import difflib
import random
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from spoutnik.data.english import read_text
from spoutnik.device import computing_device, memory_of
from spoutnik.errors import UserError
from spoutnik.recipe import (
    AnyStage,
    CorpusStage,
    DistillStage,
    EvalStage,
    JudgeStage,
    LogitsStage,
    PretrainStage,
    Recipe,
    RLStage,
    TaskSpec,
    TracesStage,
    check_models,
)
from spoutnik.recipe.tables import Optimised
from spoutnik.run import machine
from spoutnik.tasks.harness import HarnessTask
from spoutnik.teacher.opening import read_key
from spoutnik.teacher.questions import read_prompts
from spoutnik.teacher.terms import check_terms

if TYPE_CHECKING:
    from spoutnik.model.config import ModelConfig
    from spoutnik.tasks.base import Task

WEIGHT = 4
"""Bytes of one parameter: float32."""
TRAINED = 4 * WEIGHT
"""Bytes of one parameter in training: weight, gradient, and Adam's two moments."""


def check(recipe: Recipe, pending: Iterable[AnyStage], out: Path, origin: str) -> None:
    """Raises UserError for the first of the `pending` stages that cannot work here."""
    pending = list(pending)
    check_models(recipe, find_model, origin)
    for stage in pending:
        try:
            check_parts(recipe, stage)
            if isinstance(stage, Optimised | LogitsStage):
                _check_memory(recipe, stage)
        except UserError as error:
            raise UserError(f"{origin}: stage {stage.name!r}: {error}") from None
    _check_disk(recipe, pending, out, origin)


def check_parts(recipe: Recipe, stage: AnyStage) -> None:
    """Raises UserError if a task of the stage cannot be made or lacks traces, a file not be read, or its teacher not be asked."""
    remote = [teacher.name for teacher in recipe.teachers if teacher.name in stage.inputs().values()]
    for spec in tasks_of(stage):
        task = make_task(spec)
        if isinstance(task, HarnessTask) and isinstance(stage, EvalStage):
            task.check(stage.samples_per_problem, remote)
        if isinstance(stage, CorpusStage | TracesStage):
            _check_traces(task)
    if isinstance(stage, EvalStage):
        for text in stage.texts:
            read_text(text)
        for path in stage.against or []:
            if not Path(path).exists():
                raise UserError(f"there are no training data at {path}; name a file, a folder or a run in `against`.")
    if isinstance(stage, JudgeStage):
        read_prompts(Path(stage.questions))
    for teacher in recipe.teachers:
        if teacher.name in stage.inputs().values():
            if stage.kind != "eval":  # terms are about training, and nothing is trained on what is evaluated
                check_terms(teacher)
            read_key(teacher)


def find_model(name: str) -> Path:
    """Where a model is: see `spoutnik.checkpoint.find`."""
    from spoutnik.checkpoint.find import find

    return find(name)


def make_task(spec: TaskSpec) -> "Task":
    """Builds the task, so that a wrong name or option is told now."""
    from spoutnik.tasks import make

    return make(spec.name, **spec.options)


def _check_traces(task: "Task") -> None:
    """Raises UserError if the task, or one of a mixture's, writes no traces."""
    parts: Sequence[Task] = getattr(task, "parts", ())
    for part in parts:
        _check_traces(part)
    if not parts:
        task.trace(task.problem("train", 0, 0), random.Random(0))


def tasks_of(stage: AnyStage) -> list[TaskSpec]:
    """Every task that a stage names."""
    if isinstance(stage, CorpusStage):
        return [source.task for source in stage.sources if source.task]
    single = getattr(stage, "task", None)
    return [*getattr(stage, "tasks", []), *([single] if single else [])]


def count_parameters(recipe: Recipe, stage: PretrainStage) -> int:
    """Parameters of the model that a stage would train; nothing is allocated. Raises UserError for an impossible model."""
    import torch

    from spoutnik.model.transformer import CausalLM

    with torch.device("meta"):
        return sum(parameter.numel() for parameter in CausalLM(planned_config(recipe, stage)).parameters())


def planned_config(recipe: Recipe, stage: PretrainStage) -> "ModelConfig":
    """The model that a stage would train. Raises UserError for an impossible one."""
    from spoutnik.model.config import ModelConfig
    from spoutnik.model.depth import depth_config

    corpus = next(other for other in recipe.stages if isinstance(other, CorpusStage) and other.name == stage.data)
    known = [field.name for field in dataclasses.fields(ModelConfig)]
    for key in stage.model.overrides:
        if key not in known:
            close = difflib.get_close_matches(key, known, n=1)
            raise UserError(
                f"model.{key} is no field of ModelConfig; " + (f"did you mean `{close[0]}`?" if close else f"known: {', '.join(known)}.")
            )
    return depth_config(stage.model.family, stage.model.depth, corpus.vocab_size).with_(**stage.model.overrides)


def _check_memory(recipe: Recipe, stage: Optimised | LogitsStage) -> None:
    """Counts only what cannot be avoided (trained and frozen weights, the batch's ids), so it never refuses what would fit."""
    parameters = parameters_of(recipe, stage.name)
    needed = parameters * (TRAINED if isinstance(stage, Optimised) else WEIGHT)
    if isinstance(stage, PretrainStage):
        needed += stage.batch_tokens * 16
    if isinstance(stage, RLStage) and stage.kl_coef > 0:
        needed += parameters * WEIGHT
    if isinstance(stage, DistillStage):
        needed += sum(parameters_of(recipe, teacher) for teacher in set(stage.teachers)) * WEIGHT
    here = memory_of(computing_device())
    if needed > here.total:
        use = "train" if isinstance(stage, Optimised) else "run"
        found = f"needs at least {needed / machine.GIB:.1f} GiB to {use} {parameters / 1e6:,.0f} M parameters"
        raise UserError(
            f"it {found}, but {here.where} has {here.total / machine.GIB:.1f} GiB; take a smaller model (model.depth) or a larger machine."
        )


def _check_disk(recipe: Recipe, pending: list[AnyStage], out: Path, origin: str) -> None:
    """Room for every checkpoint, and for two working states (the old one stays until the new one is whole) of the largest model."""
    sizes = [parameters_of(recipe, stage.name) for stage in pending if isinstance(stage, Optimised)]
    needed = sum(sizes) * WEIGHT + 2 * max(sizes, default=0) * TRAINED
    free = machine.disk_free(out)
    if needed > free:
        found = f"needs about {needed / machine.GIB:.1f} GiB on the disk of {out}, but {free / machine.GIB:.1f} GiB are free"
        raise UserError(f"{origin} {found}; make room or give another --out.")


def parameters_of(recipe: Recipe, name: str) -> int:
    """Parameters of a stage's model, followed back to where it came from; of a model on disk, the least that its files can hold."""
    by_name = {stage.name: stage for stage in recipe.stages}
    if name not in by_name:
        path = find_model(name)
        files = [path] if path.is_file() else [*path.glob("*.safetensors"), *path.glob("*.gguf")]
        return sum(file.stat().st_size for file in files) // WEIGHT
    stage = by_name[name]
    return count_parameters(recipe, stage) if isinstance(stage, PretrainStage) else parameters_of(recipe, stage.inputs()["from"])
