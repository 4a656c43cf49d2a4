"""Answers on disk: none is lost, none is taken for another, and only what is missing is made."""

import dataclasses

import pytest

from spoutnik.evaluate.answers import Answered, AnswerFile
from spoutnik.tasks.base import Problem

PROBLEMS = [Problem("words", "held-out", 0, index, f"problem {index}", "7") for index in range(3)]


@pytest.fixture
def open_file(tmp_path):
    return lambda decisive=1: AnswerFile(tmp_path, "models/a b", "words", {"decisive": decisive})


def test_what_is_there_is_missing_no_more_in_a_later_process_either(open_file):
    file = open_file()
    assert file.missing(PROBLEMS[:2], 2) == [(0, 0), (0, 1), (1, 0), (1, 1)]
    answer = Answered(1, 0, "problem 1", "text \u2028 <answer>7</answer>", "7", "7", True, tokens=3, cost=5)
    file.add(answer)
    file.add(Answered(0, 0, "problem 0"))
    again = open_file()
    assert again.missing(PROBLEMS[:2], 1) == []
    assert again.missing(PROBLEMS, 2) == [(0, 1), (1, 1), (2, 0), (2, 1)]
    [_, [found]] = again.take(2, 1)
    assert dataclasses.replace(found, time=0.0) == answer
    assert found.time > 1.7e9


def test_other_settings_are_another_file(open_file):
    open_file(1).add(Answered(0, 0, "problem 0"))
    assert open_file(2).missing(PROBLEMS[:1], 1) == [(0, 0)]


def test_a_failure_is_tried_again_and_the_last_line_counts(open_file):
    file = open_file()
    file.add(Answered(0, 0, "problem 0", finish="failed", failure="no"))
    assert open_file().missing(PROBLEMS[:1], 1) == [(0, 0)]
    assert open_file().take(1, 1)[0][0].failure == "no"
    file.add(Answered(0, 0, "problem 0", correct=True))
    assert open_file().take(1, 1)[0][0].correct


def test_an_answer_to_another_problem_is_none(open_file):
    open_file().add(Answered(0, 0, "what the file asked before it was changed"))
    assert open_file().missing(PROBLEMS[:1], 1) == [(0, 0)]


def test_a_line_that_a_crash_left_torn_is_answered_again(open_file):
    file = open_file()
    for number in range(2):
        file.add(Answered(number, 0, f"problem {number}"))
    content = file.path.read_bytes()
    file.path.write_bytes(content[:-20])
    again = open_file()
    assert again.missing(PROBLEMS[:2], 1) == [(1, 0)]
    again.add(Answered(1, 0, "problem 1"))
    assert open_file().missing(PROBLEMS[:2], 1) == []
