"""Figures that others published, with date and source: published.toml, or a file of that form."""

import tomllib
from collections.abc import Sequence
from datetime import date
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, ValidationError

from spoutnik.errors import UserError
from spoutnik.recipe.tables import Table

Source = Annotated[str, Field(pattern=r"^https?://\S+$")]


class PublishedPrice(Table):
    """Of a million tokens. `as_of` is None where the source has no date."""

    prompt: Annotated[float, Field(gt=0)]
    completion: Annotated[float, Field(gt=0)]
    currency: Annotated[str, Field(pattern=r"^[A-Z]{3}$")]
    by: Literal["maker", "host"]
    as_of: date | None = None
    source: Source


class PublishedScore(Table):
    """In per cent. `by` is who published it, which need not be the model's maker."""

    benchmark: Annotated[str, Field(min_length=1)]
    value: Annotated[float, Field(ge=0, le=100)]
    by: Annotated[str, Field(min_length=1)]
    source: Source


class PublishedModel(Table):
    name: Annotated[str, Field(min_length=1)]
    maker: Annotated[str, Field(min_length=1)]
    released: date
    released_source: Source
    price: PublishedPrice | None = None
    scores: Annotated[list[PublishedScore], Field(min_length=1)]

    def score(self, benchmark: str) -> PublishedScore | None:
        """What was published for it on this benchmark, whatever the case of its name."""
        return next((score for score in self.scores if score.benchmark.lower() == benchmark.lower()), None)


class _File(Table):
    model: list[PublishedModel]


def read_published(path: Path | None = None) -> list[PublishedModel]:
    """The models of a file, by default of the one that ships with Spoutnik. Raises UserError for what does not fit the form."""
    where = str(path or "published.toml")
    try:
        text = path.read_text(encoding="utf-8") if path else files(__package__).joinpath("published.toml").read_text(encoding="utf-8")
        return _File.model_validate(tomllib.loads(text)).model
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UserError(f"{where} cannot be read as TOML ({error}); give a file with a [[model]] table for each model.") from None
    except ValidationError as error:
        fault = error.errors()[0]
        place = ".".join(map(str, fault["loc"]))
        raise UserError(f"{where}: {place}: {fault['msg']}; published.toml in spoutnik/evaluate shows the form.") from None


def benchmarks(models: Sequence[PublishedModel]) -> list[str]:
    """The names of all benchmarks that some model has a score for."""
    return list(dict.fromkeys(score.benchmark for model in models for score in model.scores))
