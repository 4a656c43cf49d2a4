"""Worked attempts at reasoning-gym's problems are right, and say nothing but what follows."""

import random

import pytest

from spoutnik.errors import UserError
from spoutnik.tasks import make
from spoutnik.tasks.faithful import check_steps
from spoutnik.tasks.gym_traces import TRACES
from spoutnik.tasks.reward import extract_answer, is_well_formed

pytest.importorskip("reasoning_gym")


@pytest.mark.parametrize("dataset", TRACES)
def test_every_attempt_is_right_and_well_formed(dataset: str) -> None:
    task = make(f"gym:{dataset}")
    for index in range(40):
        problem = task.problem("train", 0, index)
        attempt = task.trace(problem, random.Random(0))
        assert is_well_formed(attempt, thinking=True)
        answer = extract_answer(attempt.split("</think>")[1])
        assert answer is not None
        assert task.verify(problem, answer), (problem.prompt, attempt)


@pytest.mark.parametrize("dataset", ["chain_sum", "leg_counting"])
def test_written_sums_are_true(dataset: str) -> None:
    task = make(f"gym:{dataset}")
    for index in range(40):
        check = check_steps(task.trace(task.problem("train", 1, index), random.Random(0)).split("</think>")[0])
        assert check.steps == check.right > 0


def test_a_dataset_without_traces_says_so() -> None:
    task = make("gym:sudoku")
    with pytest.raises(UserError, match="no worked traces"):
        task.trace(task.problem("train", 0, 0), random.Random(0))
