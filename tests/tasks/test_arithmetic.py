"""Arithmetic: the steps are true, in the order of evaluation, and end in the answer."""

import random

import pytest

from spoutnik.tasks import make
from spoutnik.tasks.expression import parse
from spoutnik.tasks.faithful import check_steps, supported


@pytest.mark.parametrize("terms", [2, 3, 4, 8])
def test_steps_are_true_and_reach_the_value_of_the_prompt(terms: int) -> None:
    task = make("arithmetic", terms=[terms], high=30)
    for index in range(50):
        problem = task.problem("train", 0, index)
        value = parse(problem.prompt.removeprefix("Calculate ").removesuffix(".")).value
        trace = task.trace(problem, random.Random(0))
        check = check_steps(trace)
        assert problem.answer == str(value)
        assert check.steps == check.right == terms - 1
        assert supported(trace, value)


def test_answers_are_the_value_alone_or_the_true_equation() -> None:
    task = make("arithmetic", terms=[2], operators="+")
    problem = task.problem("train", 0, 0)
    written = problem.prompt.removeprefix("Calculate ").removesuffix(".")
    assert task.verify(problem, problem.answer)
    assert task.verify(problem, f"{written.replace('+', ' + ')} = {problem.answer}")
    assert not task.verify(problem, written)
    assert not task.verify(problem, f"{written}={int(problem.answer) + 1}")
    assert not task.verify(problem, f"0+{problem.answer}={problem.answer}")
    assert not task.verify(problem, f"{int(problem.answer) + 1} or {problem.answer}")
