"""Word problems: every template yields problems, its sums are true and only its numbers occur."""

import random
import re

import pytest

from spoutnik.tasks import words
from spoutnik.tasks.base import split_of
from spoutnik.tasks.faithful import check_steps, supported
from spoutnik.tasks.words import TEMPLATES, Words


@pytest.mark.parametrize("template", TEMPLATES, ids=lambda template: template.sums[0])
def test_every_template_gives_true_sums_that_use_every_number_of_its_story(template: words.Template) -> None:
    task = Words()
    task._templates = [template]
    for index in range(20):
        problem = task.problem("train", 0, index)
        trace = task.trace(problem, random.Random(0))
        check = check_steps(trace)
        assert check.steps == check.right == len(template.sums)
        assert supported(trace, int(problem.answer))
        assert set(re.findall(r"\d+", problem.prompt)) <= set(re.findall(r"\d+", trace))
        assert "{" not in problem.prompt


def test_steps_choose_the_templates() -> None:
    for steps in (2, 3, 4):
        task = Words(steps=[steps])
        assert {len(task.problem("train", 0, index).data["steps"]) for index in range(20)} == {steps}


def test_names_and_things_do_not_make_a_problem_new() -> None:
    contents = {}
    task = Words(steps=[2])
    for index in range(300):
        draft = task._draft(random.Random(index))
        if draft is not None:
            contents.setdefault(draft.content, set()).add(draft.prompt)
    assert any(len(prompts) > 1 for prompts in contents.values())
    assert all(split_of("words", content) for content in contents)


def test_only_the_number_is_an_answer() -> None:
    task = Words()
    problem = task.problem("train", 0, 0)
    assert task.verify(problem, f"${problem.answer}.00")
    assert not task.verify(problem, f"{problem.answer} dollars or {problem.answer}0")
