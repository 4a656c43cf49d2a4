"""Supervised fine-tuning, and distillation by a teacher's samples.

    loss = - 1/tokens sum_i sum_t log pi(o_it | q, o_i<t)      over the answers' tokens, thinking and end of turn included

Every token of the batch counts alike, however long its answer.
"""

import torch
from torch import Tensor

from spoutnik.train.algorithms.streams import Streams, token_shares


def imitate(mask_BT: Tensor) -> Streams:
    """Cross-entropy on the masked tokens."""
    nothing = torch.zeros_like(mask_BT)
    return Streams(nothing, token_shares(mask_BT), nothing)
