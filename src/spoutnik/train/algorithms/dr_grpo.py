"""Dr. GRPO: GRPO without its two biases (arXiv 2503.20783, section 3).

Deviation: the paper's code divides by a constant of its choice, here by the most tokens that an answer may have.

    J = E[ 1/G sum_i 1/L sum_t  min(r_it A_i, clip(r_it, 1 - eps, 1 + eps) A_i) ]

    A_i = R_i - mean(R)      (no std: a group of nearly equal rewards does not weigh more)
    L   = max_new_tokens     (no 1/|o_i|: a long wrong answer is not blamed less per token than a short one)

The expected gradient is that of the expected reward, up to the factors 1/L and (G - 1)/G. The paper has no divergence (beta 0).
"""

from torch import Tensor

from spoutnik.train.algorithms.groups import centred_advantages
from spoutnik.train.algorithms.streams import Streams, policy_streams


def dr_grpo(rewards_PG: Tensor, mask_BT: Tensor, kl_coef: float, answers: int, longest: int) -> Streams:
    """Rows of `mask_BT` are the samples, prompt by prompt; `answers` counts those of groups that were left out, too."""
    return policy_streams(centred_advantages(rewards_PG).flatten(), mask_BT / (answers * longest), kl_coef)
