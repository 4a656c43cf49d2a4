"""Advantages within a group: the G samples of a prompt are each other's baseline. Letters: P prompts, G samples of each."""

import torch
from torch import Tensor

SMALLEST_DIFFERENCE = 1e-5
"""Rewards closer than this are equal: a mean of equal rewards differs from them by rounding, and dividing by std would blow that up."""


def has_signal(rewards_PG: Tensor) -> Tensor:
    """[P] bool: whether the rewards of a group differ by more than their rounding, so that there is something to learn."""
    return rewards_PG.amax(-1) - rewards_PG.amin(-1) > SMALLEST_DIFFERENCE


def group_advantages(rewards_PG: Tensor) -> Tensor:
    """A = (r - mean) / std within the group (DeepSeek-R1, equation 3). [P, G]; zero where all rewards agree."""
    std_P1 = rewards_PG.std(-1, keepdim=True, correction=0)
    return torch.where(has_signal(rewards_PG)[:, None], (rewards_PG - rewards_PG.mean(-1, keepdim=True)) / std_P1, 0.0)


def centred_advantages(rewards_PG: Tensor) -> Tensor:
    """A = r - mean within the group. [P, G]; zero where all rewards agree."""
    return torch.where(has_signal(rewards_PG)[:, None], rewards_PG - rewards_PG.mean(-1, keepdim=True), 0.0)
