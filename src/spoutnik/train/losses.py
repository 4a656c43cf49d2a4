"""Losses per token. Everything that is learned here, from pretraining to reinforcement learning, is a weighted mean of these.

Letters: B rows, T positions, V vocabulary. Log-probabilities are natural.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from spoutnik.teacher.base import TopK


def token_logprobs(logits_BTV: Tensor, ids_BT: Tensor, temperature: float = 1.0) -> Tensor:
    """log p(ids[b, t]) [B, T] under logits that stand at the same places, in float32 at least."""
    scaled = logits_BTV if temperature == 1.0 else logits_BTV / temperature
    return -F.cross_entropy(scaled.flatten(0, 1), ids_BT.flatten(), reduction="none").view_as(ids_BT)


def policy_loss(log_ratio_BT: Tensor, advantages_BT: Tensor, low: float, high: float) -> Tensor:
    """-min(r A, clip(r, 1 - low, 1 + high) A) with log r = log p - log p_sampler (PPO, arXiv 1707.06347, equation 7; GRPO's first term).

    With R1's low = high = 10 the lower bound is below zero and never binds.
    """
    ratio_BT = log_ratio_BT.exp()
    return -torch.minimum(ratio_BT * advantages_BT, ratio_BT.clamp(1 - low, 1 + high) * advantages_BT)


def k3_kl(logprobs_BT: Tensor, reference_logprobs_BT: Tensor) -> Tensor:
    """Schulman's k3 estimate of KL(p || reference): r - log r - 1 with r = p_reference / p (GRPO, R1 equation 2). Never negative."""
    log_ratio_BT = reference_logprobs_BT - logprobs_BT
    return log_ratio_BT.expm1() - log_ratio_BT


def forward_kl(student_logits_NV: Tensor, teacher: Tensor | TopK) -> Tensor:
    """KL(teacher || student) [N]: over the whole vocabulary for a teacher's log-probabilities [N, V], else over K + 1 outcomes."""
    student, target = _outcomes(student_logits_NV, teacher)
    return _kl(target, student)


def reverse_kl(student_logits_NV: Tensor, teacher: Tensor | TopK) -> Tensor:
    """KL(student || teacher) [N], over the same outcomes as `forward_kl`."""
    student, target = _outcomes(student_logits_NV, teacher)
    return _kl(student, target)


def _outcomes(student_logits_NV: Tensor, teacher: Tensor | TopK) -> tuple[Tensor, Tensor]:
    """Log-probabilities of student and teacher over the same outcomes: all tokens, or the K that the teacher names and all others as one.

    Merging outcomes is a map of distributions, so a divergence stays one: never negative, zero where K + 1 probabilities agree, never more
    than that of the whole vocabularies. Without the last outcome the K would have to be renormalised, and equal models would differ.
    """
    if isinstance(teacher, Tensor):
        return student_logits_NV.log_softmax(-1), teacher
    target = torch.cat([teacher.logprobs, teacher.rest[:, None]], -1)
    whole_N1 = student_logits_NV.logsumexp(-1, keepdim=True)
    if teacher.ids.shape[-1] == student_logits_NV.shape[-1]:  # no token is left, and the logarithm of nothing has no gradient
        rest_N1 = torch.full_like(whole_N1, -torch.inf)
    else:
        rest_N1 = student_logits_NV.scatter(-1, teacher.ids, -torch.inf).logsumexp(-1, keepdim=True) - whole_N1
    return torch.cat([student_logits_NV.gather(-1, teacher.ids) - whole_N1, rest_N1], -1), target


def _kl(p: Tensor, q: Tensor) -> Tensor:
    """sum p (log p - log q) of logarithms [N, K], where nothing counts as nothing."""
    possible = p > -torch.inf
    return torch.where(possible, p.exp() * (torch.where(possible, p, 0.0) - torch.where(possible, q, 0.0)), 0.0).sum(-1)


def batch_balance_loss(scores_TE: Tensor, experts_TK: Tensor) -> Tensor:
    """Balance loss over a whole batch without its factor alpha: sum_i f_i P_i (DeepSeek-V2, equations 23 to 25, with all tokens as one
    sequence and scores normalised as in V3; V3, section 4.5.3).

    f_i, without gradient, is the share of choices that fell on expert i, times E; P_i is its mean normalised score. Unlike
    `sequence_balance_loss`, which asks the unbiased scores, f counts the choices that the router made, under its bias and its groups.
    """
    load_E = torch.bincount(experts_TK.flatten(), minlength=scores_TE.shape[-1]) * (scores_TE.shape[-1] / experts_TK.numel())
    share_E = (scores_TE / scores_TE.sum(-1, keepdim=True)).mean(0)
    return (load_E * share_E).sum()


def sequence_balance_loss(scores_BTE: Tensor, top_k: int) -> Tensor:
    """Sequence-wise balance loss without its factor alpha (DeepSeek-V3, equations 17 to 20), averaged over rows.

    sum_i f_i P_i: f_i, without gradient, is the share of tokens whose best K unbiased scores hold expert i, times E / K; P_i is the
    expert's mean normalised score.
    """
    tokens, experts = scores_BTE.shape[1:]
    chosen_BTE = torch.zeros_like(scores_BTE).scatter(-1, scores_BTE.detach().topk(top_k, dim=-1).indices, 1.0)
    load_BE = chosen_BTE.sum(1) * experts / (top_k * tokens)
    share_BE = (scores_BTE / scores_BTE.sum(-1, keepdim=True)).mean(1)
    return (load_BE * share_BE).sum(-1).mean()
