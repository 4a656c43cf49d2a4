"""Problems are pure functions of their place, and no seed or option leaks a held-out one into training."""

import itertools
import json
import random

import pytest

from spoutnik.errors import UserError
from spoutnik.tasks import make, names
from spoutnik.tasks.base import Draft, draw, split_of
from spoutnik.tasks.reward import grade

OPTIONS = {
    "countdown": {"numbers": [2], "low": 1, "high": 12, "operators": "+-"},
    "arithmetic": {"terms": [2], "low": 1, "high": 12},
    "letters": {"kinds": ["count", "sort"], "length": [2], "items": [2]},
    "words": {"steps": [2]},
}


@pytest.mark.parametrize("name", names())
def test_the_same_place_gives_the_same_problem_in_a_new_task(name: str) -> None:
    for split, seed, index in itertools.product(("train", "held-out"), (0, 1), range(5)):
        assert make(name).problem(split, seed, index) == make(name).problem(split, seed, index)


@pytest.mark.parametrize("name", names())
def test_places_differ(name: str) -> None:
    task = make(name)
    prompts = {task.problem(split, seed, index).prompt for split in ("train", "held-out") for seed in (0, 1) for index in range(10)}
    assert len(prompts) >= 36


@pytest.mark.parametrize("name", names())
def test_train_and_held_out_share_no_prompt_even_when_problems_are_few(name: str) -> None:
    task = make(name, **OPTIONS[name])
    train = {task.problem("train", seed, index).prompt for seed in (0, 1) for index in range(400)}
    held_out = {task.problem("held-out", seed, index).prompt for seed in (0, 1) for index in range(100)}
    assert train
    assert held_out
    assert not train & held_out


def test_countdown_splits_share_no_puzzle_whatever_the_order_of_its_numbers() -> None:
    def puzzles(split: str, **options: object) -> set[tuple[object, ...]]:
        task = make("countdown", numbers=[3], high=6, **options)
        problems = (task.problem(split, seed, index) for seed in (0, 1) for index in range(400))
        return {(*sorted(problem.data["numbers"]), problem.data["target"]) for problem in problems}

    assert not puzzles("train") & puzzles("held-out", operators="+-")
    assert not puzzles("train", operators="+") & puzzles("held-out")


def test_one_content_in_eight_is_held_out() -> None:
    held_out = sum(split_of("countdown", str(content)) == "held-out" for content in range(8_000))
    assert 900 < held_out < 1_100


def test_the_split_of_a_content_never_changes() -> None:
    owners = [split_of("countdown", f"17 25 8 -> {target}") for target in range(16)]
    assert [target for target, owner in enumerate(owners) if owner == "held-out"] == [9, 14]


@pytest.mark.parametrize("name", names())
def test_problems_survive_json_and_are_solved_by_their_reference_answer(name: str) -> None:
    task = make(name)
    for index in range(20):
        problem = task.problem("train", 0, index)
        assert json.loads(json.dumps(problem.data)) == problem.data
        assert task.verify(problem, problem.answer)
        assert not task.verify(problem, "")
        assert not task.verify(problem, problem.answer + "1")


@pytest.mark.parametrize("name", names())
def test_traces_earn_every_reward(name: str) -> None:
    task, rng = make(name), random.Random(0)
    for index in range(20):
        problem = task.problem("train", 0, index)
        reward = grade(task, problem, task.trace(problem, rng), thinking=True)
        assert (reward.accuracy, reward.format, reward.faulted) == (1.0, 1.0, False)


def test_an_unknown_split_is_refused() -> None:
    with pytest.raises(UserError, match="held-out"):
        make("countdown").problem("test", 0, 0)


def test_a_generator_without_problems_ends_in_an_error() -> None:
    with pytest.raises(UserError, match="found no train problem"):
        draw("none", "train", 0, 0, lambda rng: None)
    owner = split_of("one", "only")
    with pytest.raises(UserError, match="found no"):
        draw("one", "train" if owner == "held-out" else "held-out", 0, 0, lambda rng: Draft("only", "", ""))
