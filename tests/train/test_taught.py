"""A teacher's answer, whatever form it has, becomes the form that our models learn; what is wrong or cut off is never kept."""

import pytest

from spoutnik.recipe import SampleStage
from spoutnik.tasks import make
from spoutnik.teacher.base import Answer, Usage
from spoutnik.train.kept import kept
from spoutnik.train.taught import grade_answer, in_r1_form

TASK = make("countdown", numbers=[2], high=9)
PROBLEM = TASK.problem("train", 0, 0)
RIGHT = f"<answer>{PROBLEM.answer}</answer>"
STAGE = SampleStage.model_validate(
    {"name": "s", "from": "t", "task": {"name": "countdown"}, "problems": 1, "max_new_tokens": 9, "samples_per_problem": 2}
)


def said(text, reasoning="", finish="stop", tokens=5):
    return Answer(text, reasoning, finish, Usage(3, tokens))


@pytest.mark.parametrize(
    "answer",
    [
        said(RIGHT, "hm"),
        said(f"The answer is:\n{RIGHT}\n", "hm"),
        said(f"hm\n{RIGHT}"),
        said(f"<think>hm</think>So: {RIGHT}"),
        said(f"<think>\nhm\n</think>\n\n{RIGHT}"),
    ],
)
def test_thinking_shown_apart_inline_or_not_at_all_gives_one_form(answer):
    assert in_r1_form(answer) == f"<think>\nhm\n</think>\n{RIGHT}"
    graded = grade_answer(TASK, PROBLEM, answer)
    assert (graded.reward.accuracy, graded.reward.format) == (1.0, 1.0)


@pytest.mark.parametrize("answer", [said("hm\n```python\nx = 1\n```"), said("```python\nx = 1\n```", "hm")])
def test_a_program_in_its_fences_stands_behind_the_thinking(answer):
    assert in_r1_form(answer) == "<think>\nhm\n</think>\n```python\nx = 1\n```"


@pytest.mark.parametrize(
    "answer",
    [
        said("<answer>1+1</answer>", "hm"),
        said(PROBLEM.answer, "hm"),
        said(RIGHT),
        said(f"{RIGHT} I hope.", "hm"),
        said(f"{RIGHT}{RIGHT}", "hm"),
        said(RIGHT, "hm</think>"),
        said(RIGHT, "hm", "length"),
        said(RIGHT, "hm", "refused"),
        said("", "", "refused"),
    ],
)
def test_what_is_wrong_ill_formed_unfinished_or_without_thinking_is_not_kept(answer):
    assert kept([grade_answer(TASK, PROBLEM, answer)], STAGE) == []


def test_the_shortest_right_one_is_kept_by_the_teachers_own_count():
    graded = [grade_answer(TASK, PROBLEM, said(RIGHT, "longer", tokens=9)), grade_answer(TASK, PROBLEM, said(RIGHT, "short", tokens=2))]
    [row] = kept(graded, STAGE, [{"teacher": "t"}])
    assert "short" in row["completion"]
    assert (row["prompt"], row["teachers"]) == (PROBLEM.prompt, [{"teacher": "t"}])
