"""What stages are made of: tables that refuse unknown keys and wrong types, and what several kinds of stage share."""

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

Fraction = Annotated[float, Field(ge=0, le=1)]
Dtype = Literal["float32", "bfloat16"]
"""What is computed in; weights and optimiser states are float32."""
Positive = Annotated[int, Field(gt=0)]
Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]*$", max_length=64)]


class Table(BaseModel):
    """A TOML table: its keys are known, its types exact (an integer may stand for a float), its values frozen."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, populate_by_name=True, validate_default=True)


class Price(Table):
    """What the ledger charges. `watts_per_core` is used, and named in the report, only where the machine has no energy counter.

    `accelerator_hour` and `accelerator_watts` are charged for as long as a stage runs, where an accelerator computes.
    """

    cpu_core_hour: Annotated[float, Field(ge=0)] = 0.0
    accelerator_hour: Annotated[float, Field(ge=0)] = 0.0
    accelerator_watts: Annotated[float, Field(ge=0)] = 0.0
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
    """Load balancing of the experts: V3's bias and sequence-wise loss (arXiv 2412.19437, section 2.1.2), and a loss over the batch."""

    bias_update_rate: Annotated[float, Field(ge=0)] = 0.001
    sequence_loss: Annotated[float, Field(ge=0)] = 0.0001
    batch_loss: Annotated[float, Field(ge=0)] = 0.0


class StageBase(Table):
    name: Name
    minutes: Annotated[float, Field(ge=0)] = 0.0
    """How long the stage is planned to take on the machine that the recipe was written for; shown, never enforced."""

    def inputs(self) -> dict[str, str]:
        """Key of the recipe -> the stage, model or file that it names."""
        return {}


class Optimised(StageBase):
    """What every stage that takes optimiser steps has."""

    steps: Positive
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    grad_clip: Annotated[float, Field(gt=0)] = 1.0
    max_bad_steps: Positive = 5
    """So many steps in a row with a non-finite loss or gradient end the run."""
