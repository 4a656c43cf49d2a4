"""Group-relative policy optimisation, as DeepSeek-R1 uses it (arXiv 2501.12948, equations 1 to 3; DeepSeekMath, arXiv 2402.03300).

Deviations. R1 prints the ratio and the divergence of whole answers; as in DeepSeekMath, which introduced them, both are per token here and
averaged over the answer. Groups whose rewards agree are left out: their advantages are zero, and the pull towards the reference that
they would add is small. They count in the average.

    J = E[ 1/G sum_i 1/|o_i| sum_t  min(r_it A_i, clip(r_it, 1 - eps, 1 + eps) A_i) - beta D_it ]

    r_it = pi(o_it | q, o_i<t) / pi_sampler(o_it | q, o_i<t)
    D_it = pi_ref / pi - log(pi_ref / pi) - 1        (of the token o_it; `losses.k3_kl`)
    A_i  = (R_i - mean(R)) / std(R)                  (within the group of one question; std over G, not G - 1)

R1's values: eps 10, beta 0.001, G 16, the reference replaced by the policy every 400 steps.
"""

from typing import Literal

from torch import Tensor

from spoutnik.train.algorithms.groups import group_advantages
from spoutnik.train.algorithms.streams import Streams, answer_shares, policy_streams, token_shares


def grpo(rewards_PG: Tensor, mask_BT: Tensor, kl_coef: float, answers: int, average: Literal["answers", "tokens"] = "answers") -> Streams:
    """Rows of `mask_BT` are the samples, prompt by prompt; `answers` counts those of groups that were left out, too.

    `average` "tokens" takes the mean over all tokens instead, as DAPO does, so that long answers are not favoured when wrong.
    """
    share_BT = answer_shares(mask_BT, answers) if average == "answers" else token_shares(mask_BT)
    return policy_streams(group_advantages(rewards_PG).flatten(), share_BT, kl_coef)
