"""Advantages within a group."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from spoutnik.train.algorithms.groups import centred_advantages, group_advantages, has_signal

GROUPS = st.lists(st.lists(st.integers(-20, 20), min_size=4, max_size=4), min_size=1, max_size=5)


@given(GROUPS)
def test_advantages_have_mean_zero_and_unit_variance_within_each_group(groups):
    rewards_PG = torch.tensor(groups, dtype=torch.float64) / 10
    advantages_PG = group_advantages(rewards_PG)
    assert torch.allclose(advantages_PG.mean(-1), torch.zeros(len(groups), dtype=torch.float64), atol=1e-12)
    assert torch.allclose(advantages_PG.var(-1, correction=0), has_signal(rewards_PG).double(), atol=1e-9)


@given(GROUPS, st.floats(0.01, 100), st.floats(-10, 10))
def test_advantages_do_not_depend_on_the_rewards_scale_or_offset(groups, scale, offset):
    rewards_PG = torch.tensor(groups, dtype=torch.float64)
    assert torch.allclose(group_advantages(rewards_PG * scale + offset), group_advantages(rewards_PG), atol=1e-6)


@given(GROUPS, st.floats(0.01, 100), st.floats(-10, 10))
def test_centred_advantages_scale_with_the_rewards(groups, scale, offset):
    rewards_PG = torch.tensor(groups, dtype=torch.float64)
    assert torch.allclose(centred_advantages(rewards_PG * scale + offset), scale * centred_advantages(rewards_PG), atol=1e-6)


@given(st.floats(-3, 3), st.integers(2, 64))
def test_equal_rewards_give_no_credit_whatever_their_mean_rounds_to(reward, size):
    rewards_PG = torch.full((1, size), reward)
    rewards_PG[0, 0] = rewards_PG.mean()  # as a sample without a verdict gets it
    assert not has_signal(rewards_PG).any()
    assert torch.equal(group_advantages(rewards_PG), torch.zeros(1, size))
    assert torch.equal(centred_advantages(rewards_PG), torch.zeros(1, size))
