"""Distillation by a teacher's distributions over given answers (Hinton et al., arXiv 1503.02531; for language models, GKD with lambda = 0).

    loss = 1/tokens sum_i sum_t KL( pi_teacher(. | q, o_i<t) || pi(. | q, o_i<t) )      over the answers' tokens, wherever they come from

Two deviations. The temperature is 1: of a distribution whose tail is one outcome no other one is known, and a language model is asked at
about this temperature. No cross-entropy with the answer's own tokens is mixed in: where the teacher wrote the answer they are single draws
of the distribution that is known, and add nothing but noise.
"""

import torch
from torch import Tensor

from spoutnik.train.algorithms.streams import Streams, token_shares


def distributions_over_given(mask_BT: Tensor) -> Streams:
    """A pull towards the teacher on the masked tokens; every token counts alike."""
    nothing = torch.zeros_like(mask_BT)
    return Streams(nothing, nothing, token_shares(mask_BT))
