"""The majority of several answers: what counts as the same answer, and what a tie is worth."""

import itertools
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spoutnik.evaluate.voting import ballot, consensus, has_votes
from spoutnik.tasks import make
from spoutnik.tasks.base import Problem


def problem(task):
    return Problem(task, "held-out", 0, 0, "Calculate 3+4.", "7")


@pytest.mark.parametrize(
    ("task", "same"),
    [
        ("words", ["1,000", "1000", "1000.0", " 1000. ", "\\boxed{1000}", "2000/2"]),
        ("arithmetic", ["7", "3+4 = 7", "7.0"]),
        ("letters", ["Ab c", "ab  C"]),
        ("countdown", ["(1+2)*3", "( 1 + 2 ) * 3", "(1+2)*3 = 9"]),
        ("jsonl:file.jsonl", ["x = 5", "X  =  5"]),
    ],
)
def test_answers_that_the_verifier_takes_for_one_are_one(task, same):
    assert len({ballot(problem(task), answer) for answer in same}) == 1


@pytest.mark.parametrize(("task", "first", "second"), [
    ("words", "10", "100"), ("letters", "a b", "ab"), ("countdown", "1+2*3", "(1+2)*3"), ("jsonl:f", "a=1, b=2", "a=7, b=2"),
])  # fmt: skip
def test_answers_that_differ_stay_apart(task, first, second):
    assert ballot(problem(task), first) != ballot(problem(task), second)


def test_equal_ballots_have_equal_verdicts():
    rng = random.Random(0)
    for name in ("arithmetic", "words", "countdown"):
        task = make(name)
        asked = [task.problem("held-out", 0, index) for index in range(20)]
        for one in asked:
            said = [one.answer, f" {one.answer} ", f"{one.answer}.0", str(rng.randint(1, 50))]
            verdicts = {}
            for answer in said:
                verdicts.setdefault(ballot(one, answer.strip()), set()).add(task.verify(one, answer.strip()))
            assert all(len(found) == 1 for found in verdicts.values())


def test_the_majority_decides_and_a_tie_is_worth_the_chance_of_the_lot():
    assert consensus([("7", True), ("7", True), ("8", False)]) == 1.0
    assert consensus([("7", True), ("8", False), ("8", False)]) == 0.0
    assert consensus([("7", True), ("8", False)]) == 0.5
    assert consensus([("7", True), ("8", False), ("9", False)]) == pytest.approx(1 / 3)


def test_who_gives_no_answer_abstains():
    assert consensus([(None, False), (None, False), ("7", True)]) == 1.0
    assert consensus([(None, False)]) == consensus([]) == 0.0


@given(st.lists(st.sampled_from("abc"), min_size=1, max_size=6))
def test_it_is_the_mean_over_all_orders_of_taking_the_first_of_the_most_frequent(said):
    votes = [(each, each == "a") for each in said]
    firsts = [max(order, key=lambda vote: said.count(vote[0]))[1] for order in itertools.permutations(votes)]
    assert consensus(votes) == pytest.approx(sum(firsts) / len(firsts))


def test_programs_have_no_votes():
    assert not has_votes([problem("words"), problem("code:file.jsonl")])
    assert has_votes([problem("words")])
