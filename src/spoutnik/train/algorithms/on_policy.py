"""On-policy distillation: the student's own samples, pulled towards the teacher (GKD, arXiv 2306.13649, lambda = 1).

    loss = 1/tokens sum_i sum_t KL( pi(. | q, o_i<t) || pi_teacher(. | q, o_i<t) ),      o_i drawn from pi

The divergence is the exact reverse KL over the vocabulary: the expectation of what log p_teacher - log p_student of the drawn token
estimates, so its gradient is less noisy. No gradient goes through the sampling.
"""

import torch
from torch import Tensor

from spoutnik.train.algorithms.streams import Streams, token_shares


def on_policy_distillation(mask_BT: Tensor) -> Streams:
    """A pull towards the teacher on the masked tokens, without any reward."""
    nothing = torch.zeros_like(mask_BT)
    return Streams(nothing, nothing, token_shares(mask_BT))
