"""Direct preference optimisation (arXiv 2305.18290, equation 7).

Deviation: none.

    loss = - 1/pairs sum log sigma( beta * margin ),   margin = log(pi(w|q) / pi_ref(w|q)) - log(pi(l|q) / pi_ref(l|q))

for a chosen answer w and a rejected answer l. Its gradient (the paper's section 4) gives every token of a pair the same weight, up for the
chosen and down for the rejected answer: beta * sigma(-beta * margin) / pairs. So these weights, taken as constants, are a stream of
cross-entropy whose gradient is the loss's own.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from spoutnik.train.algorithms.streams import Streams


def margins(logprobs_BT: Tensor, reference_B: Tensor) -> Tensor:
    """[P] of rows in the order chosen, rejected, chosen, ...; `reference_B` are the reference's log-probabilities of whole answers."""
    gain_P2 = (logprobs_BT.sum(-1) - reference_B).view(-1, 2)
    return gain_P2[:, 0] - gain_P2[:, 1]


def preference_loss(margin_P: Tensor, beta: float) -> Tensor:
    """Equation 7."""
    return -F.logsigmoid(beta * margin_P).mean()


def dpo(margin_P: Tensor, mask_BT: Tensor, beta: float) -> Streams:
    """The streams of whole pairs; rows of `mask_BT` as in `margins`."""
    weight_P = beta * torch.sigmoid(-beta * margin_P.detach()) / len(margin_P)
    nothing = torch.zeros_like(mask_BT)
    return Streams(nothing, torch.stack((weight_P, -weight_P), -1).view(-1, 1) * mask_BT, nothing)
