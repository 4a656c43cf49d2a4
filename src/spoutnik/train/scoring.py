"""What a model says of given tokens: the one place where training computes log-probabilities of answers."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from spoutnik.engine.generator import Engine
from spoutnik.engine.scoring import Given
from spoutnik.model.moe import Routing
from spoutnik.model.transformer import CausalLM
from spoutnik.recipe.tables import Dtype
from spoutnik.train.rollouts import Rollout

WIDTH, ROWS, FEW = 16, 128, 8192
"""In a lower precision, lengths and numbers of answers' tokens are rounded up to multiples of WIDTH and ROWS. oneDNN makes kernels for each
shape and keeps them: a fine-tuning of 300 steps, each of a new shape, held twice the memory, and what it left slowed later stages down.
Batches of more than FEW tokens are left alone: they come in few steps, and a copy of their logits takes more than kernels do."""


def answer_logits(model: CausalLM, ids_BT: Tensor, mask_BT: Tensor, routing: Routing | None = None) -> Tensor:
    """Logits [N, V] of the masked tokens only, row by row; the head, the dearest matrix of a small model, skips all other places."""
    ids_BT, places_BT = ids_BT[:, :-1], mask_BT[:, 1:] > 0
    if routing is not None or ids_BT.numel() > FEW or not torch.is_autocast_enabled(ids_BT.device.type):
        return model.head(model.hidden(ids_BT, routing=routing)[places_BT])
    more = -ids_BT.shape[1] % WIDTH
    hidden_ND = model.hidden(pad(ids_BT, (0, more)))[pad(places_BT, (0, more))]
    return model.head(pad(hidden_ND, (0, 0, 0, -len(hidden_ND) % ROWS)))[: len(hidden_ND)]


def computed_in(dtype: Dtype, ids_BT: Tensor) -> torch.autocast:
    """A context in which the modules multiply in `dtype` where `ids_BT` is; weights stay float32."""
    return torch.autocast(ids_BT.device.type, dtype=torch.bfloat16, enabled=dtype == "bfloat16")


def answer_logprobs(logits_NV: Tensor, ids_BT: Tensor, mask_BT: Tensor, temperature: float = 1.0) -> Tensor:
    """Log-probabilities [B, T] of the masked tokens at `temperature`, zero elsewhere."""
    scaled_NV = logits_NV if temperature == 1.0 else logits_NV / temperature
    logprobs_N = -torch.nn.functional.cross_entropy(scaled_NV, ids_BT[answer_places(mask_BT)], reduction="none")
    return placed(logprobs_N, mask_BT)


def answer_places(mask_BT: Tensor) -> Tensor:
    """[B, T] bool: the masked tokens that something precedes, which are those that have logits."""
    places_BT = mask_BT > 0
    places_BT[:, 0] = False
    return places_BT


def placed(values_N: Tensor, mask_BT: Tensor) -> Tensor:
    """Values of the tokens that have logits, row by row, at their places [B, T]; zero elsewhere."""
    return values_N.new_zeros(mask_BT.shape).masked_scatter(answer_places(mask_BT), values_N)


def engine_logprobs(engine: Engine, rollouts: Sequence[Rollout], mask_BT: Tensor, temperature: float) -> Tensor:
    """The same [B, T] of rollouts' answers by the engine; a row of `mask_BT` is a rollout, prompt and answer."""
    return spread(_scores(engine, rollouts, temperature), mask_BT)


def rescored(engine: Engine, rollouts: Sequence[Rollout], temperature: float) -> float:
    """Mean distance of what the engine says of the tokens, now given, to what their sampler said; 0 if it is exact and sampled them."""
    scores = _scores(engine, rollouts, temperature)
    gaps = [abs(a - b) for found, rollout in zip(scores, rollouts, strict=True) for a, b in zip(found, rollout.logprobs, strict=True)]
    return sum(gaps) / len(gaps)


def spread(logprobs: Sequence[Sequence[float]], mask_BT: Tensor) -> Tensor:
    """One list a row, of its masked places from left to right, as float32 [B, T], zero elsewhere."""
    values_N = torch.tensor([value for row in logprobs for value in row], dtype=torch.float32, device=mask_BT.device)
    return torch.zeros_like(mask_BT).masked_scatter(mask_BT > 0, values_N)


def with_values(logprobs: Tensor, values: Tensor) -> Tensor:
    """`values`, with the derivative of `logprobs`: two computations of one function, of which only the second can be derived.

    The kernels that sampled say what a log-probability is, the modules how it changes. The ratio of the policy gradient then compares one
    function at two sets of weights: before the first update it is exactly 1 and the divergence from an equal reference exactly 0; later
    both hold what updates have moved and nothing else. With values of the modules they would also hold the distance between the two
    computations, on which the exponential and the clip act. That distance is left in the derivative alone, which is one of the modules'
    function: it is as good as the two agree, so their gap is logged and limited at every step.
    """
    return _Values.apply(logprobs, values)


def _scores(engine: Engine, rollouts: Sequence[Rollout], temperature: float) -> list[list[float]]:
    return engine.score([Given([*r.prompt_ids, *r.token_ids], len(r.prompt_ids)) for r in rollouts], temperature)


class _Values(torch.autograd.Function):
    @staticmethod
    def forward(context: Any, logprobs: Tensor, values: Tensor) -> Tensor:
        return values.clone()

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return gradients[0], None
