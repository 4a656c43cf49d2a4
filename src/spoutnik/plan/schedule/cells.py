"""What a pipeline schedule is made of: how long a piece of work takes, the pieces in each device's order, and when each one ran."""

from dataclasses import dataclass
from typing import Literal

from spoutnik.errors import UserError

Kind = Literal["F", "B", "I", "W", "FB"]
"""Forward; full backward; its part for inputs; its part for weights; a forward and a full backward that run together."""


@dataclass(frozen=True)
class Durations:
    """Seconds (or any unit) that one microbatch takes on one stage."""

    forward: float
    backward: float
    """The whole of it: for inputs and for weights."""
    weights: float
    """The part of `backward` that makes the gradients of weights, which nobody waits for."""
    together: float | None = None
    """A forward and a full backward that hide each other's communication; None is their sum."""

    def __post_init__(self) -> None:
        if min(self.forward, self.backward, self.weights) < 0 or self.weights > self.backward:
            raise UserError(
                "Durations of F {forward:g}, B {backward:g}, W {weights:g} cannot be: none is negative, and W is part of B.",
                forward=self.forward,
                backward=self.backward,
                weights=self.weights,
            )

    def of(self, kind: Kind) -> float:
        """How long a piece of work of this kind takes."""
        if kind == "FB":
            return self.forward + self.backward if self.together is None else self.together
        return {"F": self.forward, "B": self.backward, "I": self.backward - self.weights, "W": self.weights}[kind]


@dataclass(frozen=True)
class Task:
    """One piece of work. `stage` counts along the model; a pair "FB" names its forward first and its backward in `beside`."""

    kind: Kind
    stage: int
    microbatch: int
    beside: tuple[int, int] | None = None
    """(stage, microbatch) of the backward of a pair."""

    def done(self) -> list[tuple[str, int, int]]:
        """What is done when it ends, as (F, I or W, stage, microbatch)."""
        if self.kind == "FB":
            assert self.beside is not None
            return [("F", self.stage, self.microbatch), ("I", *self.beside), ("W", *self.beside)]
        parts = "IW" if self.kind == "B" else self.kind
        return [(part, self.stage, self.microbatch) for part in parts]


@dataclass(frozen=True)
class Program:
    """What each device does, in its order, without times."""

    name: str
    stages: int
    microbatches: int
    devices: tuple[tuple[Task, ...], ...]
    copies: int
    """How many copies of the model's parameters there are: DualPipe has two."""


@dataclass(frozen=True)
class Cell:
    """A task with its place in time."""

    device: int
    start: float
    end: float
    task: Task


@dataclass(frozen=True)
class Timeline:
    """A program that ran."""

    program: Program
    cells: tuple[tuple[Cell, ...], ...]
    """For each device, in order of time."""
    busy: tuple[float, ...]

    @property
    def seconds(self) -> float:
        """From the first task's start to the last one's end."""
        return max(row[-1].end for row in self.cells)

    @property
    def idle(self) -> float:
        """The longest that a device waits between the first start and the last end of all devices: the bubble of a step that ends for all
        at once."""
        return max(self.seconds - busy for busy in self.busy)

    @property
    def idle_within(self) -> float:
        """The longest that a device waits between its own first start and last end: the bubble where each device goes on to the next step
        as soon as it is done (zero-bubble schedules, section 4 of their paper)."""
        return max(row[-1].end - row[0].start - busy for row, busy in zip(self.cells, self.busy, strict=True))

    @property
    def bubble(self) -> float:
        """The share of the time that the device with the least work waits."""
        return self.idle / self.seconds

    def in_flight(self) -> tuple[int, ...]:
        """For each device the most microbatch stages whose activations it holds at a time: from the start of the forward to the end of the
        gradients of weights."""
        return tuple(_most_held(row) for row in self.cells)


def _most_held(row: tuple[Cell, ...]) -> int:
    held = most = 0
    for cell in row:
        held += cell.task.kind in ("F", "FB")
        most = max(most, held)
        held -= cell.task.kind in ("B", "W", "FB")
    return most
