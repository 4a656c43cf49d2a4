"""What every table of a recipe has, and every stage."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

Fraction = Annotated[float, Field(ge=0, le=1)]
Dtype = Literal["float32", "bfloat16"]  # of products; weights and optimiser states are float32
Positive = Annotated[int, Field(gt=0)]
Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]*$", max_length=64)]


class Table(BaseModel):
    """A TOML table: its keys are known, its types exact (an integer may stand for a float), its values frozen."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, populate_by_name=True, validate_default=True)


class StageBase(Table):
    name: Name
    minutes: Annotated[float, Field(ge=0)] = 0.0
    """How long it is planned to take on the machine that the recipe was written for; shown, never enforced."""

    def inputs(self) -> dict[str, str]:
        """Key of the recipe -> the stage, model or file that it names."""
        return {}
