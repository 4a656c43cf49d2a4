"""Several tasks as one: each problem is drawn from one of them, by weight."""

import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from spoutnik.errors import UserError
from spoutnik.tasks.base import Problem, Task
from spoutnik.tasks.reward import find_answer

_PART = "mixture_part"


class Mixture:
    """`parts` are tables of a task's `name`, a `weight` (1), and the task's own options.

    A problem is its part's, split and content included: what is held out of a part is held out of the mixture.
    """

    name = "mixture"

    def __init__(self, make: Callable[..., Task], parts: Any) -> None:
        if not isinstance(parts, Sequence) or not parts or not all(isinstance(part, dict) and "name" in part for part in parts):
            raise UserError("task 'mixture': `parts` must be a list of tables with a `name` each, and perhaps a `weight`.")
        self.parts = [make(part["name"], **{key: value for key, value in part.items() if key not in ("name", "weight")}) for part in parts]
        self.weights = [part.get("weight", 1) for part in parts]
        self.graders: int = max(getattr(part, "graders", 1) for part in self.parts)
        for part, weight in zip(self.parts, self.weights, strict=True):
            if isinstance(weight, bool) or not isinstance(weight, int | float) or not 0 < weight < float("inf"):
                raise UserError(f"task 'mixture': the weight of {part.name!r} is {weight!r}; give a number above 0.")

    def problem(self, split: str, seed: int, index: int) -> Problem:
        (place,) = random.Random(f"mixture/{split}/{seed}/{index}").choices(range(len(self.parts)), self.weights)
        problem = self.parts[place].problem(split, seed, index)
        return replace(problem, data={**problem.data, _PART: place})

    def verify(self, problem: Problem, answer: str) -> bool:
        """The part that the problem came from decides."""
        return self._part(problem).verify(problem, answer)

    def extract(self, problem: Problem, content: str) -> str | None:
        """The answer where that part looks for it."""
        return find_answer(self._part(problem), problem, content)

    def trace(self, problem: Problem, rng: random.Random) -> str:
        return self._part(problem).trace(problem, rng)

    def place(self, problem: Problem) -> int:
        """Which of the parts a problem is from."""
        found: int = problem.data[_PART]
        return found

    def _part(self, problem: Problem) -> Task:
        return self.parts[self.place(problem)]
