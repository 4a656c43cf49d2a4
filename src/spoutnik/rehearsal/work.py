"""What a recipe's stages would compute: its settings turned into the kinds of work that `plan.laptop` knows the time of."""

import json
import random
import re
from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path

from spoutnik.data.corpus import SMALL_TOKENS, TOKENIZER_DOCUMENTS
from spoutnik.data.english import read_text
from spoutnik.errors import Phrase
from spoutnik.evaluate.evaluate import MAX_BATCH as EVALUATED
from spoutnik.model.config import ModelConfig
from spoutnik.model.flops import mtp_parameters, parameters
from spoutnik.plan.work import Answers, Length, Part, Readings, StageWork, Updates, Writing
from spoutnik.preflight import WEIGHT
from spoutnik.recipe import (
    AnyStage,
    CorpusStage,
    DistillStage,
    DPOStage,
    EvalStage,
    LogitsStage,
    PretrainStage,
    Recipe,
    RLStage,
    SampleStage,
    SFTStage,
    TaskSpec,
    TracesStage,
)
from spoutnik.rehearsal.stages import LOOKED_AT, Rehearsal
from spoutnik.tasks import make
from spoutnik.train.pretrain import MICRO_BATCH_TOKENS
from spoutnik.train.rejection import CHUNK
from spoutnik.train.rollouts import MAX_BATCH as SAMPLED

TEMPLATE = 9
"""Tokens that a chat template usually adds to a prompt."""
_TOKEN = re.compile(r"[^\W\d]{1,6}|\d|[^\w\s]")
STATE = 2 * WEIGHT
"""Bytes of the optimiser's moments of one parameter."""


class Workload:
    """The work of a recipe's stages. `given` are configurations by the name of a model; nothing is fetched, opened or written."""

    def __init__(self, recipe: Recipe, given: Mapping[str, Path] | None = None) -> None:
        self._rehearsal = Rehearsal(recipe, given or {}, accelerated=False)
        self._stages = {stage.name: stage for stage in recipe.stages}
        self._teachers = {teacher.name for teacher in recipe.teachers}

    def of(self, stage: AnyStage) -> StageWork:
        """A stage's work. Raises UserError where its models or its data are not to be found."""
        return replace(self._of(stage), models=sum(key != "data" for key in stage.inputs()), share=self._share(stage))

    def _of(self, stage: AnyStage) -> StageWork:
        asked = sorted(self._teachers & set(stage.inputs().values()))
        if asked:
            return StageWork(stage.name, stage.kind, unknown=Phrase("how fast {name} answers is not known", name=asked[0]))
        models = [self._rehearsal.config_of(name) for key, name in stage.inputs().items() if key != "data"]
        opened = sum(_size(config) * WEIGHT for config in models)
        match stage:
            case CorpusStage():
                return StageWork(stage.name, stage.kind, (Writing(stage.tokens, TOKENIZER_DOCUMENTS[stage.tokens > SMALL_TOKENS]),))
            case TracesStage():
                return StageWork(stage.name, stage.kind, (Writing(traces=stage.problems),))
            case PretrainStage():
                return self._optimised(stage, self._rehearsal.config_of(stage.name), (self._pretraining(stage),), 0)
            case RLStage():
                return self._optimised(stage, models[0], _reinforcing(stage, models[0]), opened)
            case DistillStage() if stage.mode == "on-policy":
                return self._optimised(stage, models[0], _on_policy(stage, models[0], tuple(models[1:])), opened)
            case SFTStage() | DPOStage() | DistillStage():
                return self._optimised(stage, models[0], self._imitating(stage, models[0], tuple(models[1:])), opened)
            case SampleStage():
                prompt, count = _prompt(stage.task), CHUNK * stage.samples_per_problem
                length, rounds = Length(prompt, stage.max_new_tokens), -(-stage.problems // CHUNK)
                count = min(count, stage.problems * stage.samples_per_problem)
                part = Answers(models[0], rounds, count, min(SAMPLED, count), length, stage.dtype)
                return StageWork(stage.name, stage.kind, (part,), opened)
            case EvalStage():
                return StageWork(stage.name, stage.kind, tuple(_evaluating(stage, models)), opened)
            case LogitsStage():
                rows, length = self._examples(stage.data)
                return StageWork(stage.name, stage.kind, (Readings(models[0], rows, length, stage.dtype, by_modules=True),), opened)
        if models:
            return StageWork(stage.name, stage.kind, unknown=Phrase("nothing is known of the time of a {kind} stage", kind=stage.kind))
        return StageWork(stage.name, stage.kind)

    def _optimised(self, stage: AnyStage, config: ModelConfig, parts: tuple[Part, ...], opened: int) -> StageWork:
        held = _size(config)
        return StageWork(stage.name, stage.kind, parts, opened, made=held * WEIGHT, saved=held * (WEIGHT + STATE))

    def _pretraining(self, stage: PretrainStage) -> Updates:
        rows = stage.batch_tokens // stage.sequence_length
        cells = max(1, MICRO_BATCH_TOKENS // stage.sequence_length) * stage.sequence_length
        return Updates(
            self._rehearsal.config_of(stage.name), stage.steps, rows, Length(stage.sequence_length), stage.dtype,
            cells if cells < stage.batch_tokens else None, stage.optimizer == "muon", pretrains=True,
        )  # fmt: skip

    def _imitating(
        self, stage: SFTStage | DPOStage | DistillStage, config: ModelConfig, teachers: tuple[ModelConfig, ...]
    ) -> tuple[Part, ...]:
        count, length = self._examples(stage.data or "")
        if isinstance(stage, DPOStage):  # what the untrained model says of both answers is read once
            reference = Readings(config, 2 * count, length, stage.dtype, by_modules=True, chosen=True)
            return (Updates(config, stage.steps, 2 * stage.batch_size, length, stage.dtype), reference)
        return (Updates(config, stage.steps, stage.batch_size or 1, length, stage.dtype, beside=teachers),)

    def _share(self, stage: AnyStage) -> float | None:
        """The share of the longest answer that answers of, or in, a stage are likely to have; None where nothing is known of them."""
        match stage:
            case RLStage() | SampleStage():
                tokens, longest = self._learned(stage.from_), stage.max_new_tokens
            case SFTStage() | DPOStage() | DistillStage() if isinstance(source := self._stages.get(stage.data or ""), SampleStage):
                tokens, longest = self._learned(source.from_), source.max_new_tokens
            case _:
                return None
        return min(tokens / longest, 1.0) if tokens else None

    def _learned(self, model: str) -> float | None:
        """Tokens of the worked traces that a model was taught, itself or by samples of one that was; reinforcement is taken to keep it."""
        stage = self._stages.get(model)
        if isinstance(stage, RLStage):
            return self._learned(stage.from_)
        source = self._stages.get(stage.data or "") if isinstance(stage, SFTStage | DistillStage) else None
        if isinstance(source, SampleStage):
            return self._learned(source.from_)
        return _prompt(source.task, traced=True) - _prompt(source.task) if isinstance(source, TracesStage) else None

    def _examples(self, data: str) -> tuple[float, Length]:
        """How many examples a stage's data are expected to hold at most, and their length."""
        source = self._stages.get(data)
        match source:
            case SampleStage():
                count = source.problems * (source.samples_per_problem if source.keep == "all" else 1)
                return count, Length(_prompt(source.task), source.max_new_tokens)
            case TracesStage():
                return source.problems, Length(_prompt(source.task, traced=True))
            case None:
                lines = [line for line in Path(data).read_text(encoding="utf-8").splitlines() if line.strip()]
                looked = lines[:: max(1, len(lines) // (LOOKED_AT * 16))]
                return len(lines), Length(TEMPLATE + sum(map(about_tokens, looked)) / max(1, len(looked)))
        if source.kind == "judge":
            return 1.0, Length(TEMPLATE, source.max_new_tokens)
        return self._examples(source.inputs()["data"])


def about_tokens(text: str) -> int:
    """About the tokens of a text: digits and signs by themselves, words in pieces of six letters."""
    return len(_TOKEN.findall(text))


def _reinforcing(stage: RLStage, config: ModelConfig) -> tuple[Part, ...]:
    answers, length = stage.prompts * stage.group, Length(_prompt(stage.task), stage.max_new_tokens)
    updates = stage.steps * stage.minibatches
    parts: list[Part] = [
        Answers(config, stage.steps, answers, min(SAMPLED, answers), length, stage.dtype, redrawn=stage.sampling_rounds),
        Updates(config, updates, answers / stage.minibatches, length, stage.dtype, stage.micro_batch_tokens, chosen=True),
    ]
    if stage.kl_coef:
        parts.append(Readings(config, stage.steps * answers, length, stage.dtype, by_modules=stage.dtype != "float32", chosen=True))
    scored = stage.steps * answers * (1 / stage.group + 1 - 1 / stage.minibatches)
    parts.append(Readings(config, scored, length, stage.dtype, by_modules=False, chosen=True))
    return tuple(parts)


def _on_policy(stage: DistillStage, config: ModelConfig, teachers: tuple[ModelConfig, ...]) -> tuple[Part, ...]:
    assert stage.task is not None, "the schema asks for it"
    rows, length = stage.prompts or 1, Length(_prompt(stage.task), stage.max_new_tokens or 1)
    return (
        Answers(config, stage.steps, rows, min(SAMPLED, rows), length, stage.dtype),
        Updates(config, stage.steps, rows, length, stage.dtype, beside=teachers[:1]),  # each answer is read by one teacher
    )


def _evaluating(stage: EvalStage, models: list[ModelConfig]) -> list[Part]:
    parts: list[Part] = []
    for config in models:
        for task in stage.tasks:
            count = (task.problems or 0) * stage.samples_per_problem
            parts.append(Answers(config, 1, count, EVALUATED, Length(_prompt(task), stage.max_new_tokens), stage.dtype))
        for text in stage.texts:
            characters = min(sum(map(len, read_text(text))), stage.text_characters)
            window = min(config.max_position_embeddings, 1024)
            parts.append(Readings(config, characters / 4 / window, Length(window), stage.dtype, by_modules=True))
    return parts


def _size(config: ModelConfig) -> int:
    return parameters(config).total + mtp_parameters(config).total


@cache
def _tokens(name: str, options: str, split: str, traced: bool) -> float:
    task = make(name, **json.loads(options))
    problems = [task.problem(split, 0, index) for index in range(LOOKED_AT)]
    traces = [about_tokens(task.trace(problem, random.Random(index))) if traced else 0 for index, problem in enumerate(problems)]
    return sum(about_tokens(problem.prompt) + trace for problem, trace in zip(problems, traces, strict=True)) / len(problems)


def _prompt(spec: TaskSpec, traced: bool = False) -> float:
    """Tokens of a task's prompts, with their worked traces if `traced`: the mean of a few."""
    return TEMPLATE + _tokens(spec.name, json.dumps(spec.options), spec.split, traced)
