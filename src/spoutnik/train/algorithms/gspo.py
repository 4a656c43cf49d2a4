"""GSPO: group sequence policy optimisation (arXiv 2507.18071, equations 5 to 7).

Deviation: none known; groups whose rewards agree are left out as in GRPO, which changes nothing without a divergence.

    J = E[ 1/G sum_i  min(s_i A_i, clip(s_i, 1 - eps_low, 1 + eps_high) A_i) ]

    s_i = (pi(o_i | q) / pi_sampler(o_i | q))^(1/|o_i|) = exp( 1/|o_i| sum_t log(pi(o_it) / pi_sampler(o_it)) )
    A_i = (R_i - mean(R)) / std(R)

One ratio an answer, as there is one reward an answer: it is clipped or not as a whole, and single tokens that an expert changed hands for
weigh little. The paper's values: eps_low 3e-4, eps_high 4e-4, no divergence, four mini-batches of a rollout.
"""

from torch import Tensor

from spoutnik.train.algorithms.groups import group_advantages
from spoutnik.train.algorithms.streams import Streams, answer_shares, policy_streams


def gspo(rewards_PG: Tensor, mask_BT: Tensor, kl_coef: float, answers: int) -> Streams:
    """Rows of `mask_BT` are the samples, prompt by prompt; `answers` counts those of groups that were left out, too.

    Together with `sequence_log_ratio`: an answer's |o_i| equal terms of 1/|o_i| each are the printed one.
    """
    return policy_streams(group_advantages(rewards_PG).flatten(), answer_shares(mask_BT, answers), kl_coef)


def sequence_log_ratio(log_ratio_BT: Tensor, mask_BT: Tensor) -> Tensor:
    """log s_i at every token of its answer, zero elsewhere. [B, T]"""
    mean_B1 = (log_ratio_BT * mask_BT).sum(-1, keepdim=True) / mask_BT.sum(-1, keepdim=True).clamp(min=1)
    return mean_B1 * mask_BT
