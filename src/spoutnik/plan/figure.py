"""A number with its reasons: what formula gave it, from which inputs, and who says so."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from spoutnik.errors import Phrase, UserError
from spoutnik.plan.uncertain import Number, Uncertain, middle

Status = Literal["disclosed", "claimed", "measured", "computed", "assumed"]
"""Who vouches: the maker in a report, a table or a data sheet (disclosed); somebody's word or the press (claimed); a measurement on this
machine or a published benchmark (measured); arithmetic (computed); nobody yet (assumed)."""
STATUSES: tuple[str, ...] = get_args(Status)


@dataclass(frozen=True)
class Input:
    """Something that a figure rests on and that is not worked out here."""

    name: str
    value: Number | str
    unit: str = ""
    source: str | Phrase = ""
    status: Status = "computed"

    def __post_init__(self) -> None:
        if self.status not in STATUSES:
            raise ValueError(f"status of {self.name} is {self.status!r}; it must be one of {', '.join(STATUSES)}")


@dataclass(frozen=True)
class Figure:
    """A result. `formula` is arithmetic in the names of `inputs`, as a person would check it."""

    name: str
    value: Number
    unit: str
    formula: str
    inputs: "tuple[Input | Figure, ...]" = ()
    note: str | Phrase = ""

    @property
    def middle(self) -> float:
        """The value, or the middle of its range."""
        return middle(self.value)

    def to_json(self) -> float | dict[str, float]:
        """A number, or {p10, p50, p90}."""
        return self.value.range().to_dict() if isinstance(self.value, Uncertain) else self.value

    def walk(self) -> "Iterator[Input | Figure]":
        """The figure and all that it rests on."""
        yield self
        for part in self.inputs:
            if isinstance(part, Figure):
                yield from part.walk()
            else:
                yield part


def find_figure(name: str, figures: Sequence[Figure]) -> Figure:
    """The figure of that name among these and what they rest on. Raises UserError naming those that there are."""
    import difflib

    known: dict[str, Figure] = {}
    for figure in figures:
        for part in figure.walk():
            if isinstance(part, Figure):
                known.setdefault(part.name, part)
    if name in known:
        return known[name]
    close = difflib.get_close_matches(name, known, n=3) or list(known)
    raise UserError("No figure {name!r} in this plan; there is {close}.", name=name, close=", ".join(close))
