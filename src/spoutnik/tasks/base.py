"""What a task is, and how its problems are drawn so that training never sees a held-out one."""

import hashlib
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

from spoutnik.errors import UserError

TRAIN, HELD_OUT = "train", "held-out"
SPLITS = (TRAIN, HELD_OUT)
_HELD_OUT_ONE_IN = 8
_MOST_DRAWS = 10_000


@dataclass(frozen=True)
class Problem:
    """One question with what is needed to grade an answer to it. `data` is JSON-able."""

    task: str
    split: str
    seed: int
    index: int
    prompt: str
    answer: str
    data: dict[str, Any] = field(default_factory=dict)


class Task(Protocol):
    """A source of problems and the judge of their answers.

    One that judges in other processes may say how many at once: `graders`. One whose answers also stand elsewhere than in an answer block
    says where: `extract(problem, content)`, see `reward.find_answer`.
    """

    @property
    def name(self) -> str: ...

    def problem(self, split: str, seed: int, index: int) -> Problem:
        """The same arguments give the same problem on every machine; "train" and "held-out" share no content, whatever the seeds."""
        ...

    def verify(self, problem: Problem, answer: str) -> bool:
        """Whether `answer` (untrusted text) is right. Raises when it could not be decided; `reward.grade` counts that as a fault."""
        ...

    def trace(self, problem: Problem, rng: random.Random) -> str:
        """One written attempt, as a document that starts after an opening `<think>`; tasks that have none raise UserError."""
        ...


@dataclass(frozen=True)
class Draft:
    """A problem before it has a place. `content` is its canonical form: drafts that are the same problem to a solver share it."""

    content: str
    prompt: str
    answer: str
    data: dict[str, Any] = field(default_factory=dict)


def split_of(task: str, content: str) -> str:
    """The split that owns this content: a keyed hash holds out one problem in 8, for every seed, option and version alike."""
    digest = hashlib.blake2b(f"{task}\n{content}".encode(), digest_size=8, key=b"spoutnik.tasks.split").digest()
    return HELD_OUT if int.from_bytes(digest, "big") % _HELD_OUT_ONE_IN == 0 else TRAIN


def draw(task: str, split: str, seed: int, index: int, generate: Callable[[random.Random], Draft | None]) -> Problem:
    """Draws drafts until one belongs to `split`. `generate` returns None for a draw that came to nothing."""
    check_split(split)
    rng = random.Random(f"{task}/{split}/{seed}/{index}")
    for _ in range(_MOST_DRAWS):
        draft = generate(rng)
        if draft is not None and split_of(task, draft.content) == split:
            return Problem(task, split, seed, index, draft.prompt, draft.answer, draft.data)
    raise UserError(
        f"task {task!r} found no {split} problem in {_MOST_DRAWS} draws; widen its options (more or larger numbers, more operators)."
    )


def check_split(split: str) -> None:
    """Raises UserError for a split that does not exist."""
    if split not in SPLITS:
        raise UserError(f"there is no split {split!r}; use one of {', '.join(map(repr, SPLITS))}.")


def no_trace(task: str) -> UserError:
    """The error of a task that cannot write worked attempts."""
    return UserError(
        f"task {task!r} has no worked traces; take them from a teacher, or use a task that writes its own (countdown, arithmetic, words)."
    )


def check_whole(task: str, option: str, value: object, least: int, most: int) -> int:
    """Returns `value` if it is an integer within [least, most], else raises UserError naming the option."""
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise UserError(f"task {task!r}: option {option} is {value!r}; give a whole number from {least} to {most}.")
    return value


def check_counts(task: str, option: str, value: object, least: int, most: int) -> tuple[int, ...]:
    """Returns `value` as a tuple if it is a non-empty list of integers within [least, most], else raises UserError."""
    if not isinstance(value, list | tuple) or not value:
        raise UserError(f"task {task!r}: option {option} is {value!r}; give a list of whole numbers from {least} to {most}.")
    return tuple(check_whole(task, option, item, least, most) for item in value)


def check_operators(task: str, value: object) -> str:
    """Returns `value` if it is a non-empty string over + - * / without repeats, else raises UserError."""
    if not isinstance(value, str) or not value or len(set(value)) != len(value) or not set(value) <= set("+-*/"):
        raise UserError(f'task {task!r}: option operators is {value!r}; give each wanted operator of +-*/ once, for example "+-".')
    return value
