"""The stage in which a teacher grades a student's answers."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from spoutnik.recipe.tables import Positive, StageBase


class JudgeStage(StageBase):
    """The student `from` answers the questions of a JSONL file, `teacher` grades the answers, and the best become samples.jsonl.

    With scale "0-10" the best answer to each question is kept if its grade is at least `keep_from`; with "a/b" the better of two.
    """

    kind: Literal["judge"] = "judge"
    from_: str = Field(alias="from")
    teacher: str
    questions: Annotated[str, Field(pattern=r"\.jsonl$")]
    rubric: Annotated[str, Field(min_length=1)]
    scale: Literal["0-10", "a/b"] = "0-10"
    keep_from: Annotated[int, Field(ge=0, le=10)] = 8
    problems: Positive | None = None
    """How many questions of the file, from its beginning; all of them unless it is said."""
    samples_per_problem: Positive = 2
    temperature: Annotated[float, Field(ge=0)] = 1.0
    max_new_tokens: Positive
    judge_tokens: Positive = 1024
    """The most tokens that the teacher may write about one answer."""
    judge_temperature: Annotated[float, Field(ge=0)] = 0.0
    """1.0 for models that refuse any other; it is then not sent."""

    def inputs(self) -> dict[str, str]:
        return {"from": self.from_, "teacher": self.teacher}

    @model_validator(mode="after")
    def consistent(self) -> Self:
        if self.temperature == 0 and self.samples_per_problem > 1:
            raise ValueError("temperature = 0 gives the same sample every time: set samples_per_problem = 1 or a temperature above 0")
        if self.scale == "a/b" and self.samples_per_problem != 2:
            raise ValueError("scale = 'a/b' compares two answers: set samples_per_problem = 2")
        if self.scale == "a/b" and "keep_from" in self.model_fields_set:
            raise ValueError("`keep_from` belongs to scale = '0-10': leave it out")
        return self
