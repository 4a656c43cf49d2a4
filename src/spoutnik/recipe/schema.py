"""What a recipe may say: pydantic models that refuse unknown keys, wrong types and options that contradict each other.

A recipe is a list of stages; every stage names its inputs (an earlier stage, or a model that can be found) and its own settings.
Field names are the keys of the TOML file; `from`, a word of Python's, is the attribute `from_`.
"""

import hashlib
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from spoutnik.recipe.distillation import DistillStage, LogitsStage
from spoutnik.recipe.judge import JudgeStage
from spoutnik.recipe.reinforcement import RLStage
from spoutnik.recipe.tables import (
    Balance,
    Dtype,
    Fraction,
    LearntTask,
    ModelSpec,
    Name,
    Optimised,
    Positive,
    Price,
    Source,
    StageBase,
    Table,
    TaskSpec,
)
from spoutnik.recipe.teachers import TeacherSpec


class CorpusStage(StageBase):
    kind: Literal["corpus"] = "corpus"
    sources: Annotated[list[Source], Field(min_length=1)]
    tokens: Positive
    vocab_size: Annotated[int, Field(ge=300)]
    digits: Literal[1, 3] = 1
    held_out_tokens: Annotated[int, Field(ge=0)] = 0
    """So many of each source are set aside, for the loss that pretraining reports at its end."""


class PretrainStage(Optimised):
    kind: Literal["pretrain"] = "pretrain"
    data: str
    model: ModelSpec
    batch_tokens: Positive = 8192
    sequence_length: Positive = 256
    learning_rate: Annotated[float, Field(gt=0)] | None = None
    schedule: Literal["wsd", "cosine"] = "wsd"
    warmup: Fraction = 0.05
    decay: Fraction = 0.2
    optimizer: Literal["adamw", "muon"] = "adamw"
    weight_decay: Annotated[float, Field(ge=0)] = 0.1
    dtype: Dtype = "float32"
    mtp_weight: Annotated[float, Field(ge=0)] = 0.3
    balance: Balance = Balance()

    def inputs(self) -> dict[str, str]:
        return {"data": self.data}

    @model_validator(mode="after")
    def consistent(self) -> Self:
        if self.batch_tokens % self.sequence_length:
            raise ValueError(f"batch_tokens ({self.batch_tokens}) must be a multiple of sequence_length ({self.sequence_length})")
        if self.schedule == "cosine" and "decay" in self.model_fields_set:
            raise ValueError("`decay` belongs to schedule = 'wsd'; the cosine schedule decays from the end of the warm-up: leave it out")
        if self.warmup + self.decay > 1:
            raise ValueError(f"warmup ({self.warmup}) and decay ({self.decay}) together exceed the whole run: make their sum at most 1")
        deepseek_only = {"mtp_weight", "balance"} & self.model_fields_set
        if self.model.family != "deepseek_v3" and deepseek_only:
            raise ValueError(f"`{min(deepseek_only)}` needs family = 'deepseek_v3'; {self.model.family} has no such part: leave it out")
        return self


SAMPLE_KINDS = ("sample", "judge", "traces")
"""The kinds of stage that write samples.jsonl."""


class TracesStage(StageBase):
    """Writes samples.jsonl with worked traces of a task, for a cold start."""

    kind: Literal["traces"] = "traces"
    task: LearntTask
    problems: Positive
    keep: Literal["correct", "all"] = "correct"


class SampleStage(StageBase):
    """Rejection sampling: writes samples.jsonl with what the verifier accepts. `from` is a model or a teacher."""

    kind: Literal["sample"] = "sample"
    from_: str = Field(alias="from")
    task: LearntTask
    problems: Positive
    samples_per_problem: Positive = 1
    temperature: Annotated[float, Field(ge=0)] = 1.0
    max_new_tokens: Positive
    keep: Literal["correct", "correct-and-faithful", "all", "pairs", "any-pairs"] = "correct"
    """"pairs": a right answer and a wrong one to the same problem; "any-pairs": the one that earned most and the one that earned least."""
    prefer: Literal["shortest", "first"] = "shortest"
    dtype: Dtype = "float32"

    def inputs(self) -> dict[str, str]:
        return {"from": self.from_}

    @model_validator(mode="after")
    def consistent(self) -> Self:
        if self.temperature == 0 and self.samples_per_problem > 1:
            raise ValueError("temperature = 0 gives the same sample every time: set samples_per_problem = 1 or a temperature above 0")
        if self.keeps_pairs and self.samples_per_problem < 2:
            raise ValueError(f"keep = '{self.keep}' needs samples_per_problem of 2 or more: a pair is two answers to one problem")
        return self

    @property
    def keeps_pairs(self) -> bool:
        """Whether what is kept are pairs, for DPO, and not single answers."""
        return self.keep in ("pairs", "any-pairs")


class SFTStage(Optimised):
    kind: Literal["sft"] = "sft"
    from_: str = Field(alias="from")
    data: str
    batch_size: Positive
    learning_rate: Annotated[float, Field(gt=0)]
    schedule: Literal["wsd", "cosine"] = "cosine"
    warmup: Fraction = 0.05
    dtype: Dtype = "float32"

    def inputs(self) -> dict[str, str]:
        return {"from": self.from_, "data": self.data}


class DPOStage(Optimised):
    """Direct preference optimisation (arXiv 2305.18290) on pairs: of a sample stage that keeps pairs, or of a JSONL file."""

    kind: Literal["dpo"] = "dpo"
    from_: str = Field(alias="from")
    data: str
    batch_size: Positive
    learning_rate: Annotated[float, Field(gt=0)]
    beta: Annotated[float, Field(gt=0)] = 0.1
    schedule: Literal["wsd", "cosine"] = "cosine"
    warmup: Fraction = 0.05
    dtype: Dtype = "float32"

    def inputs(self) -> dict[str, str]:
        return {"from": self.from_, "data": self.data}


class EvalStage(StageBase):
    """Every model, and every teacher among `models`, on the same problems."""

    kind: Literal["eval"] = "eval"
    models: Annotated[list[str], Field(min_length=1)]
    tasks: Annotated[list[TaskSpec], Field(min_length=1)]
    texts: Annotated[list[str], Field(default_factory=list)]
    """General texts (`builtin:english` or paths) whose perplexity is measured."""
    text_characters: Positive = 65_536
    """How much of each text, from its beginning."""
    samples_per_problem: Positive = 1
    temperature: Annotated[float, Field(ge=0)] = 0.0
    max_new_tokens: Positive
    dtype: Dtype = "float32"
    instruct: bool = False
    """Whether models here are told, as those over the network are, how to write down their thinking and their answer."""
    against: Annotated[list[str], Field(min_length=1)] | None = None
    """Training data (files, folders, runs) in which the problems are looked for, besides what is known of the models' own."""

    def inputs(self) -> dict[str, str]:
        return {f"models[{index}]": model for index, model in enumerate(self.models)}

    @model_validator(mode="before")
    @classmethod
    def held_out_by_default(cls, value: Any) -> Any:
        """A task of an evaluation is drawn from the held-out split unless it says otherwise."""
        if not isinstance(value, dict) or not isinstance(value.get("tasks"), list):
            return value
        return {**value, "tasks": [{"split": "held-out", **task} if isinstance(task, dict) else task for task in value["tasks"]]}

    @model_validator(mode="after")
    def consistent(self) -> Self:
        if self.temperature == 0 and self.samples_per_problem > 1:
            raise ValueError("temperature = 0 gives the same sample every time: set samples_per_problem = 1 or a temperature above 0")
        for index, task in enumerate(self.tasks):
            if task.problems is None:
                raise ValueError(f"tasks[{index}] ({task.name}) needs `problems`: how many to evaluate on")
            if any((task.name, task.options) == (other.name, other.options) for other in self.tasks[:index]):
                raise ValueError(f"tasks[{index}] ({task.name}) is there twice: leave one out")
        if twice := [model for index, model in enumerate(self.models) if model in self.models[:index]]:
            raise ValueError(f"the model {twice[0]!r} is there twice: leave one out")
        return self


class ReportStage(StageBase):
    kind: Literal["report"] = "report"


AnyStage = (
    CorpusStage
    | PretrainStage
    | RLStage
    | TracesStage
    | SampleStage
    | JudgeStage
    | SFTStage
    | DPOStage
    | LogitsStage
    | DistillStage
    | EvalStage
    | ReportStage
)
Stage = Annotated[AnyStage, Field(discriminator="kind")]


class Recipe(Table):
    name: Name
    seed: Annotated[int, Field(ge=0)] = 0
    price: Price = Price()
    teachers: Annotated[list[TeacherSpec], Field(default_factory=list, alias="teacher")]
    stages: Annotated[list[Stage], Field(alias="stage", min_length=1)]

    def stage_seed(self, stage: str) -> int:
        """The seed of one stage: a hash of the recipe's seed and the stage's name, so inserting a stage changes no other."""
        digest = hashlib.blake2b(f"{self.seed}/{stage}".encode(), digest_size=4).digest()
        return int.from_bytes(digest, "big")
