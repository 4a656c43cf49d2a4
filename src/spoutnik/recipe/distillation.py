"""The stages of distillation: a teacher's distributions on disk, and the student that learns from it in one of three ways."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from spoutnik.recipe.tables import Dtype, Fraction, LearntTask, Optimised, Positive, StageBase

MODES = {
    "data": ("samples", "logits"),
    "batch_size": ("samples", "logits"),
    "chat_template": ("samples",),
    "teacher": ("logits", "on-policy"),
    "task": ("on-policy",),
    "prompts": ("on-policy",),
    "max_new_tokens": ("on-policy",),
    "temperature": ("on-policy",),
}
"""The modes that a key belongs to; they cannot do without it, but for OPTIONAL."""
OPTIONAL = (("samples", "chat_template"), ("logits", "teacher"))


class LogitsStage(StageBase):
    """Writes what the teacher `from` makes of the answers in `data` to disk, for `distill` without the teacher at hand."""

    kind: Literal["logits"] = "logits"
    from_: str = Field(alias="from")
    data: str
    top_k: Positive | None = None
    """How many of the likeliest tokens are kept at each place; as many as fit into 300 bytes unless it is said."""
    dtype: Dtype = "float32"

    def inputs(self) -> dict[str, str]:
        return {"from": self.from_, "data": self.data}


class DistillStage(Optimised):
    """Teaches the student `from`: by a teacher's verified samples (as SFT does), by its distributions over given answers (forward KL), or
    by its distributions over what the student itself writes (reverse KL)."""

    kind: Literal["distill"] = "distill"
    from_: str = Field(alias="from")
    mode: Literal["samples", "logits", "on-policy"]
    learning_rate: Annotated[float, Field(gt=0)]
    schedule: Literal["wsd", "cosine"] = "cosine"
    warmup: Fraction = 0.05
    dtype: Dtype = "float32"
    data: str | None = None
    batch_size: Positive | None = None
    chat_template: Literal["keep", "thinking"] = "keep"
    """"thinking" gives a student of the ChatML family a template that opens the thinking, as R1's distilled models got one."""
    teacher: str | Annotated[list[str], Field(min_length=1)] | None = None
    """On-policy also several: one for each part of a mixture, in its order."""
    task: LearntTask | None = None
    prompts: Positive | None = None
    max_new_tokens: Positive | None = None
    temperature: Annotated[float, Field(gt=0)] | None = None

    @property
    def teachers(self) -> list[str]:
        """Their names, as many as there are."""
        return [self.teacher] if isinstance(self.teacher, str) else self.teacher or []

    def inputs(self) -> dict[str, str]:
        several = isinstance(self.teacher, list)
        teachers = {f"teacher[{place}]" if several else "teacher": name for place, name in enumerate(self.teachers)}
        return {"from": self.from_, **({"data": self.data} if self.data is not None else {}), **teachers}

    @model_validator(mode="after")
    def consistent(self) -> Self:
        given = [key for key in MODES if getattr(self, key) not in (None, "keep")]
        needed = [key for key, modes in MODES.items() if self.mode in modes and (self.mode, key) not in OPTIONAL]
        if missing := [key for key in needed if key not in given]:
            raise ValueError(f"mode = '{self.mode}' needs `{missing[0]}`")
        if foreign := [key for key in given if self.mode not in MODES[key]]:
            modes = " or ".join(f"'{mode}'" for mode in MODES[foreign[0]])
            raise ValueError(f"`{foreign[0]}` belongs to mode = {modes}, not to '{self.mode}': leave it out or change the mode")
        if isinstance(self.teacher, list):
            self._check_teachers(self.teacher)
        return self

    def _check_teachers(self, teachers: list[str]) -> None:
        if self.mode != "on-policy":
            raise ValueError("`teacher` is a list only with mode = 'on-policy', one for each part of a mixture: name one teacher")
        parts = self.task.options.get("parts") if self.task is not None and self.task.name == "mixture" else None
        if not isinstance(parts, list) or len(parts) != len(teachers):
            found = f"has {len(parts)} parts" if isinstance(parts, list) else "is no mixture"
            raise ValueError(f"`teacher` lists {len(teachers)}, one for each part of a mixture, but the task {found}: name as many, or one")
