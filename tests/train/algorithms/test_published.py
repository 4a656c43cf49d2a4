"""Each published objective against the formula written out by hand, and on batches on which they differ."""

import itertools
import math

import pytest
import torch

from spoutnik.train.algorithms.dapo import dapo, overlong_penalty
from spoutnik.train.algorithms.dr_grpo import dr_grpo
from spoutnik.train.algorithms.grpo import grpo
from spoutnik.train.algorithms.gspo import gspo, sequence_log_ratio
from spoutnik.train.algorithms.streams import Clip, objective
from spoutnik.train.algorithms.v32 import off_policy_mask, unbiased_kl, v32, without_off_policy
from spoutnik.train.losses import k3_kl, reverse_kl

# One group of two answers: a right one of one token, a wrong one of three.
MASK_BT = torch.tensor([[0.0, 1, 0, 0], [0, 1, 1, 1]], dtype=torch.float64)
REWARDS_PG = torch.tensor([[1.0, 0.0]], dtype=torch.float64)
SAMPLER_BT = torch.tensor([[0.0, 0.5, 0, 0], [0, 0.5, 0.25, 0.4]], dtype=torch.float64).clamp(min=1e-9).log() * MASK_BT
RATIO_BT = torch.tensor([[1.0, 1.5, 1, 1], [1.0, 0.5, 1.5, 1.1]], dtype=torch.float64)
LOGPROBS_BT = SAMPLER_BT + RATIO_BT.log()


def loss(streams, clip, sequence=False):
    log_ratio_BT = LOGPROBS_BT - SAMPLER_BT
    return float(objective(streams, LOGPROBS_BT, sequence_log_ratio(log_ratio_BT, MASK_BT) if sequence else log_ratio_BT, clip))


def test_grpo_by_hand():
    right = min(1.5 * 1, 1.2 * 1)
    wrong = [min(0.5 * -1, 0.8 * -1), min(1.5 * -1, 1.2 * -1), min(1.1 * -1, 1.1 * -1)]
    assert loss(grpo(REWARDS_PG, MASK_BT, 0.0, 2), Clip(0.2, 0.2)) == pytest.approx(-(right / 1 + sum(wrong) / 3) / 2)
    assert loss(grpo(REWARDS_PG, MASK_BT, 0.0, 2, "tokens"), Clip(0.2, 0.2)) == pytest.approx(-(right + sum(wrong)) / 4)
    assert loss(grpo(REWARDS_PG, MASK_BT, 0.0, 2), Clip(10, 10)) == pytest.approx(-(1.5 - (0.5 + 1.5 + 1.1) / 3) / 2)


def test_grpo_averages_over_answers_that_are_left_out_too():
    assert loss(grpo(REWARDS_PG, MASK_BT, 0.0, 4), Clip(0.2, 0.2)) == pytest.approx(
        loss(grpo(REWARDS_PG, MASK_BT, 0.0, 2), Clip(0.2, 0.2)) / 2
    )


def test_grpos_divergence_by_hand():
    reference_BT, ratio = LOGPROBS_BT + math.log(2.0), 2.0
    found = objective(grpo(REWARDS_PG, MASK_BT, 0.3, 2), LOGPROBS_BT, divergence_BT=k3_kl(LOGPROBS_BT, reference_BT))
    assert float(found) == pytest.approx(0.3 * (ratio - math.log(ratio) - 1))


def test_dr_grpo_by_hand():
    right = min(1.5 * 0.5, 1.2 * 0.5)
    wrong = [min(0.5 * -0.5, 0.8 * -0.5), min(1.5 * -0.5, 1.2 * -0.5), min(1.1 * -0.5, 1.1 * -0.5)]
    assert loss(dr_grpo(REWARDS_PG, MASK_BT, 0.0, 2, longest=10), Clip(0.2, 0.2)) == pytest.approx(-(right + sum(wrong)) / (2 * 10))


def test_grpo_blames_a_token_of_a_long_wrong_answer_less_and_dr_grpo_does_not():
    rewards_PG = torch.tensor([[1.0, 0.0, 0.0]], dtype=torch.float64)
    mask_BT = torch.tensor([[1.0, 0, 0, 0], [1, 0, 0, 0], [1, 1, 1, 1]], dtype=torch.float64)
    biased_BT, fair_BT = grpo(rewards_PG, mask_BT, 0.0, 3).advantages, dr_grpo(rewards_PG, mask_BT, 0.0, 3, 4).advantages
    assert float(biased_BT[1, 0] / biased_BT[2, 0]) == pytest.approx(4.0)
    assert float(fair_BT[1, 0] / fair_BT[2, 0]) == pytest.approx(1.0)


def test_a_group_of_nearly_equal_rewards_weighs_as_much_as_any_in_grpo_and_less_in_dr_grpo():
    rewards_PG = torch.tensor([[1.0, 0.9], [1.0, 0.0]], dtype=torch.float64)
    mask_BT = torch.ones(4, 1, dtype=torch.float64)
    biased_B1, fair_B1 = grpo(rewards_PG, mask_BT, 0.0, 4).advantages, dr_grpo(rewards_PG, mask_BT, 0.0, 4, 1).advantages
    assert float(biased_B1[0] / biased_B1[2]) == pytest.approx(1.0)
    assert float(fair_B1[0] / fair_B1[2]) == pytest.approx(0.1)


ANSWERS = [(0,), (1, 0), (1, 1)]
REWARD = {(0,): 1.0, (1, 0): 0.3, (1, 1): 0.0}


def answer_probability(logits_2):
    """Of each of ANSWERS under a policy of two tokens that ends after a 0 or two tokens, with its log-probabilities, padded to two."""
    logprobs_2 = logits_2.log_softmax(-1)
    return {answer: logprobs_2[list(answer)] for answer in ANSWERS}


def expected_gradient(make, group=2):
    """The exact expectation over all groups of the first update's gradient."""
    logits_2 = torch.tensor([0.4, -0.2], dtype=torch.float64, requires_grad=True)
    total = torch.zeros(())
    for answers in itertools.product(ANSWERS, repeat=group):
        logprobs = answer_probability(logits_2)
        weight = math.exp(sum(float(logprobs[answer].detach().sum()) for answer in answers))
        mask_BT = torch.tensor([[1.0, float(len(answer) == 2)] for answer in answers], dtype=torch.float64)
        logprobs_BT = torch.stack([torch.nn.functional.pad(logprobs[answer], (0, 2 - len(answer))) for answer in answers])
        rewards_PG = torch.tensor([[REWARD[answer] for answer in answers]], dtype=torch.float64)
        streams = make(rewards_PG, mask_BT)
        total = total + weight * objective(streams, logprobs_BT, logprobs_BT - logprobs_BT.detach(), Clip(0.2, 0.2))
    return -torch.autograd.grad(total, logits_2)[0]


def test_dr_grpos_expected_gradient_is_that_of_the_expected_reward_and_grpos_is_not():
    logits_2 = torch.tensor([0.4, -0.2], dtype=torch.float64, requires_grad=True)
    wanted = sum(REWARD[answer] * logprobs.sum().exp() for answer, logprobs in answer_probability(logits_2).items())
    wanted_2 = torch.autograd.grad(wanted, logits_2)[0]
    unbiased_2 = expected_gradient(lambda rewards_PG, mask_BT: dr_grpo(rewards_PG, mask_BT, 0.0, 2, longest=2))
    torch.testing.assert_close(unbiased_2, wanted_2 * (1 / 2) * (1 / 2))  # 1/L and (G - 1)/G
    biased_2 = expected_gradient(lambda rewards_PG, mask_BT: grpo(rewards_PG, mask_BT, 0.0, 2))
    assert not torch.allclose(biased_2, wanted_2 / 2, rtol=0.05)


def test_dapo_by_hand_with_its_higher_upper_bound():
    right = min(1.5 * 1, 1.28 * 1)
    wrong = [min(0.5 * -1, 0.8 * -1), min(1.5 * -1, 1.28 * -1), -1.1]
    assert loss(dapo(REWARDS_PG, MASK_BT, 0.0), Clip(0.2, 0.28)) == pytest.approx(-(right + sum(wrong)) / 4)


@pytest.mark.parametrize(("ratio", "slope"), [(1.25, -1.0), (1.29, 0.0), (0.79, -1.0)])
def test_the_upper_bound_is_higher_than_the_lower_is_low(ratio, slope):
    logprob = torch.tensor([[math.log(ratio)]], dtype=torch.float64, requires_grad=True)
    streams = dapo(torch.tensor([[1.0, 0.0]], dtype=torch.float64), torch.tensor([[1.0], [0.0]], dtype=torch.float64), 0.0)
    objective(streams.rows([0], 1), logprob, logprob, Clip(0.2, 0.28)).backward()
    assert float(logprob.grad) == pytest.approx(slope * ratio)


def test_long_answers_are_punished_by_equation_13():
    lengths = torch.tensor([0, 80, 81, 90, 99, 100])
    expected = torch.tensor([0.0, 0.0, -1 / 20, -10 / 20, -19 / 20, -1.0])
    torch.testing.assert_close(overlong_penalty(lengths, longest=100, cache=20), expected)
    assert float(overlong_penalty(torch.tensor([120]), 100, 20)) == -1.0


def test_gspo_by_hand():
    right, wrong = 1.5, (0.5 * 1.5 * 1.1) ** (1 / 3)
    expected = -(min(right, 1.2) - max(wrong, 0.8)) / 2
    assert loss(gspo(REWARDS_PG, MASK_BT, 0.0, 2), Clip(0.2, 0.2), sequence=True) == pytest.approx(expected)


def test_gspos_gradient_is_the_sequences_ratio_times_the_mean_of_the_tokens_gradients():
    logprobs_BT = LOGPROBS_BT.clone().requires_grad_()
    ratio_BT = sequence_log_ratio(logprobs_BT - SAMPLER_BT, MASK_BT)
    objective(gspo(REWARDS_PG, MASK_BT, 0.0, 2), logprobs_BT, ratio_BT, Clip(10, 10)).backward()
    wrong = (0.5 * 1.5 * 1.1) ** (1 / 3)
    torch.testing.assert_close(logprobs_BT.grad[1], torch.tensor([0.0, 1, 1, 1], dtype=torch.float64) * wrong / 3 / 2)


def test_one_wild_token_is_clipped_by_grpo_and_weighs_little_in_gspo():
    """A token that changed experts: half as likely, in an answer of ten."""
    mask_BT, log_ratio_BT = torch.ones(1, 10, dtype=torch.float64), torch.zeros(1, 10, dtype=torch.float64)
    log_ratio_BT[0, 3] = math.log(0.5)
    assert float(sequence_log_ratio(log_ratio_BT, mask_BT)[0, 0].exp()) == pytest.approx(0.5**0.1)
    assert torch.equal(sequence_log_ratio(log_ratio_BT, mask_BT)[0], sequence_log_ratio(log_ratio_BT, mask_BT)[0, :1].expand(10))


def test_v32_leaves_out_bad_answers_that_the_policy_has_left_and_no_others():
    mask_BT = torch.ones(4, 2, dtype=torch.float64)
    advantages_BT = torch.tensor([[-1.0], [-1.0], [1.0], [-1.0]], dtype=torch.float64).expand(4, 2)
    log_ratio_BT = torch.tensor([[-0.6, -0.6], [-0.4, -0.4], [-0.9, -0.9], [0.9, 0.9]], dtype=torch.float64)
    assert off_policy_mask(advantages_BT, log_ratio_BT, mask_BT, delta=0.5).squeeze(-1).tolist() == [False, True, True, True]


def test_the_mask_of_v32_averages_over_the_answers_own_tokens():
    mask_BT = torch.tensor([[0.0, 1, 1, 0]], dtype=torch.float64)
    log_ratio_BT = torch.tensor([[-9.0, -0.8, -0.4, -9.0]], dtype=torch.float64)
    assert not off_policy_mask(-mask_BT, log_ratio_BT, mask_BT, delta=0.59)
    assert off_policy_mask(-mask_BT, log_ratio_BT, mask_BT, delta=0.61)


def test_a_masked_answer_is_still_pulled_towards_the_reference():
    streams = v32(REWARDS_PG, MASK_BT, 0.3, 2)
    used = without_off_policy(streams, (LOGPROBS_BT - SAMPLER_BT), MASK_BT, delta=0.01)
    assert torch.equal(used.advantages[1], torch.zeros(4, dtype=torch.float64))
    assert torch.equal(used.advantages[0], streams.advantages[0])
    assert torch.equal(used.kl, streams.kl)


@pytest.mark.parametrize("off_policy", [False, True])
def test_v32s_divergence_and_its_gradient_are_the_exact_ones_in_expectation(off_policy):
    generator = torch.Generator().manual_seed(1)
    policy_V, reference_V, sampler_V = (torch.randn(5, dtype=torch.float64, generator=generator) for _ in range(3))
    policy_V.requires_grad_()
    exact = reverse_kl(policy_V[None], reference_V.log_softmax(-1)[None])[0]
    exact_V = torch.autograd.grad(exact, policy_V)[0]
    logprobs_V, sampled_V = policy_V.log_softmax(-1), (sampler_V if off_policy else policy_V.detach()).log_softmax(-1)
    reference_logprobs_V = reference_V.log_softmax(-1)
    found = (sampled_V.exp() * unbiased_kl(logprobs_V, reference_logprobs_V, logprobs_V - sampled_V)).sum()
    torch.testing.assert_close(found, exact)
    torch.testing.assert_close(torch.autograd.grad(found, policy_V, retain_graph=True)[0], exact_V)
    biased_V = torch.autograd.grad((sampled_V.exp() * k3_kl(logprobs_V, reference_logprobs_V)).sum(), policy_V)[0]
    assert not torch.allclose(biased_V, exact_V, rtol=0.05), "GRPO's estimate has another gradient, on the sampler's own weights, too"


def test_v32_averages_as_grpo_and_centres_as_dr_grpo():
    streams = v32(REWARDS_PG, MASK_BT, 0.0, 2)
    torch.testing.assert_close(streams.advantages, 0.5 * grpo(REWARDS_PG, MASK_BT, 0.0, 2).advantages)
