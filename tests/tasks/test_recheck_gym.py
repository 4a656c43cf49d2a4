"""From the question alone the second judge comes to reasoning-gym's own answers."""

import itertools

import pytest

pytest.importorskip("reasoning_gym", reason="needs the extra `rewards`")

from spoutnik.tasks import make
from spoutnik.tasks.recheck import second_verdict
from spoutnik.tasks.recheck_gym import _LEGS_OF, own_answer

DATASETS = ["chain_sum", "basic_arithmetic", "leg_counting", "letter_counting", "spell_backward"]


@pytest.mark.parametrize("dataset", DATASETS)
def test_its_answers_are_the_datasets_own(dataset):
    task = make(f"gym:{dataset}")
    problems = [task.problem("train", 0, index) for index in range(200)]
    assert [own_answer(dataset, problem.prompt) for problem in problems] == [problem.answer for problem in problems]
    for problem, other in itertools.pairwise(problems[:20]):
        assert second_verdict(problem, f"hm</think><answer>{problem.answer}</answer>") is True
        assert second_verdict(problem, f"hm</think><answer>{other.answer}</answer>") is (problem.answer == other.answer)
        assert second_verdict(problem, f"hm</think><answer>{problem.answer} or {problem.answer}9</answer>") is False


def test_it_knows_every_animal():
    from reasoning_gym.arithmetic.leg_counting import ANIMALS

    assert _LEGS_OF == ANIMALS


@pytest.mark.parametrize("question", ["", "?", "Calculate nothing.", "How many legs if you have 3 unicorns?", "1/0"])
def test_a_question_that_it_does_not_understand_has_no_answer_here(question):
    assert [own_answer(dataset, question) for dataset in DATASETS[:4]] == [None] * 4
