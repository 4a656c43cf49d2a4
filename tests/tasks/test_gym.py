"""reasoning-gym's datasets behave as tasks: pure problems, disjoint splits, answers scored in a worker process."""

import json
from collections.abc import Iterator

import pytest

from spoutnik.errors import UserError
from spoutnik.tasks import make
from spoutnik.tasks.gym import GymTask
from spoutnik.tasks.workers import VerifierPool

pytest.importorskip("reasoning_gym")


@pytest.fixture(scope="module")
def pool() -> Iterator[VerifierPool]:
    with VerifierPool() as pool:
        yield pool


@pytest.mark.parametrize("dataset", ["leg_counting", "mini_sudoku", "arc_agi"])
def test_reference_answers_are_right_and_others_are_not(dataset: str, pool: VerifierPool) -> None:
    task = GymTask(dataset, {}, pool)
    problem = task.problem("held-out", 0, 0)
    assert task.verify(problem, problem.answer)
    assert not task.verify(problem, problem.answer + " or not")
    assert not task.verify(problem, "")


def test_problems_are_pure_disjoint_and_json_able() -> None:
    task, again = make("gym:leg_counting"), make("gym:leg_counting")
    problem = task.problem("train", 3, 5)
    assert problem == again.problem("train", 3, 5)
    assert json.loads(json.dumps(problem.data)) == problem.data
    train, held_out = ({task.problem(split, 0, index).prompt for index in range(50)} for split in ("train", "held-out"))
    assert not train & held_out


def test_options_pass_through() -> None:
    problem = make("gym:spell_backward", min_word_len=3, max_word_len=3).problem("train", 0, 0)
    assert len(problem.answer) == 3


@pytest.mark.parametrize(
    ("dataset", "options", "words"),
    [
        ("no_such_game", {}, "no dataset 'no_such_game'.*leg_counting"),
        ("leg_counting", {"animals": 3}, "no option 'animals'; it takes .*max_animals"),
        ("leg_counting", {"min_animals": 9, "max_animals": 1}, "refused its options"),
    ],
)
def test_what_reasoning_gym_would_not_take_is_named(dataset: str, options: dict[str, int], words: str) -> None:
    with pytest.raises(UserError, match=words):
        make(f"gym:{dataset}", **options)
