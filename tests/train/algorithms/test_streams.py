"""The one objective that all algorithms share: derivatives, masks, and what a token weighs in each of them."""

import pytest
import torch
from torch.autograd import gradcheck

from spoutnik.train.algorithms.dapo import dapo
from spoutnik.train.algorithms.dr_grpo import dr_grpo
from spoutnik.train.algorithms.given import distributions_over_given
from spoutnik.train.algorithms.grpo import grpo
from spoutnik.train.algorithms.gspo import gspo, sequence_log_ratio
from spoutnik.train.algorithms.imitate import imitate
from spoutnik.train.algorithms.on_policy import FREE, on_policy_distillation
from spoutnik.train.algorithms.streams import Clip, answer_shares, objective, token_shares
from spoutnik.train.algorithms.v32 import unbiased_kl, v32, without_off_policy
from spoutnik.train.losses import forward_kl, k3_kl, reverse_kl

MASK_BT = torch.tensor([[0.0, 1, 1, 0], [0, 0, 1, 1], [0, 1, 0, 0], [0, 1, 1, 1]], dtype=torch.float64)
REWARDS_PG = torch.tensor([[1.0, 0.0], [0.2, 2.0]], dtype=torch.float64)
IDS_BT = torch.randint(0, 5, (4, 4), generator=torch.Generator().manual_seed(3))
CREDIT = {
    "grpo": lambda rewards_PG, mask_BT: grpo(rewards_PG, mask_BT, 0.3, len(mask_BT)),
    "grpo over tokens": lambda rewards_PG, mask_BT: grpo(rewards_PG, mask_BT, 0.3, len(mask_BT), "tokens"),
    "dr_grpo": lambda rewards_PG, mask_BT: dr_grpo(rewards_PG, mask_BT, 0.3, len(mask_BT), 4),
    "dapo": lambda rewards_PG, mask_BT: dapo(rewards_PG, mask_BT, 0.3),
    "gspo": lambda rewards_PG, mask_BT: gspo(rewards_PG, mask_BT, 0.3, len(mask_BT)),
    "v32": lambda rewards_PG, mask_BT: v32(rewards_PG, mask_BT, 0.3, len(mask_BT)),
}
ALL = [*CREDIT, "imitate", "given", "on-policy"]


def normal(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def chosen(logits_BTV):
    return logits_BTV.log_softmax(-1).gather(-1, IDS_BT[..., None])[..., 0]


def loss_of(name, logits_BTV, sampler_BT, clip, mask_BT=MASK_BT):
    """The loss of each algorithm as its trainer makes it; divergences are from the same other distribution."""
    logprobs_BT, other_BTV = chosen(logits_BTV), normal(*logits_BTV.shape, seed=7)
    if name == "imitate":
        return objective(imitate(mask_BT), logprobs_BT)
    if name == "on-policy":
        streams = on_policy_distillation(mask_BT, torch.zeros_like(mask_BT))
        return objective(streams, logprobs_BT, divergence_BT=reverse_kl(logits_BTV, other_BTV.log_softmax(-1)))
    if name == "given":
        return objective(distributions_over_given(mask_BT), logprobs_BT, divergence_BT=forward_kl(logits_BTV, other_BTV.log_softmax(-1)))
    streams, log_ratio_BT = CREDIT[name](REWARDS_PG, mask_BT), logprobs_BT - sampler_BT
    divergence_BT = k3_kl(logprobs_BT, chosen(other_BTV))
    if name == "v32":
        divergence_BT = unbiased_kl(logprobs_BT, chosen(other_BTV), log_ratio_BT)
        streams = without_off_policy(streams, log_ratio_BT, mask_BT, 0.3)
    ratio_BT = sequence_log_ratio(log_ratio_BT, mask_BT) if name == "gspo" else log_ratio_BT
    return objective(streams, logprobs_BT, ratio_BT, clip, divergence_BT)


@pytest.mark.parametrize("name", ALL)
def test_gradient_of_the_objective(name):
    sampler_BT = chosen(normal(4, 4, 5)) + 0.6 * normal(4, 4, seed=1)  # far enough for some tokens to be clipped
    assert gradcheck(lambda logits_BTV: loss_of(name, logits_BTV, sampler_BT, Clip(0.2, 0.28)), normal(4, 4, 5).requires_grad_())


@pytest.mark.parametrize("name", ALL)
def test_tokens_that_the_mask_leaves_out_get_no_gradient(name):
    logits_BTV = normal(4, 4, 5).requires_grad_()
    loss_of(name, logits_BTV, chosen(logits_BTV).detach(), Clip(10.0, 10.0)).backward()
    assert torch.equal(logits_BTV.grad.abs().sum(-1) > 0, MASK_BT > 0)


@pytest.mark.parametrize("name", ALL)
def test_an_empty_mask_gives_zero_and_never_nan(name):
    logits_BTV = normal(4, 4, 5).requires_grad_()
    loss = loss_of(name, logits_BTV, chosen(logits_BTV).detach(), Clip(0.2, 0.2), torch.zeros_like(MASK_BT))
    loss.backward()
    assert float(loss.detach()) == 0.0
    assert torch.equal(logits_BTV.grad, torch.zeros(4, 4, 5))


@pytest.mark.parametrize("name", CREDIT)
@pytest.mark.parametrize("clip", [Clip(0.2, 0.28), Clip(10.0, 10.0)])
def test_on_the_samplers_own_weights_every_algorithm_is_reinforce_with_its_weights(name, clip):
    logprobs_BT, streams = chosen(normal(4, 4, 5)).requires_grad_(), CREDIT[name](REWARDS_PG, MASK_BT)
    ratio_BT = logprobs_BT - logprobs_BT.detach()
    objective(streams, logprobs_BT, sequence_log_ratio(ratio_BT, MASK_BT) if name == "gspo" else ratio_BT, clip).backward()
    torch.testing.assert_close(logprobs_BT.grad, -streams.advantages)


def test_shares_are_means_over_answers_or_over_tokens():
    torch.testing.assert_close(answer_shares(MASK_BT, 4).sum(-1), torch.full((4,), 0.25, dtype=torch.float64))
    torch.testing.assert_close(answer_shares(MASK_BT, 8).sum(), torch.tensor(0.5, dtype=torch.float64))
    assert set(token_shares(MASK_BT)[MASK_BT > 0].tolist()) == {1 / 8}


def test_micro_batches_of_a_batchs_streams_add_up_to_its_loss():
    logprobs_BT, sampler_BT = chosen(normal(4, 4, 5)), chosen(normal(4, 4, 5, seed=2))
    streams = CREDIT["grpo"](REWARDS_PG, MASK_BT)
    whole = objective(streams, logprobs_BT, logprobs_BT - sampler_BT, Clip(0.2, 0.2))
    parts = [
        objective(streams.rows(rows, 4), logprobs_BT[rows], (logprobs_BT - sampler_BT)[rows], Clip(0.2, 0.2)) for rows in ([2, 0], [3, 1])
    ]
    torch.testing.assert_close(sum(parts), whole)


def test_chunks_as_actions_have_the_gradient_of_the_reverse_kl_over_texts():
    """All nine texts of two tokens, each weighted by how often it is drawn: the mean of what is learnt from a drawn one."""
    first_V, second_VV = normal(3).requires_grad_(), normal(3, 3, seed=1).requires_grad_()
    teacher_VV = normal(3, 3, seed=2).flatten().log_softmax(-1).view(3, 3)
    texts_VV = first_V.log_softmax(-1)[:, None] + second_VV.log_softmax(-1)
    exact = torch.autograd.grad((texts_VV.exp() * (texts_VV - teacher_VV)).sum(), [first_V, second_VV], retain_graph=True)
    drawn = []
    for a in range(3):
        for b in range(3):
            logprobs_BT = torch.stack([first_V.log_softmax(-1)[a], second_VV[a].log_softmax(-1)[b]])[None]
            gain = (teacher_VV[a, b] - texts_VV[a, b]).detach()
            streams = on_policy_distillation(torch.ones(1, 2, dtype=torch.float64), gain.expand(1, 2))
            loss = objective(streams, logprobs_BT, logprobs_BT - logprobs_BT.detach(), FREE)
            drawn.append(2 * texts_VV[a, b].exp().detach() * loss)  # the share of a token of two is a half
    for found, expected in zip(torch.autograd.grad(sum(drawn), [first_V, second_VV]), exact, strict=True):
        torch.testing.assert_close(found, expected)
