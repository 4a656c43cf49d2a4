"""What a recipe may say: pydantic models that refuse unknown keys, wrong types and options that contradict each other.

A recipe is a list of stages; every stage names its inputs (an earlier stage, or a model that can be found) and its own settings.
Field names are the keys of the TOML file; `from`, a word of Python's, is the attribute `from_`.
"""

import hashlib
from typing import Annotated, Any, Literal, Self

from pydantic import ConfigDict, Field, model_validator

from spoutnik.recipe.judge import JudgeStage
from spoutnik.recipe.tables import Dtype, Fraction, Name, Positive, StageBase, Table
from spoutnik.recipe.teachers import TeacherSpec


class Price(Table):
    """What the ledger charges. `watts_per_core` is used, and named in the report, only where the machine has no energy counter."""

    cpu_core_hour: Annotated[float, Field(ge=0)] = 0.0
    kwh: Annotated[float, Field(ge=0)] = 0.0
    currency: str = "EUR"
    watts_per_core: Annotated[float, Field(gt=0)] = 10.0


class TaskSpec(Table):
    """A verifiable task: every key but `name`, `split` and `problems` is an option of `spoutnik.tasks.make`."""

    model_config = ConfigDict(extra="allow", frozen=True, strict=True)

    name: str
    split: Literal["train", "held-out"] = "train"
    problems: Positive | None = None

    @property
    def options(self) -> dict[str, Any]:
        return dict(self.model_extra or {})


class LearntTask(TaskSpec):
    """A task that something learns from: its held-out problems are for evaluations alone."""

    split: Literal["train"] = "train"


class ModelSpec(Table):
    """A model from one dial: depth fixes width, heads, experts and learning rate; any other key overrides that field of ModelConfig."""

    model_config = ConfigDict(extra="allow", frozen=True, strict=True)

    family: Literal["deepseek_v3", "llama"]
    depth: Positive

    @property
    def overrides(self) -> dict[str, Any]:
        return dict(self.model_extra or {})


class Source(Table):
    """One part of a corpus: traces of a task, or text (`builtin:english` or a path)."""

    task: LearntTask | None = None
    text: str | None = None
    weight: Annotated[float, Field(gt=0)] = 1.0

    @model_validator(mode="after")
    def one_of_both(self) -> Self:
        if (self.task is None) == (self.text is None):
            raise ValueError("a source has either `task` or `text`, not both and not neither")
        return self


class Balance(Table):
    """Load balancing of the experts without an auxiliary loss (arXiv 2412.19437, section 2.1.2)."""

    bias_update_rate: Annotated[float, Field(ge=0)] = 0.001
    sequence_loss: Annotated[float, Field(ge=0)] = 0.0001


class Optimised(StageBase):
    """What every stage that takes optimiser steps has."""

    steps: Positive
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    grad_clip: Annotated[float, Field(gt=0)] = 1.0
    max_bad_steps: Positive = 5
    """So many steps in a row with a non-finite loss or gradient end the run."""


class CorpusStage(StageBase):
    kind: Literal["corpus"] = "corpus"
    sources: Annotated[list[Source], Field(min_length=1)]
    tokens: Positive
    vocab_size: Annotated[int, Field(ge=300)]
    digits: Literal[1, 3] = 1


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


class RLStage(Optimised):
    """GRPO as published for R1 (arXiv 2501.12948): the defaults for clip, kl_coef and reference_every are the paper's."""

    kind: Literal["rl"] = "rl"
    from_: str = Field(alias="from")
    algorithm: Literal["grpo"] = "grpo"
    task: LearntTask
    prompts: Positive
    group: Annotated[int, Field(ge=2)]
    max_new_tokens: Positive
    temperature: Annotated[float, Field(gt=0)] = 1.0
    learning_rate: Annotated[float, Field(gt=0)]
    clip: Annotated[float, Field(gt=0)] = 10.0
    kl_coef: Annotated[float, Field(ge=0)] = 0.001
    reference_every: Positive = 400
    minibatches: Positive = 1
    language_weight: Annotated[float, Field(ge=0)] = 0.0
    format_weight: Annotated[float, Field(ge=0)] = 1.0
    dtype: Dtype = "float32"

    def inputs(self) -> dict[str, str]:
        return {"from": self.from_}

    @model_validator(mode="after")
    def consistent(self) -> Self:
        if self.prompts % self.minibatches:
            raise ValueError(f"prompts ({self.prompts}) must be a multiple of minibatches ({self.minibatches}): groups are never cut")
        return self


class SampleStage(StageBase):
    """Rejection sampling: writes samples.jsonl with what the verifier accepts. `from` is a model or a teacher."""

    kind: Literal["sample"] = "sample"
    from_: str = Field(alias="from")
    task: LearntTask
    problems: Positive
    samples_per_problem: Positive = 1
    temperature: Annotated[float, Field(ge=0)] = 1.0
    max_new_tokens: Positive
    keep: Literal["correct", "correct-and-faithful", "all"] = "correct"
    prefer: Literal["shortest", "first"] = "shortest"
    dtype: Dtype = "float32"

    def inputs(self) -> dict[str, str]:
        return {"from": self.from_}

    @model_validator(mode="after")
    def consistent(self) -> Self:
        if self.temperature == 0 and self.samples_per_problem > 1:
            raise ValueError("temperature = 0 gives the same sample every time: set samples_per_problem = 1 or a temperature above 0")
        return self


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


class DistillStage(Optimised):
    """Teaches the student `from`: by a teacher's verified samples (as SFT does), or on its own samples by reverse KL."""

    kind: Literal["distill"] = "distill"
    from_: str = Field(alias="from")
    mode: Literal["samples", "on-policy"]
    learning_rate: Annotated[float, Field(gt=0)]
    schedule: Literal["wsd", "cosine"] = "cosine"
    warmup: Fraction = 0.05
    dtype: Dtype = "float32"
    data: str | None = None
    batch_size: Positive | None = None
    chat_template: Literal["keep", "thinking"] = "keep"
    """"thinking" gives a student of the ChatML family a template that opens the thinking, as R1's distilled models got one."""
    teacher: str | None = None
    task: LearntTask | None = None
    prompts: Positive | None = None
    max_new_tokens: Positive | None = None
    temperature: Annotated[float, Field(gt=0)] | None = None

    def inputs(self) -> dict[str, str]:
        return {key: value for key, value in (("from", self.from_), ("data", self.data), ("teacher", self.teacher)) if value is not None}

    @model_validator(mode="after")
    def consistent(self) -> Self:
        needs = {"samples": ["data", "batch_size"], "on-policy": ["teacher", "task", "prompts", "max_new_tokens", "temperature"]}
        if missing := [key for key in needs[self.mode] if getattr(self, key) is None]:
            raise ValueError(f"mode = '{self.mode}' needs `{missing[0]}`")
        other = "on-policy" if self.mode == "samples" else "samples"
        if foreign := [key for key in needs[other] if getattr(self, key) is not None]:
            raise ValueError(f"`{foreign[0]}` belongs to mode = '{other}', not to '{self.mode}': leave it out or change the mode")
        if self.mode == "on-policy" and self.chat_template != "keep":
            raise ValueError("`chat_template` belongs to mode = 'samples': on its own samples a student keeps its teacher's format")
        return self


class EvalStage(StageBase):
    kind: Literal["eval"] = "eval"
    models: Annotated[list[str], Field(min_length=1)]
    tasks: Annotated[list[TaskSpec], Field(min_length=1)]
    samples_per_problem: Positive = 1
    temperature: Annotated[float, Field(ge=0)] = 0.0
    max_new_tokens: Positive
    dtype: Dtype = "float32"

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
        return self


class ReportStage(StageBase):
    kind: Literal["report"] = "report"


AnyStage = CorpusStage | PretrainStage | RLStage | SampleStage | JudgeStage | SFTStage | DistillStage | EvalStage | ReportStage
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
