"""Letter and list puzzles: the reference answers are right, near misses are not."""

import random
import re

import pytest

from spoutnik.tasks import make
from spoutnik.tasks.letters import KINDS


def solve(prompt: str) -> str:
    """An independent solution, read from the prompt alone."""
    quoted = re.findall(r'"([^"]+)"', prompt)
    if prompt.startswith("Write"):
        return "".join(reversed(quoted[0]))
    if prompt.startswith("How many"):
        return str(quoted[1].count(quoted[0]))
    if prompt.startswith("Sort"):
        return ", ".join(map(str, sorted(map(int, re.findall(r"\d+", prompt)))))
    return "".join(word[-1] for word in quoted[0].split())


@pytest.mark.parametrize("kind", KINDS)
def test_reference_answers_are_right(kind: str) -> None:
    task = make("letters", kinds=[kind])
    for index in range(50):
        problem = task.problem("train", 0, index)
        assert problem.answer == solve(problem.prompt)
        assert problem.answer in task.trace(problem, random.Random(0)).split("</think>")[1]


def test_options_bound_words_and_lists() -> None:
    words = [make("letters", kinds=["reverse"], length=[3]).problem("train", 0, index).answer for index in range(20)]
    assert {len(word) for word in words} == {3}
    lists = [make("letters", kinds=["sort"], items=[4]).problem("train", 0, index).answer for index in range(20)]
    assert {len(numbers.split(", ")) for numbers in lists} == {4}


def test_lists_may_be_written_in_several_ways_but_not_in_another_order() -> None:
    task = make("letters", kinds=["sort"], items=[3])
    problem = task.problem("train", 0, 0)
    a, b, c = problem.answer.split(", ")
    for answer in (f"{a},{b},{c}", f"[{a}, {b}, {c}]", f"{a} {b} {c}"):
        assert task.verify(problem, answer)
    for answer in (f"{a}, {b}", f"{a}{b}{c}", f"{a}, {b}, {c}, {c}", f"{b}, {a}, {c}" if a != b else ""):
        assert not task.verify(problem, answer)


def test_a_word_must_match_to_the_letter() -> None:
    task = make("letters", kinds=["reverse"])
    problem = task.problem("train", 0, 0)
    for answer in (problem.answer.upper(), problem.answer[::-1] + "x", " ".join(problem.answer), f'"{problem.answer}"'):
        assert not task.verify(problem, answer)
