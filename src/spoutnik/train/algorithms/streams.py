"""Loss streams: an algorithm says who deserves credit, and one objective turns that into a loss. Nothing else differs between algorithms.

    loss = sum over tokens of  clipped policy loss(advantages) - ce * log-probability + kl * divergence from the reference

How tokens are averaged is part of the weights: most published algorithms differ in little else.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from spoutnik.train.losses import policy_loss


@dataclass(frozen=True)
class Streams:
    """Per-token weights, [B, T] each, zero where a token does not count; each token's share of the average is in them."""

    advantages: Tensor
    """Policy-gradient stream."""
    ce: Tensor
    """Imitation stream."""
    kl: Tensor
    """Pull towards the reference."""

    def rows(self, rows: list[int], longest: int) -> "Streams":
        """Some rows, cut to their first `longest` places."""
        return Streams(*(stream[rows, :longest] for stream in (self.advantages, self.ce, self.kl)))


@dataclass(frozen=True)
class Clip:
    """The ratio's bounds 1 - low and 1 + high, beyond which an update gains nothing."""

    low: float
    high: float


def policy_streams(advantages_B: Tensor, share_BT: Tensor, kl_coef: float) -> Streams:
    """Streams of an algorithm that gives a whole answer one advantage and pulls it to the reference by `kl_coef`."""
    return Streams(advantages_B[:, None] * share_BT, torch.zeros_like(share_BT), kl_coef * share_BT)


def answer_shares(mask_BT: Tensor, answers: int) -> Tensor:
    """Every answer counts alike: 1 / (answers * |o_i|) for each token. `answers` may count some that are left out."""
    return mask_BT / (mask_BT.sum(-1, keepdim=True).clamp(min=1) * answers)


def token_shares(mask_BT: Tensor) -> Tensor:
    """Every token counts alike: 1 / (tokens of all answers)."""
    return mask_BT / mask_BT.sum().clamp(min=1)


def objective(
    streams: Streams,
    logprobs_BT: Tensor,
    log_ratio_BT: Tensor | None = None,
    clip: Clip | None = None,
    divergence_BT: Tensor | None = None,
) -> Tensor:
    """The loss of a (micro-)batch: streams times per-token losses, summed.

    `log_ratio_BT` is what the policy makes of a token over what the sampler made of it; it and `clip` are None where no advantage is set.
    `divergence_BT` is the distance to the reference, estimated or exact; None where no kl stream is set.
    """
    loss_BT = -streams.ce * logprobs_BT
    if log_ratio_BT is not None and clip is not None:
        loss_BT = loss_BT + policy_loss(log_ratio_BT, streams.advantages, clip.low, clip.high)
    if divergence_BT is not None:
        loss_BT = loss_BT + streams.kl * divergence_BT
    return loss_BT.sum()
