"""Bodies of requests whose types are exact, so that what a dialect's document says is what is accepted."""

from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict


class Strict(BaseModel):
    """Types are exact: "5" is no number, and 1 is not true. Unknown fields are ignored."""

    model_config = ConfigDict(strict=True)


def _whole(value: Any) -> Any:
    return int(value) if isinstance(value, float) and value.is_integer() else value


Whole = BeforeValidator(_whole)
"""Beside `int`: in JSON 5.0 is an integer, too."""
Integer = Annotated[int, Whole]
