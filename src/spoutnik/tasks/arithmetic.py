"""Arithmetic in one or more steps, written as countdown's traces write sums, so that a model can learn to calculate first."""

import random
from collections.abc import Sequence
from dataclasses import dataclass, field

from spoutnik.tasks import trees
from spoutnik.tasks.base import Draft, Problem, check_counts, check_operators, check_whole, draw
from spoutnik.tasks.values import same_answer


@dataclass
class Arithmetic:
    """`terms`: how many numbers an expression may have, drawn from [low, high]; every intermediate value is a positive integer."""

    terms: Sequence[int] = (2, 3, 4)
    low: int = 1
    high: int = 99
    operators: str = "+-*/"
    name: str = field(default="arithmetic", init=False)

    def __post_init__(self) -> None:
        self.terms = check_counts(self.name, "terms", self.terms, 2, 8)
        check_whole(self.name, "low", self.low, 1, 999_999)
        check_whole(self.name, "high", self.high, self.low, 999_999)
        check_operators(self.name, self.operators)

    def problem(self, split: str, seed: int, index: int) -> Problem:
        return draw(self.name, split, seed, index, self._draft)

    def _draft(self, rng: random.Random) -> Draft | None:
        numbers = [rng.randint(self.low, self.high) for _ in range(rng.choice(self.terms))]
        tree = trees.random_tree(numbers, self.operators, rng)
        if tree is None:
            return None
        written = trees.expression(tree)
        return Draft(written, f"Calculate {written}.", str(tree.value), {"steps": trees.steps(tree)})

    def verify(self, problem: Problem, answer: str) -> bool:
        """Accepts the value, alone or as `expression = value` with the given expression."""
        written, equals, value = answer.rpartition("=")
        if equals and "".join(written.split()) != problem.prompt.removeprefix("Calculate ").removesuffix("."):
            return False
        return same_answer(problem.answer, value)

    def trace(self, problem: Problem, rng: random.Random) -> str:
        """The steps in the order of evaluation, all true: there is one way, so `rng` is not used."""
        return f"{', '.join(problem.data['steps'])}\n</think>\n<answer>{problem.answer}</answer>"
