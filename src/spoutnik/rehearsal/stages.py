"""What each stage of a recipe would work on: which model, how much at a time, and the memory that takes."""

import json
import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from spoutnik.errors import UserError
from spoutnik.evaluate.evaluate import MAX_BATCH as EVALUATED
from spoutnik.model.config import ModelConfig
from spoutnik.model.flops import parameters
from spoutnik.preflight import TRAINED, WEIGHT, check_parts, planned_config
from spoutnik.recipe import (
    AnyStage,
    DistillStage,
    DPOStage,
    EvalStage,
    PretrainStage,
    Recipe,
    RLStage,
    SampleStage,
    SFTStage,
    TaskSpec,
    TracesStage,
)
from spoutnik.recipe.tables import Dtype, Optimised
from spoutnik.rehearsal.memory import Batch, sampling_bytes, training_peak
from spoutnik.rehearsal.models import Known, known
from spoutnik.run import interrupt
from spoutnik.tasks import make
from spoutnik.train.pretrain import MICRO_BATCH_TOKENS
from spoutnik.train.rejection import CHUNK
from spoutnik.train.rollouts import MAX_BATCH as SAMPLED

CHARACTERS = 3
"""Of a token, at least: English has about four, digits and code fewer."""
TEMPLATE = 40
"""Tokens that a chat template adds to a prompt."""
LOOKED_AT = 16
"""Problems of a task whose length is looked at."""
WIDTHS = {"float32": 4, "bfloat16": 2}


def peak(
    config: ModelConfig, batch: Batch, dtype: Dtype, frozen: tuple[ModelConfig, ...] = (), distributions: bool = False, scaled: bool = False
) -> int:
    """See `training_peak`. How many tokens an expert gets is not known beforehand, so of experts only the weights are counted."""
    found = training_peak(_dense(config), batch, dtype, [_dense(other) for other in frozen], distributions, scaled)
    found += (parameters(config).total - parameters(_dense(config)).total) * TRAINED
    return found + sum(parameters(other).total - parameters(_dense(other)).total for other in frozen) * WEIGHT


def _dense(config: ModelConfig) -> ModelConfig:
    if not config.is_latent:
        return config
    return config.with_(n_routed_experts=0, first_k_dense_replace=config.num_hidden_layers, num_nextn_predict_layers=0)


@dataclass
class Rehearsed:
    """A stage: `memory` in bytes at its fullest moment, None where it needs no model; `notes` say what it rests on."""

    name: str
    kind: str
    model: str = ""
    parameters: int = 0
    memory: int | None = None
    minutes: float = 0.0
    notes: list[str] = field(default_factory=list)
    fault: str | None = None


class Rehearsal:
    """Looks at the stages of a recipe in order. `given` are configurations by the name of a model; nothing is fetched or written."""

    def __init__(self, recipe: Recipe, given: Mapping[str, Path], accelerated: bool):
        self.recipe, self._given, self._accelerated = recipe, given, accelerated
        self._teachers = {teacher.name for teacher in recipe.teachers}
        self._stages = {stage.name: stage for stage in recipe.stages}
        self._peaks: dict[str, int] = {}
        self.missing: dict[str, str] = {}
        """What would be fetched, by the model's name."""

    def stages(self) -> list[Rehearsed]:
        """Every stage with what is known of it; a fault of one does not hide those of others."""
        found = []
        for stage in self.recipe.stages:
            interrupt.check()
            rehearsed = Rehearsed(stage.name, stage.kind, minutes=stage.minutes)
            try:
                check_parts(self.recipe, stage)
                self._look_at(stage, rehearsed)
            except UserError as error:
                rehearsed.fault = str(error)
            found.append(rehearsed)
        return found

    def config_of(self, name: str) -> ModelConfig:
        """The configuration of a model, followed back through the stages that make it."""
        stage = self._stages.get(name)
        if stage is None:
            found: Known = known(name, self._given)
            if found.missing:
                self.missing[name] = found.missing
            return found.config
        if isinstance(stage, PretrainStage):
            return planned_config(self.recipe, stage)
        return self.config_of(stage.inputs()["from"])

    def _look_at(self, stage: AnyStage, into: Rehearsed) -> None:
        asked = [name for key, name in stage.inputs().items() if key != "data" and name not in self._teachers]
        names = [stage.name] if isinstance(stage, PretrainStage) else asked
        if not names:
            return
        configs = [self.config_of(name) for name in names]
        largest = max(range(len(names)), key=lambda index: parameters(configs[index]).total)
        place = largest if isinstance(stage, EvalStage) else 0
        into.model, into.parameters = _model_name(names[place], self._stages), parameters(configs[place]).total
        into.memory = self._memory(stage, configs[place], configs[1:], into.notes)

    def _memory(self, stage: AnyStage, config: ModelConfig, others: list[ModelConfig], notes: list[str]) -> int:
        weights = parameters(config).total * WEIGHT
        if isinstance(stage, EvalStage):
            prompt = max(_prompt(task) for task in stage.tasks)
            notes.append(f"{EVALUATED} answers of {prompt} + {stage.max_new_tokens} tokens at a time")
            width = WIDTHS[stage.dtype]
            return weights // WEIGHT * width + self._sampling(config, EVALUATED, prompt, stage.max_new_tokens, stage.dtype, width)
        if isinstance(stage, SampleStage):
            prompt, rows = _prompt(stage.task), min(SAMPLED, CHUNK * stage.samples_per_problem)
            notes.append(f"{rows} answers of {prompt} + {stage.max_new_tokens} tokens at a time")
            return weights + self._sampling(config, rows, prompt, stage.max_new_tokens, stage.dtype)
        if isinstance(stage, RLStage):
            return self._reinforced(stage, config, notes)
        if isinstance(stage, DistillStage) and stage.mode == "on-policy":
            assert stage.task is not None, "the schema asks for it"
            prompt, rows, longest = _prompt(stage.task), stage.prompts or 1, stage.max_new_tokens or 1
            batch = Batch(rows, prompt + longest, rows * longest)
            notes.append(f"steps of {rows} x {batch.length} tokens")
            sampling = self._sampling(config, rows, prompt, longest, stage.dtype)
            moments = weights // WEIGHT * (TRAINED - WEIGHT) + sum(parameters(other).total for other in others) * WEIGHT
            return max(moments + sampling, self._peak(config, batch, stage.dtype, tuple(others), True))
        if isinstance(stage, SFTStage | DPOStage | DistillStage):
            longest = self._example_length(stage.data or "")
            rows = (stage.batch_size or 1) * (2 if isinstance(stage, DPOStage) else 1)
            notes.append(f"steps of {rows} x {longest} tokens at most")
            teachers = tuple(others) if isinstance(stage, DistillStage) else ()
            return self._peak(config, Batch(rows, longest, rows * longest), stage.dtype, teachers, bool(teachers))
        if isinstance(stage, PretrainStage):
            rows = min(max(1, MICRO_BATCH_TOKENS // stage.sequence_length), stage.batch_tokens // stage.sequence_length)
            notes.append(f"steps of {rows} x {stage.sequence_length} tokens")
            return self._peak(config, Batch(rows, stage.sequence_length, rows * stage.sequence_length), stage.dtype)
        return weights

    def _reinforced(self, stage: RLStage, config: ModelConfig, notes: list[str]) -> int:
        count, prompt = parameters(config).total, _prompt(stage.task)
        length = prompt + stage.max_new_tokens
        rows = min(max(1, stage.micro_batch_tokens // length), stage.prompts * stage.group)
        sampled = min(SAMPLED, stage.prompts * stage.group)
        notes.append(f"{sampled} answers of {prompt} + {stage.max_new_tokens} tokens, computed {rows} at a time")
        reference = (config,) if stage.kl_coef > 0 else ()
        step = self._peak(config, Batch(rows, length, rows * stage.max_new_tokens), stage.dtype, reference, False, stage.temperature != 1.0)
        between = count * (TRAINED - WEIGHT) + len(reference) * count * WEIGHT  # no gradients while answers are sampled
        return max(step, between + self._sampling(config, sampled, prompt, stage.max_new_tokens, stage.dtype))

    def _peak(self, *step: Any) -> int:
        """`peak`, once for steps that are alike."""
        if (key := repr(step)) not in self._peaks:
            self._peaks[key] = peak(*step)
        return self._peaks[key]

    def _sampling(self, config: ModelConfig, rows: int, prompt: int, longest: int, dtype: str, width: int = WEIGHT) -> int:
        """Beside the weights: on an accelerator the modules sample as they are; on a CPU the kernels, with weights of their own."""
        if self._accelerated:
            return sampling_bytes(config, rows, prompt, longest, width)
        narrow = WIDTHS[dtype]
        return parameters(config).total * narrow + sampling_bytes(config, rows, prompt, longest, narrow)

    def _example_length(self, data: str) -> int:
        """Tokens of the longest example that a stage's data are expected to hold."""
        source = self._stages.get(data)
        if isinstance(source, SampleStage):
            return _prompt(source.task) + source.max_new_tokens
        if isinstance(source, TracesStage):
            return _prompt(source.task, traced=True)
        if source is not None and source.kind == "judge":
            return TEMPLATE + source.max_new_tokens
        if source is not None:
            return self._example_length(source.inputs()["data"])
        lines = Path(data).read_text(encoding="utf-8").splitlines()
        return max(map(len, lines)) // CHARACTERS


def _model_name(name: str, stages: Mapping[str, AnyStage]) -> str:
    """Where a stage's model first came from."""
    while name in stages and not isinstance(stages[name], PretrainStage):
        name = stages[name].inputs()["from"]
    return name


@cache
def _characters(name: str, options: str, split: str, traced: bool) -> int:
    """Of the longest of some problems, with their traces if `traced`."""
    task = make(name, **json.loads(options))
    problems = [task.problem(split, 0, index) for index in range(LOOKED_AT)]
    traces = [len(task.trace(problem, random.Random(0))) if traced else 0 for problem in problems]
    return max(len(problem.prompt) + trace for problem, trace in zip(problems, traces, strict=True))


def _prompt(spec: TaskSpec, traced: bool = False) -> int:
    """Tokens of a task's prompts, with their worked traces if `traced`: the longest of a few, taken generously."""
    return -(-_characters(spec.name, json.dumps(spec.options), spec.split, traced) // CHARACTERS) + TEMPLATE


def checkpoint_bytes(rehearsed: list[Rehearsed], recipe: Recipe) -> int:
    """Bytes on disk: a checkpoint for each stage that makes a model, and two working states of the largest."""
    sizes = [found.parameters for found, stage in zip(rehearsed, recipe.stages, strict=True) if isinstance(stage, Optimised)]
    return sum(sizes) * WEIGHT + 2 * max(sizes, default=0) * (TRAINED - WEIGHT)
