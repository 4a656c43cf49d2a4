"""DAPO: decoupled clip and dynamic sampling (arXiv 2503.14476, equations 8 to 13).

Deviations. The printed average is over the tokens of one group, here over those of the mini-batch. A group is drawn anew where all its
rewards agree, not where all its answers are right or all wrong: with a reward for format both may differ.

    J = E[ 1/sum_i |o_i| sum_i sum_t  min(r_it A_i, clip(r_it, 1 - eps_low, 1 + eps_high) A_i) ]
    such that the rewards of a group differ    (dynamic sampling)

    A_i = (R_i - mean(R)) / std(R)
    R_i = reward_i + P(|o_i|)                  (soft overlong punishment, equation 13)
    P(l) = 0                                   if l <= L_max - L_cache
           ((L_max - L_cache) - l) / L_cache   if L_max - L_cache < l <= L_max
           -1                                  if L_max < l

The paper's values: eps_low 0.2, eps_high 0.28, L_cache a fifth of L_max, no divergence. Sampling anew is done by `train/rl.py`.
"""

import torch
from torch import Tensor

from spoutnik.train.algorithms.groups import group_advantages
from spoutnik.train.algorithms.streams import Streams, policy_streams, token_shares


def dapo(rewards_PG: Tensor, mask_BT: Tensor, kl_coef: float) -> Streams:
    """Rows of `mask_BT` are the samples, prompt by prompt."""
    return policy_streams(group_advantages(rewards_PG).flatten(), token_shares(mask_BT), kl_coef)


def overlong_penalty(lengths: Tensor, longest: int, cache: int) -> Tensor:
    """Equation 13, float32, between -1 and 0: what is added to the reward of answers of so many tokens. `cache` is at least 1."""
    return ((longest - cache - lengths) / cache).clamp(-1.0, 0.0).to(torch.float32)
