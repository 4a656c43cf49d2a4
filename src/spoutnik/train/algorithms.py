"""An algorithm says who deserves credit; one objective turns that into a loss. Nothing else differs between SFT, GRPO and distillation.

loss = sum over tokens of  policy * clipped policy loss + ce * cross-entropy + kl * divergence from the reference
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from spoutnik.train.losses import policy_loss

SMALLEST_DIFFERENCE = 1e-5
"""Rewards closer than this are equal: a mean of equal rewards differs from them by rounding, and dividing by std would blow that up."""


@dataclass(frozen=True)
class Streams:
    """Per-token weights, float32 [B, T], zero where a token does not count."""

    advantages: Tensor
    """Policy-gradient stream."""
    ce: Tensor
    """Imitation stream."""
    kl: Tensor
    """Pull towards the reference."""


def has_signal(rewards_PG: Tensor) -> Tensor:
    """[P] bool: whether the rewards of a group differ by more than their rounding, so that there is something to learn."""
    return rewards_PG.amax(-1) - rewards_PG.amin(-1) > SMALLEST_DIFFERENCE


def group_advantages(rewards_PG: Tensor) -> Tensor:
    """A = (r - mean) / std within the G samples of each prompt (DeepSeek-R1, equation 3). [P, G]; zero where all rewards agree."""
    centred_PG = rewards_PG - rewards_PG.mean(-1, keepdim=True)
    std_P1 = rewards_PG.std(-1, keepdim=True, correction=0)
    return torch.where(has_signal(rewards_PG)[:, None], centred_PG / std_P1, 0.0)


def grpo(rewards_PG: Tensor, mask_BT: Tensor, kl_coef: float) -> Streams:
    """Group-relative policy optimisation (DeepSeek-R1, section 2.2.1). Rows of `mask_BT` are the samples, prompt by prompt.

    Deviation from the printed objective, which averages each answer first: tokens are averaged over the whole batch, so that long
    answers are not favoured when wrong (the token-level loss of DAPO, arXiv 2503.14476).
    """
    advantages_B = group_advantages(rewards_PG).flatten()
    return Streams(advantages_B[:, None] * mask_BT, torch.zeros_like(mask_BT), kl_coef * mask_BT)


def imitate(mask_BT: Tensor) -> Streams:
    """SFT and distillation by samples: cross-entropy on the answer's tokens."""
    nothing = torch.zeros_like(mask_BT)
    return Streams(nothing, mask_BT, nothing)


def on_policy_distillation(mask_BT: Tensor) -> Streams:
    """The student's own samples, pulled towards the teacher as the reference, without any reward (GKD, arXiv 2306.13649, lambda = 1).

    The divergence is the exact reverse KL over the vocabulary: the expectation of what log p_teacher - log p_student of the drawn token
    estimates, so its gradient is less noisy.
    """
    nothing = torch.zeros_like(mask_BT)
    return Streams(nothing, nothing, mask_BT)


def objective(
    streams: Streams, logprobs_BT: Tensor, sampler_logprobs_BT: Tensor, divergence_BT: Tensor | None, clip: float, tokens: float
) -> Tensor:
    """The loss of a (micro-)batch: streams times per-token losses, summed and divided by `tokens`, the count of the whole batch.

    `divergence_BT` is the distance to the reference, estimated (`k3_kl`) or exact (`reverse_kl`); None where no kl stream is set.
    """
    loss_BT = policy_loss(logprobs_BT, sampler_logprobs_BT, streams.advantages, clip) - streams.ce * logprobs_BT
    if divergence_BT is not None:
        loss_BT = loss_BT + streams.kl * divergence_BT
    return loss_BT.sum() / max(tokens, 1.0)
