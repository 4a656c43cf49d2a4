"""Credit assignment, and the one objective that all algorithms share."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.autograd import gradcheck

from spoutnik.train.algorithms import group_advantages, grpo, has_signal, imitate, objective, on_policy_distillation
from spoutnik.train.losses import k3_kl, reverse_kl

GROUPS = st.lists(st.lists(st.integers(-20, 20), min_size=4, max_size=4), min_size=1, max_size=5)
MASK_BT = torch.tensor([[0.0, 1, 1, 0], [0, 0, 1, 1], [0, 1, 0, 0], [0, 1, 1, 1]], dtype=torch.float64)


def normal(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


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


@given(st.floats(-3, 3), st.integers(2, 64))
def test_equal_rewards_give_no_credit_whatever_their_mean_rounds_to(reward, size):
    rewards_PG = torch.full((1, size), reward)
    rewards_PG[0, 0] = rewards_PG.mean()  # as a sample without a verdict gets it
    assert not has_signal(rewards_PG).any()
    assert torch.equal(group_advantages(rewards_PG), torch.zeros(1, size))


def streams_and_divergence(name, logits_BTV, ids_BT):
    logprobs_BT = logits_BTV.log_softmax(-1).gather(-1, ids_BT[..., None])[..., 0]
    other_BTV = normal(*logits_BTV.shape, seed=7)
    if name == "grpo":
        streams = grpo(torch.tensor([[1.0, 0.0], [0.2, 2.0]], dtype=torch.float64), MASK_BT, kl_coef=0.3)
        return logprobs_BT, streams, k3_kl(logprobs_BT, other_BTV.log_softmax(-1).gather(-1, ids_BT[..., None])[..., 0])
    if name == "imitate":
        return logprobs_BT, imitate(MASK_BT), None
    return logprobs_BT, on_policy_distillation(MASK_BT), reverse_kl(logits_BTV, other_BTV)


@pytest.mark.parametrize("name", ["grpo", "imitate", "on-policy"])
def test_gradient_of_the_objective(name):
    ids_BT = torch.randint(0, 5, (4, 4), generator=torch.Generator().manual_seed(3))
    sampler_BT = normal(4, 4, 5).log_softmax(-1).gather(-1, ids_BT[..., None])[..., 0] + 0.05

    def loss(logits_BTV):
        logprobs_BT, streams, divergence_BT = streams_and_divergence(name, logits_BTV, ids_BT)
        return objective(streams, logprobs_BT, sampler_BT, divergence_BT, clip=0.2, tokens=float(MASK_BT.sum()))

    assert gradcheck(loss, normal(4, 4, 5).requires_grad_())


@pytest.mark.parametrize("name", ["grpo", "imitate", "on-policy"])
def test_tokens_that_the_mask_leaves_out_get_no_gradient(name):
    logits_BTV = normal(4, 4, 5).requires_grad_()
    logprobs_BT, streams, divergence_BT = streams_and_divergence(name, logits_BTV, torch.zeros(4, 4, dtype=torch.int64))
    objective(streams, logprobs_BT, logprobs_BT.detach(), divergence_BT, clip=10.0, tokens=8.0).backward()
    size_BT = logits_BTV.grad.abs().sum(-1)
    assert torch.equal(size_BT > 0, MASK_BT > 0)


@pytest.mark.parametrize("make", [imitate, on_policy_distillation, lambda mask_BT: grpo(torch.tensor([[0.0, 1.0]]), mask_BT, 0.1)])
def test_an_empty_mask_gives_zero_and_never_nan(make):
    logprobs_BT = torch.full((2, 3), -1.0, requires_grad=True)
    loss = objective(make(torch.zeros(2, 3)), logprobs_BT, logprobs_BT.detach(), torch.zeros(2, 3), clip=0.2, tokens=0.0)
    loss.backward()
    assert float(loss.detach()) == 0.0
    assert torch.equal(logprobs_BT.grad, torch.zeros(2, 3))


@pytest.mark.parametrize("clip", [0.2, 10.0])
def test_on_the_samplers_own_weights_grpo_is_reinforce_with_advantages(clip):
    rewards_PG = torch.tensor([[1.0, 0.0], [0.0, 2.0]], dtype=torch.float64)
    logprobs_BT, other_BT = normal(4, 4).requires_grad_(), normal(4, 4).requires_grad_()
    objective(grpo(rewards_PG, MASK_BT, 0.0), logprobs_BT, logprobs_BT.detach(), None, clip, tokens=8.0).backward()
    advantages_B1 = torch.tensor([[1.0], [-1.0], [-1.0], [1.0]], dtype=torch.float64)
    (-(advantages_B1 * other_BT * MASK_BT).sum() / 8.0).backward()
    torch.testing.assert_close(logprobs_BT.grad, other_BT.grad)


def test_every_token_counts_alike_however_long_its_answer():
    logprobs_BT = torch.zeros(4, 4, dtype=torch.float64, requires_grad=True)
    rewards_PG = torch.tensor([[1.0, 0.0], [1.0, 0.0]], dtype=torch.float64)
    objective(grpo(rewards_PG, MASK_BT, 0.0), logprobs_BT, logprobs_BT.detach(), None, 10.0, tokens=8.0).backward()
    assert set(logprobs_BT.grad.abs()[MASK_BT > 0].tolist()) == {1 / 8}
