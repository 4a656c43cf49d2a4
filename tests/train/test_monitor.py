"""The monitor's figures and its rule."""

import pytest
import torch

from spoutnik.errors import UserError
from spoutnik.recipe.reinforcement import Monitor
from spoutnik.tasks import make
from spoutnik.tasks.reward import Reward
from spoutnik.train.monitor import check, compare
from spoutnik.train.rollouts import Rollout

PROBLEM = make("arithmetic").problem("train", 0, 0)


def rollout(accuracy):
    return Rollout(PROBLEM, [1], [2], [-1.0], "", False, Reward(accuracy, 1.0, 1.0), 0, 0, False)


def test_the_figures_of_a_step():
    found = compare(
        [rollout(1.0), rollout(1.0), rollout(0.0), rollout(0.0), rollout(1.0)], [True, False, True, False, None],
        torch.tensor([[1.2, 1.0, 0.2, 0.0, 1.0]]),
    )  # fmt: skip
    assert found == {"checked": 0.5, "disputed": 0.25, "overlooked": 0.25, "unearned": pytest.approx(0.2 / 3.4)}


def test_without_a_second_verdict_only_what_was_unearned_is_told():
    assert compare([rollout(0.0)], [None], torch.tensor([[0.0]])) == {"unearned": 0.0}


def test_the_rule_looks_back_at_so_many_steps_and_not_at_one():
    rule, history = Monitor(max_disputed=0.1, steps=3), []
    for disputed in (0.9, 0.0):
        history = check(history, disputed, rule)
    history = check([0.0, 0.0, 0.2], 0.05, rule)
    assert history == [0.0, 0.2, 0.05]
    with pytest.raises(UserError, match=r"last 3 steps' samples 15\.0%"):
        check(history, 0.2, rule)
