"""The second judge agrees with the verifiers on honest answers, and not where a verifier is gamed."""

import itertools
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spoutnik.tasks import make
from spoutnik.tasks.base import Problem
from spoutnik.tasks.recheck import second_verdict
from spoutnik.tasks.reward import extract_answer

COUNTDOWN = make("countdown", numbers=[3], low=1, high=20, operators="+-*/", target_max=60)


def answered(answer, thinking="thought"):
    return f"{thinking}\n</think>\n<answer>{answer}</answer>"


@pytest.mark.parametrize("name", ["countdown", "arithmetic", "words", "letters"])
def test_both_judges_accept_the_answers_of_our_own_tasks_and_reject_those_of_other_problems(name):
    task = make(name)
    problems = [task.problem("train", 0, index) for index in range(60)]
    for problem, other in itertools.pairwise(problems):
        trace = task.trace(problem, random.Random(1))
        answer = extract_answer(trace.rpartition("</think>")[2])
        assert second_verdict(problem, trace) == task.verify(problem, answer)
        assert second_verdict(problem, answered(other.answer)) == task.verify(problem, other.answer)
        assert second_verdict(problem, answered(problem.answer)) is True


@given(st.integers(0, 200), st.text(alphabet="0123456789+-*/() =", max_size=24))
def test_both_judges_of_countdown_agree_on_any_text(index, text):
    problem = COUNTDOWN.problem("train", 0, index)
    assert second_verdict(problem, answered(text)) == (bool(text.strip()) and COUNTDOWN.verify(problem, text.strip()))


@pytest.mark.parametrize("text", ["", "7", answered("7") + answered("7"), "</think>7", answered("6 7 8"), answered("about 8")])
def test_an_answer_that_is_missing_doubled_or_hidden_among_others_is_wrong(text):
    assert second_verdict(Problem("jsonl:x", "train", 0, 0, "3 + 4?", "7"), text) is False


@pytest.mark.parametrize(
    ("reference", "answer", "expected"),
    [("1,000", "1000", True), ("7", "7.0", True), ("7", "x = 7", True), ("[1, 2]", "1,2", True), ("ab", "AB", False), ("1/2", "0.5", True)],
)
def test_numbers_lists_words_and_mathematics(reference, answer, expected):
    assert second_verdict(Problem("jsonl:x", "train", 0, 0, "?", reference), answered(answer)) is expected


@pytest.mark.parametrize("task", ["gym:sudoku", "code:exercises.jsonl", "a task of tomorrow", "mixture"])
def test_it_has_no_opinion_of_what_it_does_not_know(task):
    problem = Problem(task, "train", 0, 0, "?", "", {"prompt": "", "entry_point": "f", "test": "", "protection": "full"})
    assert second_verdict(problem, "</think>```python\nx = 1\n```" if task.startswith("code:") else answered("7")) is None
