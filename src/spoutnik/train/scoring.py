"""What a model says of given tokens: the one place where training computes log-probabilities of answers."""

import torch
from torch import Tensor

from spoutnik.model.transformer import CausalLM


def answer_logits(model: CausalLM, ids_BT: Tensor, mask_BT: Tensor) -> Tensor:
    """Logits [N, V] of the masked tokens only, row by row; the head, the dearest matrix of a small model, skips all other places."""
    hidden_BTD = model.hidden(ids_BT[:, :-1])
    return model.head(hidden_BTD[mask_BT[:, 1:] > 0])


def answer_logprobs(logits_NV: Tensor, ids_BT: Tensor, mask_BT: Tensor, temperature: float = 1.0) -> Tensor:
    """Log-probabilities [B, T] of the masked tokens at `temperature`, zero elsewhere."""
    chosen = mask_BT > 0
    chosen[:, 0] = False
    scaled_NV = logits_NV if temperature == 1.0 else logits_NV / temperature
    logprobs_N = -torch.nn.functional.cross_entropy(scaled_NV, ids_BT[chosen], reduction="none")
    return logprobs_N.new_zeros(ids_BT.shape).masked_scatter(chosen, logprobs_N)
