"""A teacher's distributions in the ids of a student whose tokenizer shares tokens with the teacher's."""

import math

import torch
from torch import Tensor

from spoutnik.teacher.base import TopK
from spoutnik.text.alignment import SharedTokens

LEAST = 1e-6
"""What a teacher that lacks some of the student's tokens is taken to give them, all together: of nothing the logarithm has no bound."""


def translate(logprobs_NV: Tensor, shared: SharedTokens, student_vocab: int) -> TopK:
    """The shared tokens in the student's ids, and as the rest what is left on either side.

    Where the student has no other tokens (`student_vocab` logits) there is no rest: the teacher's distribution is then taken among the
    shared ones.
    """
    ours_K, theirs_K = (torch.tensor(ids, device=logprobs_NV.device) for ids in (shared.ours, shared.theirs))
    kept = logprobs_NV[:, theirs_K]
    ids = ours_K[None].expand(len(kept), -1)
    if len(shared.ours) == student_vocab:
        return TopK(ids, kept.log_softmax(-1), torch.full_like(kept[:, 0], -torch.inf))
    others_N1 = logprobs_NV.index_fill(-1, theirs_K, -torch.inf).logsumexp(-1, keepdim=True)
    whole = torch.cat([kept, others_N1.clamp(min=math.log(LEAST))], -1).log_softmax(-1)
    return TopK(ids, whole[:, :-1], whole[:, -1])
