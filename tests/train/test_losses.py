"""Every per-token loss: gradients against finite differences in float64, and values against the formula written out."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.autograd import gradcheck

from spoutnik.teacher.base import TopK
from spoutnik.train.losses import (
    batch_balance_loss,
    forward_kl,
    k3_kl,
    policy_loss,
    reverse_kl,
    sequence_balance_loss,
    token_logprobs,
)

LOGPROB = st.floats(-20, 0)


def normal(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("clip", [0.2, 10.0])
def test_gradient_of_the_policy_loss(clip):
    ratio_BT = torch.tensor([[0.5, 0.95, 1.05, 1.6], [0.3, 1.1, 0.9, 13.0]], dtype=torch.float64)
    sampler_BT = normal(2, 4)
    logprobs_BT = (sampler_BT + ratio_BT.log()).requires_grad_()
    for advantages_BT in (normal(2, 4, seed=1), normal(2, 4, seed=2)):
        assert gradcheck(lambda logprobs_BT, a=advantages_BT: policy_loss(logprobs_BT - sampler_BT, a, clip, clip), logprobs_BT)


@pytest.mark.parametrize(
    ("ratio", "advantage", "clip", "loss", "slope"),
    [
        (1.5, 1.0, 0.2, -1.2, 0.0),  # has gained enough: no more push
        (0.5, -1.0, 0.2, 0.8, 0.0),
        (0.5, 1.0, 0.2, -0.5, -0.5),  # moved the wrong way: still pushed back
        (1.5, -1.0, 0.2, 1.5, 1.5),
        (5.0, 1.0, 10.0, -5.0, -5.0),  # R1's clip hardly ever binds
        (12.0, 1.0, 10.0, -11.0, 0.0),
        (0.01, -1.0, 10.0, 0.01, 0.01),
    ],
)
def test_policy_loss_clips_only_what_has_already_gained(ratio, advantage, clip, loss, slope):
    logprob = torch.tensor([[math.log(ratio)]], dtype=torch.float64, requires_grad=True)
    found = policy_loss(logprob, torch.tensor([[advantage]], dtype=torch.float64), clip, clip)
    found.sum().backward()
    assert float(found.detach()) == pytest.approx(loss)
    assert float(logprob.grad) == pytest.approx(slope)


def test_gradient_of_k3():
    assert gradcheck(lambda logprobs_BT: k3_kl(logprobs_BT, normal(2, 5, seed=1)), normal(2, 5).requires_grad_())


@given(LOGPROB, LOGPROB)
def test_k3_is_never_negative_and_zero_only_for_equal_policies(logprob, reference):
    found = float(k3_kl(torch.tensor(logprob, dtype=torch.float64), torch.tensor(reference, dtype=torch.float64)))
    assert found >= 0
    assert (found > 0) or abs(logprob - reference) < 1e-6


def test_k3_and_the_reverse_kl_agree_in_expectation():
    policy_V, reference_V = normal(7), normal(7, seed=1).log_softmax(-1)
    p_V = policy_V.softmax(-1)
    expected = (p_V * k3_kl(policy_V.log_softmax(-1), reference_V)).sum()
    torch.testing.assert_close(reverse_kl(policy_V[None], reference_V[None]), expected[None])


def top_k(logprobs_NV, k):
    top = logprobs_NV.topk(k, dim=-1)
    return TopK(top.indices, top.values, logprobs_NV.scatter(-1, top.indices, -torch.inf).logsumexp(-1))


def dense(n=3, vocab=6, seed=1):
    return normal(n, vocab, seed=seed).log_softmax(-1)


@pytest.mark.parametrize("divergence", [forward_kl, reverse_kl])
@pytest.mark.parametrize("teacher", [dense(), top_k(dense(), 3), top_k(dense(), 6)], ids=["dense", "top 3", "all 6"])
def test_gradient_of_the_divergence_from_a_teacher(divergence, teacher):
    assert gradcheck(lambda student_NV: divergence(student_NV, teacher), normal(3, 6).requires_grad_())


@pytest.mark.parametrize("divergence", [forward_kl, reverse_kl])
def test_all_tokens_as_top_k_are_the_dense_divergence(divergence):
    torch.testing.assert_close(divergence(normal(3, 6), top_k(dense(), 6)), divergence(normal(3, 6), dense()))


def test_the_divergences_are_their_formulas_written_out():
    student_NV = normal(3, 6).log_softmax(-1)
    for divergence, p, q in ((forward_kl, dense(), student_NV), (reverse_kl, student_NV, dense())):
        torch.testing.assert_close(divergence(normal(3, 6), dense()), (p.exp() * (p - q)).sum(-1))


@given(st.integers(0, 1000), st.integers(1, 6), st.floats(0.1, 8))
def test_the_divergence_with_a_rest_is_one_and_never_more_than_the_dense_one(seed, k, spread):
    student_NV, teacher_NV = spread * normal(2, 6, seed=seed), (spread * normal(2, 6, seed=seed + 1)).log_softmax(-1)
    for divergence in (forward_kl, reverse_kl):
        coarse, fine = divergence(student_NV, top_k(teacher_NV, k)), divergence(student_NV, teacher_NV)
        assert (coarse >= -1e-12).all()
        assert (coarse <= fine + 1e-9).all()
        torch.testing.assert_close(divergence(teacher_NV, top_k(teacher_NV, k)), torch.zeros(2, dtype=torch.float64), atol=1e-9, rtol=0)


def test_what_a_teacher_excludes_costs_the_forward_kl_nothing_and_what_it_is_sure_of_all():
    certain = torch.tensor([[0.0, -torch.inf, -torch.inf]], dtype=torch.float64)
    student = torch.tensor([[1.0, 2.0, 3.0]], dtype=torch.float64, requires_grad=True)
    for teacher in (certain, top_k(certain, 2)):
        (loss,) = forward_kl(student, teacher)
        torch.testing.assert_close(loss, -student.log_softmax(-1)[0, 0])
        (gradient,) = torch.autograd.grad(loss, student)
        torch.testing.assert_close(gradient, student.detach().softmax(-1) - certain.exp())


def descend(loss_of, logits, steps=4000, rate=1.0):
    logits = logits.clone().requires_grad_()
    for _ in range(steps):
        (gradient,) = torch.autograd.grad(loss_of(logits).sum(), logits)
        with torch.no_grad():
            logits -= rate * gradient
    return logits.detach().softmax(-1)


def test_without_the_rest_a_student_that_was_its_teacher_loses_the_tail():
    teacher = torch.tensor([[0.5, 0.2, 0.1, 0.1, 0.1]], dtype=torch.float64).log()
    top = top_k(teacher, 2)

    def renormalised(logits):
        target = top.logprobs.log_softmax(-1)
        return (target.exp() * (target - logits.log_softmax(-1).gather(-1, top.ids))).sum(-1)

    naive, ours = descend(renormalised, teacher), descend(lambda logits: forward_kl(logits, top), teacher)
    assert float(naive[0, 2:].sum()) < 0.01, "the teacher gives the tail 30 %"
    torch.testing.assert_close(naive[0, :2], torch.tensor([5 / 7, 2 / 7], dtype=torch.float64), atol=0.01, rtol=0)
    torch.testing.assert_close(ours, teacher.exp())


def test_reverse_kl_of_a_model_to_itself_is_zero():
    assert torch.equal(reverse_kl(normal(3, 5), normal(3, 5).log_softmax(-1)), torch.zeros(3, dtype=torch.float64))


def test_gradient_of_token_logprobs():
    ids_BT = torch.tensor([[1, 3], [0, 2]])
    assert gradcheck(lambda logits_BTV: token_logprobs(logits_BTV, ids_BT), normal(2, 2, 4).requires_grad_())
    torch.testing.assert_close(
        token_logprobs(normal(2, 2, 4), ids_BT), normal(2, 2, 4).log_softmax(-1).gather(-1, ids_BT[..., None])[..., 0]
    )


def test_gradient_of_the_balance_loss():
    scores_BTE = normal(2, 5, 4).sigmoid().requires_grad_()
    assert gradcheck(lambda scores_BTE: sequence_balance_loss(scores_BTE, 2), scores_BTE)


def test_balance_loss_is_equations_17_to_20_written_out():
    scores_BTE, top_k = normal(3, 6, 4).sigmoid(), 2
    rows, tokens, experts = scores_BTE.shape
    total = 0.0
    for row in range(rows):
        for expert in range(experts):
            load = sum(expert in sorted(range(experts), key=lambda e, t=t: -scores_BTE[row, t, e])[:top_k] for t in range(tokens))
            share = sum(scores_BTE[row, t, expert] / scores_BTE[row, t].sum() for t in range(tokens)) / tokens
            total += experts / (top_k * tokens) * load * share
    torch.testing.assert_close(sequence_balance_loss(scores_BTE, top_k), total / rows)


def test_balance_loss_is_one_when_balanced_and_larger_when_all_tokens_want_the_same():
    balanced_BTE = torch.full((1, 4, 4), 1e-3, dtype=torch.float64) + torch.eye(4, dtype=torch.float64)
    same_BTE = torch.full((1, 4, 4), 1e-3, dtype=torch.float64)
    same_BTE[..., 0] = 1.0
    assert float(sequence_balance_loss(balanced_BTE, 1)) == pytest.approx(1.0)
    assert float(sequence_balance_loss(same_BTE, 1)) > 3.9


def test_gradient_of_the_balance_loss_over_a_batch():
    scores_TE = normal(9, 4).sigmoid().requires_grad_()
    assert gradcheck(lambda scores_TE: batch_balance_loss(scores_TE, scores_TE.detach().topk(2).indices), scores_TE)


def test_the_balance_loss_over_a_batch_counts_the_choices_that_were_made():
    scores_TE = normal(6, 4).sigmoid()
    experts_TK = torch.tensor([[0, 1], [0, 2], [0, 3], [1, 2], [0, 1], [2, 0]])  # not the best two, as under a bias or groups
    total = 0.0
    for expert in range(4):
        load = sum(expert in chosen for chosen in experts_TK.tolist())
        share = sum(scores_TE[t, expert] / scores_TE[t].sum() for t in range(6)) / 6
        total += 4 / (2 * 6) * load * share
    torch.testing.assert_close(batch_balance_loss(scores_TE, experts_TK), total)


def test_over_one_sequence_without_bias_and_groups_both_balance_losses_are_one():
    scores_TE = normal(8, 4).sigmoid()
    torch.testing.assert_close(batch_balance_loss(scores_TE, scores_TE.topk(2).indices), sequence_balance_loss(scores_TE[None], 2))
