"""A curriculum by pass rate: problems that the model solves now and then are asked more often than those it always or never solves.

A group of G answers to a problem that is solved with probability p says most where p (1 - p), the variance of its reward, is largest. So
problems of a pool are drawn with weights p (1 - p) (arXiv 2603.11178 weighs its losses so), where p is estimated from the answers so far:
(right + 1) / (answers + 2), a problem never asked counting as one half. Older answers count less at every new look, for the policy moves.
"""

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass, field

MEMORY = 0.5
"""What earlier answers to a problem are worth beside new ones."""


@dataclass
class PassRates:
    """Right answers and all answers to each problem of a pool, both faded by MEMORY; the state of a curriculum."""

    right: list[float] = field(default_factory=list)
    answers: list[float] = field(default_factory=list)

    @classmethod
    def unknown(cls, problems: int) -> "PassRates":
        """Of a pool of which nothing was asked yet."""
        return cls([0.0] * problems, [0.0] * problems)

    def rate(self, problem: int) -> float:
        """The estimate of p, strictly between 0 and 1."""
        return (self.right[problem] + 1) / (self.answers[problem] + 2)

    def draw(self, count: int, seed: int, without: Sequence[int] = ()) -> list[int]:
        """`count` different problems by weight p (1 - p), none of them in `without`; the same state and seed draw the same ones.

        Each problem gets a key u^(1/w), u uniform, and the largest keys are taken (Efraimidis and Spirakis 2006).
        """
        rng, left_out = random.Random(seed), set(without)
        keys = []
        for problem in range(len(self.right)):
            uniform, rate = 1.0 - rng.random(), self.rate(problem)
            if problem not in left_out:
                keys.append((math.log(uniform) / (rate * (1 - rate)), problem))
        return [problem for _, problem in sorted(keys, reverse=True)[:count]]

    def note(self, problem: int, right: int, answers: int) -> None:
        """New answers to a problem."""
        self.right[problem] = MEMORY * self.right[problem] + right
        self.answers[problem] = MEMORY * self.answers[problem] + answers

    def metrics(self) -> dict[str, float]:
        """pool_rate: mean estimate over the problems asked so far; pool_seen: their share of the pool."""
        asked = [problem for problem, answers in enumerate(self.answers) if answers]
        return {
            "pool_rate": sum(map(self.rate, asked)) / max(len(asked), 1),
            "pool_seen": len(asked) / len(self.answers),
        }
