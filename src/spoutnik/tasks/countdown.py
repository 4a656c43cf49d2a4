"""Countdown: reach a target from given numbers, each used exactly once. The smallest puzzle that needs search."""

import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

from spoutnik.errors import UserError
from spoutnik.tasks import trees
from spoutnik.tasks.base import Draft, Problem, check_counts, check_operators, check_whole, draw
from spoutnik.tasks.expression import ExpressionError, parse


@dataclass(frozen=True)
class TraceOptions:
    """How an attempt is written.

    `efforts`: the attempt draws one of these evenly and gives up after so many candidates, answering with the last one; 0 means never.
    `careless`: chance that a candidate which misses the target is claimed to hit it and becomes the answer.
    """

    efforts: tuple[int, ...] = (0,)
    careless: float = 0.0

    @classmethod
    def read(cls, options: Mapping[str, Any]) -> "TraceOptions":
        unknown = set(options) - {"efforts", "careless"}
        if unknown:
            raise UserError(f"task 'countdown': trace_options has no {sorted(unknown)[0]!r}; it takes efforts and careless.")
        careless = options.get("careless", 0.0)
        if isinstance(careless, bool) or not isinstance(careless, int | float) or not 0 <= careless <= 1:
            raise UserError(f"task 'countdown': trace_options.careless is {careless!r}; give a share from 0 to 1.")
        return cls(check_counts("countdown", "trace_options.efforts", options.get("efforts", (0,)), 0, 10_000), float(careless))


@dataclass
class Countdown:
    """`numbers`: how many numbers a puzzle may have; they are drawn from [low, high]. Targets lie in [1, target_max]."""

    numbers: Sequence[int] = (3, 4)
    low: int = 1
    high: int = 99
    operators: str = "+-*/"
    target_max: int = 999
    trace_options: Mapping[str, Any] = field(default_factory=dict)
    name: str = field(default="countdown", init=False)

    def __post_init__(self) -> None:
        self.numbers = check_counts(self.name, "numbers", self.numbers, 2, 6)
        check_whole(self.name, "low", self.low, 1, 9_999)
        check_whole(self.name, "high", self.high, self.low, 9_999)
        check_whole(self.name, "target_max", self.target_max, 1, 10**9)
        check_operators(self.name, self.operators)
        self._tracing = TraceOptions.read(self.trace_options)

    def problem(self, split: str, seed: int, index: int) -> Problem:
        return draw(self.name, split, seed, index, self._draft)

    def _draft(self, rng: random.Random) -> Draft | None:
        numbers = [rng.randint(self.low, self.high) for _ in range(rng.choice(self.numbers))]
        tree = trees.random_tree(numbers, self.operators, rng)
        if tree is None or tree.value > self.target_max:
            return None
        return Draft(
            content=f"{' '.join(map(str, sorted(numbers)))} -> {tree.value}",
            prompt=f"Make {tree.value} from {', '.join(map(str, numbers))} using {_listed(self.operators)}, each number once.",
            answer=trees.expression(tree),
            data={"numbers": numbers, "target": tree.value, "operators": self.operators},
        )

    def verify(self, problem: Problem, answer: str) -> bool:
        """Accepts `expression` and `expression = target`: all the numbers, each once, only the given operators, exact arithmetic."""
        written, equals, claimed = answer.partition("=")
        target = problem.data["target"]
        if equals and claimed.strip(" ") != str(target):
            return False
        try:
            expression = parse(written)
        except ExpressionError:
            return False
        return (
            Counter(expression.numbers) == Counter(map(Fraction, problem.data["numbers"]))
            and set(expression.operators) <= set(problem.data["operators"])
            and expression.value == target
        )

    def trace(self, problem: Problem, rng: random.Random, effort: int | None = None) -> str:
        """An honest search: distinct random candidates, one a line, each as true elementary sums, then the answer.

        A line ends with the distance of what was reached from the target and a verdict: `25+17=42, 42-8=34, 40-34=6 no`. Small models
        learn to subtract long before they learn to compare.

        `effort` candidates at most; None draws from `trace_options`, whose default is to go on until the target is hit.
        """
        most = rng.choice(self._tracing.efforts) if effort is None else check_whole(self.name, "effort", effort, 1, 10_000)
        lines: list[str] = []
        seen: set[str] = set()
        while True:
            tree = _fresh_tree(problem, seen, rng)
            claimed = tree.value == problem.data["target"] or rng.random() < self._tracing.careless
            lines.append(f"{', '.join(trees.steps(tree))}, {_distance(tree.value, problem.data['target'])} {'yes' if claimed else 'no'}")
            if claimed or len(lines) == most:
                return "\n".join(lines) + f"\n</think>\n<answer>{trees.expression(tree)}</answer>"

    def solutions(self, problem: Problem) -> list[str]:
        """Every different expression that solves the problem; milliseconds for 4 numbers, up to minutes for 6."""
        found = trees.all_trees(problem.data["numbers"], problem.data["operators"])
        return [trees.expression(tree) for tree in found if tree.value == problem.data["target"]]


def _fresh_tree(problem: Problem, seen: set[str], rng: random.Random) -> trees.Tree:
    """A random tree whose key is not in `seen`, and adds it. A solvable problem runs out of fresh trees only after its solutions."""
    while True:
        tree = trees.random_tree(problem.data["numbers"], problem.data["operators"], rng)
        if tree is not None and tree.key not in seen:
            seen.add(tree.key)
            return tree


def _distance(value: int, target: int) -> str:
    """The greater minus the smaller, written out."""
    greater, smaller = max(value, target), min(value, target)
    return f"{greater}-{smaller}={greater - smaller}"


def _listed(operators: str) -> str:
    *first, last = tuple(operators)
    return f"{', '.join(first)} and {last}" if first else last
