"""DeepSeek-V3.2's GRPO: corrections of the objective (arXiv 2512.02556, section 3.1, equations 5 to 9); more in `train/as_sampled.py`.

Deviation: the paper names no delta; 0.5 nats a token is ours. Groups whose rewards agree are left out, as in GRPO.

    J = E[ 1/G sum_i 1/|o_i| sum_t  min(r_it A_i, clip(r_it, 1 - eps, 1 + eps) A_i) M_i - beta D_it ]

    A_i  = R_i - mean(R)
    D_it = pi / pi_sampler * ( pi_ref / pi - log(pi_ref / pi) - 1 )
    M_i  = 0 if A_i < 0 and 1/|o_i| sum_t log(pi_sampler(o_it) / pi(o_it)) > delta, else 1

GRPO's estimate of the divergence is unbiased, but not its gradient: that is the gradient of KL(pi_ref || pi), the other way round, and it
pushes without bound where the policy gives a token far less than the reference does. Weighed by the ratio, both are those of
KL(pi || pi_ref). The mask leaves out bad answers that the policy would hardly give any more: nothing is to be learnt from them.
"""

from dataclasses import replace

import torch
from torch import Tensor

from spoutnik.train.algorithms.groups import centred_advantages
from spoutnik.train.algorithms.streams import Streams, answer_shares, policy_streams
from spoutnik.train.losses import k3_kl


def v32(rewards_PG: Tensor, mask_BT: Tensor, kl_coef: float, answers: int) -> Streams:
    """Rows of `mask_BT` are the samples, prompt by prompt; `answers` counts those of groups that were left out, too."""
    return policy_streams(centred_advantages(rewards_PG).flatten(), answer_shares(mask_BT, answers), kl_coef)


def unbiased_kl(logprobs_BT: Tensor, reference_logprobs_BT: Tensor, log_ratio_BT: Tensor) -> Tensor:
    """D_it: over the sampler's tokens its expectation is KL(pi || pi_ref), and that of its gradient (the ratio's included) the gradient."""
    return log_ratio_BT.exp() * k3_kl(logprobs_BT, reference_logprobs_BT)


def off_policy_mask(advantages_BT: Tensor, log_ratio_BT: Tensor, mask_BT: Tensor, delta: float) -> Tensor:
    """M_i as bool [B, 1]; `advantages_BT` may hold shares, of which only the sign counts. Takes no gradient."""
    with torch.no_grad():
        drift_B1 = -(log_ratio_BT * mask_BT).sum(-1, keepdim=True) / mask_BT.sum(-1, keepdim=True).clamp(min=1)
        return ~((advantages_BT < 0).any(-1, keepdim=True) & (drift_B1 > delta))


def without_off_policy(streams: Streams, log_ratio_BT: Tensor, mask_BT: Tensor, delta: float) -> Streams:
    """The streams with the advantages of masked answers set to zero; the pull towards the reference stays, as in equation 8."""
    return replace(streams, advantages=streams.advantages * off_policy_mask(streams.advantages, log_ratio_BT, mask_BT, delta))
