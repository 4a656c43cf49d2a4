"""On-policy distillation: the student's own samples, pulled towards the teacher (GKD, arXiv 2306.13649, lambda = 1).

    loss = 1/tokens sum_i sum_t KL( pi(. | q, o_i<t) || pi_teacher(. | q, o_i<t) ),      o_i drawn from pi

The divergence is the exact reverse KL over the vocabulary: the expectation of what log p_teacher - log p_student of the drawn token
estimates, so its gradient is less noisy. No gradient goes through the sampling. With several teachers (MOPD, arXiv 2606.30406) each problem
has one, that of its task.

A teacher that cuts text otherwise says nothing of single tokens. There every chunk c, a shortest stretch of text at whose ends both ways
to cut it agree, is one action, and its tokens share the sampled estimate as their advantage:

    A_t = log p_teacher(c) - log p_student(c)      without gradient, for each token t of c
"""

from torch import Tensor

from spoutnik.train.algorithms.streams import Clip, Streams, token_shares

FREE = Clip(1.0, 1.0)
"""For a ratio that is 1: the only update is the first."""


def on_policy_distillation(mask_BT: Tensor, advantages_BT: Tensor) -> Streams:
    """A pull towards the teacher on the masked tokens, without any reward; `advantages_BT` is zero where the divergence is exact."""
    share_BT = token_shares(mask_BT)
    return Streams(advantages_BT * share_BT, mask_BT * 0.0, share_BT)
