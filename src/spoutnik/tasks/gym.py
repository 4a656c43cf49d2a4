"""reasoning-gym's generators as tasks: `gym:leg_counting`, `gym:sudoku`, ... Their options pass through."""

import dataclasses
import functools
import random
from typing import Any

from spoutnik.errors import UserError
from spoutnik.tasks.base import Draft, Problem, draw
from spoutnik.tasks.gym_traces import write_trace
from spoutnik.tasks.workers import VerifierPool, shared_pool

# Items are drawn from this many unless the option `size` says otherwise; some generators prepare all of theirs at the start.
_SIZE = 10_000


class GymTask:
    """A dataset of reasoning-gym: problems are drawn from its items; answers are scored in a worker process, as some scorers are slow.

    Problems are pure as far as the dataset is: with reasoning-gym 0.1.25, `isomorphic_strings`, `polynomial_multiplication` and
    `ransom_note` also depend on Python's hash seed, so fix PYTHONHASHSEED to see the same ones again. Splits are disjoint all the same.
    """

    def __init__(self, dataset: str, options: dict[str, Any], pool: VerifierPool | None = None) -> None:
        self.name = f"gym:{dataset}"
        self.dataset, self.options, self.pool = dataset, {"seed": 0, "size": _SIZE, **options}, pool
        self._items = _create(dataset, self.options)
        self._item = functools.lru_cache(maxsize=256)(self._items.__getitem__)  # a group of answers is graded with one item

    def problem(self, split: str, seed: int, index: int) -> Problem:
        return draw(self.name, split, seed, index, self._draft)

    def _draft(self, rng: random.Random) -> Draft:
        place = rng.randrange(self.options["size"])
        item = self._item(place)
        return Draft(item["question"], item["question"], item["answer"] or "", {"item": place})

    def verify(self, problem: Problem, answer: str) -> bool:
        """Right is a full score. Where many answers are right, a dataset may have no reference: `problem.answer` is then ""."""
        entry = self._item(problem.data["item"])
        return (self.pool or shared_pool()).verify("spoutnik.tasks.gym_judge:is_right", self.dataset, self.options, entry, answer)

    def trace(self, problem: Problem, rng: random.Random) -> str:
        return write_trace(self.dataset, self._item(problem.data["item"]))


def _create(dataset: str, options: dict[str, Any]) -> Any:
    try:
        import reasoning_gym
        from reasoning_gym.factory import DATASETS
    except ImportError as error:
        raise UserError("tasks named gym:... need the package reasoning-gym; install it with `pip install 'spoutnik[rewards]'`.") from error
    if dataset not in DATASETS:
        raise UserError(f"reasoning-gym has no dataset {dataset!r}; see its gallery: {', '.join(sorted(DATASETS))}.")
    known = [field.name for field in dataclasses.fields(DATASETS[dataset][1])]
    for option in options:
        if option not in known:
            raise UserError(f"task 'gym:{dataset}' has no option {option!r}; it takes {', '.join(known)}.")
    try:
        return reasoning_gym.create_dataset(dataset, **options)
    except (AssertionError, TypeError, ValueError) as error:
        raise UserError(f"task 'gym:{dataset}' refused its options ({error}); change them.") from error
