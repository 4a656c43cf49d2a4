"""What a training step and a sampling step hold at most, found by carrying them out on tensors without numbers.

The step is the trainers' own: their modules, losses and optimiser. Only sizes are computed, so a model of billions of parameters takes
seconds and no memory. What an allocator loses between tensors, and what the device's libraries keep for themselves, is not in it.
"""

import math
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only

from spoutnik.model.config import ModelConfig
from spoutnik.model.transformer import CausalLM
from spoutnik.recipe.tables import Dtype
from spoutnik.train.algorithms.imitate import imitate
from spoutnik.train.algorithms.streams import objective
from spoutnik.train.losses import reverse_kl
from spoutnik.train.optim import Optimizer
from spoutnik.train.scoring import answer_logits, answer_logprobs, computed_in

_ATEN = torch.ops.aten


class Meter(TorchDispatchMode):
    """Counts the bytes of all tensors that are made while it is on; `peak` is the most that lived at once.

    Where a mask picks places it picks `answers` of them, whatever it holds; a number that is asked for is 1.
    """

    def __init__(self, answers: int) -> None:
        super().__init__()
        self._answers = answers
        self._living: dict[int, weakref.ref[torch.UntypedStorage]] = {}
        self.now = self.peak = 0

    def __torch_dispatch__(self, operation: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if operation is _ATEN._local_scalar_dense.default:
            return 1.0
        if operation is _ATEN.index.Tensor and args[1][0] is not None and args[1][0].dtype == torch.bool:
            made = args[0].new_empty(self._answers, *args[0].shape[args[1][0].ndim :])
        else:
            made = operation(*args, **(kwargs or {}))
        tree_map_only(torch.Tensor, self._see, made)
        return made

    def _see(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        key, size = storage._cdata, storage.nbytes()
        if key in self._living:
            return

        def gone(_: object) -> None:
            self.now -= size
            del self._living[key]

        self._living[key] = weakref.ref(storage, gone)
        self.now += size
        self.peak = max(self.peak, self.now)


@dataclass(frozen=True)
class Batch:
    """What a model reads at once: rows of so many tokens with their padding, and how many of all these are answers'."""

    rows: int
    length: int
    answers: int


def training_peak(
    config: ModelConfig, batch: Batch, dtype: Dtype, frozen: Sequence[ModelConfig] = (), distributions: bool = False, scaled: bool = False,
) -> int:  # fmt: skip
    """Bytes of an optimiser step on `batch` with AdamW, weights in float32: weights, gradients, moments, activations and logits.

    `frozen` models lie beside and read the same batch: a reference, or with `distributions` teachers whose whole distributions are held.
    `scaled`: logits are divided by a temperature.
    """
    with FakeTensorMode(), Meter(batch.answers) as meter:
        model, beside = CausalLM(config), [CausalLM(other).requires_grad_(False) for other in frozen]
        optimizer = Optimizer(model, 1.0, 0.0)
        for parameter in model.parameters():
            parameter.grad = torch.empty_like(parameter)
        optimizer.step(1.0)  # now there are moments
        ids_BT = torch.ones(batch.rows, batch.length, dtype=torch.int64)
        mask_BT = torch.ones(batch.rows, batch.length)
        with computed_in(dtype, ids_BT):
            with torch.no_grad():
                said = [answer_logits(other, ids_BT, mask_BT).float().log_softmax(-1) for other in beside] if distributions else []
            logits_NV = answer_logits(model, ids_BT, mask_BT).float()
        logits_NV = logits_NV / 2 if scaled else logits_NV
        logprobs_BT = answer_logprobs(logits_NV, ids_BT, mask_BT)
        loss = objective(imitate(mask_BT), logprobs_BT)
        for log_probs_NV in said:
            loss = loss + reverse_kl(logits_NV, log_probs_NV).sum()
        if not distributions:
            for other in beside:
                with torch.no_grad(), computed_in(dtype, ids_BT):
                    answer_logprobs(answer_logits(other, ids_BT, mask_BT).float(), ids_BT, mask_BT)
        loss.backward()
        del logits_NV, logprobs_BT, loss, said
        torch.nn.utils.clip_grad_norm_(list(model.parameters()), 1.0)
        optimizer.step(1.0)
        return meter.peak


def cached_bytes(config: ModelConfig, prompt: int, longest: int, width: int) -> int:
    """Bytes that one sequence's cache grows to: doubled where it must grow, at most the model's context (see engine/cache.py)."""
    held = max(prompt, 64)
    while held < prompt + longest:
        held *= 2
    latent = config.kv_lora_rank + config.qk_rope_head_dim
    cells = latent if config.is_latent else 2 * config.num_key_value_heads * config.head_dim
    return min(held, config.max_position_embeddings) * cells * config.num_hidden_layers * width


def sampling_bytes(config: ModelConfig, rows: int, prompt: int, longest: int, width: int) -> int:
    """Bytes beside the weights while so many answers are sampled: the cache, and the logits of a step with what is made of them."""
    logits = rows * config.vocab_size * (3 * 4 + 8)  # logits, probabilities and their sums, these in float64
    growing = 1 + 1 / config.num_hidden_layers  # a layer's old cells lie beside the new ones while it grows
    return math.ceil(rows * cached_bytes(config, prompt, longest, width) * growing) + logits
