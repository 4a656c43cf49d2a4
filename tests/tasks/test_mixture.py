"""A mixture draws from its parts and lets each judge its own."""

import pytest

from spoutnik.errors import UserError
from spoutnik.tasks import make
from spoutnik.tasks.arithmetic import Arithmetic
from spoutnik.tasks.base import Task
from spoutnik.tasks.mixture import Mixture

PARTS = [{"name": "arithmetic", "terms": [2], "weight": 3}, {"name": "countdown", "numbers": [3]}]


class Three(Arithmetic):
    """Judges three answers at a time, as tasks that do it in other processes."""

    graders = 3


@pytest.fixture
def mixture() -> Task:
    return make("mixture", parts=PARTS)


def test_parts_come_in_proportion_and_each_problem_is_its_parts(mixture: Task) -> None:
    problems = [mixture.problem("train", 0, index) for index in range(400)]
    counts = {name: sum(problem.task == name for problem in problems) for name in ("arithmetic", "countdown")}
    assert sum(counts.values()) == 400
    assert 260 < counts["arithmetic"] < 340
    alone = make("arithmetic", terms=[2])
    for problem in problems[:20]:
        if problem.task == "arithmetic":
            assert alone.problem("train", 0, problem.index).prompt == problem.prompt
            assert problem == mixture.problem("train", 0, problem.index)


def test_every_part_judges_its_own_answers(mixture: Task) -> None:
    for index in range(20):
        problem = mixture.problem("held-out", 1, index)
        assert mixture.verify(problem, problem.answer)
        assert not mixture.verify(problem, "no answer")


def test_two_parts_of_one_name_keep_their_own_options() -> None:
    both = make(
        "mixture", parts=[{"name": "arithmetic", "terms": [2], "operators": "+-"}, {"name": "arithmetic", "terms": [3], "operators": "+-"}]
    )
    lengths = {problem.prompt.count("+") + problem.prompt.count("-") for problem in (both.problem("train", 0, i) for i in range(40))}
    assert lengths == {1, 2}


def test_as_many_answers_are_judged_at_once_as_the_part_with_most_graders_allows(mixture: Task) -> None:
    assert mixture.graders == 1  # type: ignore[attr-defined]
    nested = Mixture(lambda name: mixture if name == "mixture" else Three(), [{"name": "mixture"}, {"name": "three"}])
    assert nested.graders == 3


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({}, "list of tables"),
        ({"parts": []}, "list of tables"),
        ({"parts": [{"weight": 1}]}, "list of tables"),
        ({"parts": [{"name": "arithmetic", "weight": 0}]}, "a number above 0"),
        ({"parts": [{"name": "arithmetic", "colour": 1}]}, "no option 'colour'"),
        ({"parts": [{"name": "nothing"}]}, "there is no task 'nothing'"),
        ({"parts": PARTS, "weight": 1}, "it takes parts"),
    ],
)
def test_what_is_wrong_is_said(options: dict[str, object], said: str) -> None:
    with pytest.raises(UserError, match=said):
        make("mixture", **options)
