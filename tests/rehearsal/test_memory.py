"""The memory of a step without numbers is that of the same step with numbers."""

import pytest
import torch

from spoutnik.engine.cache import SlotCache
from spoutnik.model.config import ModelConfig
from spoutnik.model.init import initialise
from spoutnik.model.transformer import CausalLM
from spoutnik.rehearsal.memory import Batch, Meter, cached_bytes, training_peak
from spoutnik.train.algorithms.imitate import imitate
from spoutnik.train.algorithms.streams import objective
from spoutnik.train.optim import Optimizer
from spoutnik.train.scoring import answer_logits, answer_logprobs, computed_in

SMALL = ModelConfig(
    model_type="qwen2", vocab_size=500, hidden_size=64, intermediate_size=96, num_hidden_layers=3, num_attention_heads=4,
    num_key_value_heads=2, tie_word_embeddings=True,
)  # fmt: skip
BATCH = Batch(rows=4, length=40, answers=4 * 39)


class Real(Meter):
    """The same count of tensors that are really there."""

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        made = operation(*args, **(kwargs or {}))
        torch.utils._pytree.tree_map_only(torch.Tensor, self._see, made)
        return made


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_step_without_numbers_holds_as_much_as_a_real_one(dtype):
    with Real(0) as meter:
        model = CausalLM(SMALL)
        optimizer = Optimizer(model, 1e-3, 0.0)
        for parameter in model.parameters():
            parameter.grad = torch.empty_like(parameter)
        optimizer.step(1.0)
        initialise(model, 1)
        ids_BT, mask_BT = torch.ones(4, 40, dtype=torch.int64), torch.ones(4, 40)
        with computed_in(dtype, ids_BT):
            logits_NV = answer_logits(model, ids_BT, mask_BT).float()
        objective(imitate(mask_BT), answer_logprobs(logits_NV, ids_BT, mask_BT)).backward()
        del logits_NV
        optimizer.step(1.0)
    assert training_peak(SMALL, BATCH, dtype) == pytest.approx(meter.peak, rel=0.03)


def test_what_lies_beside_is_counted():
    alone = training_peak(SMALL, BATCH, "float32")
    weights = 4 * sum(parameter.numel() for parameter in CausalLM(SMALL).parameters())
    assert training_peak(SMALL, BATCH, "float32", [SMALL]) >= alone + weights
    logits = 4 * BATCH.answers * SMALL.vocab_size
    assert training_peak(SMALL, BATCH, "float32", [SMALL], distributions=True) >= alone + weights + logits
    assert training_peak(SMALL, BATCH, "float32", scaled=True) >= alone


def test_weights_gradients_and_moments_are_the_least():
    count = sum(parameter.numel() for parameter in CausalLM(SMALL).parameters())
    assert training_peak(SMALL, Batch(1, 2, 1), "float32") == pytest.approx(16 * count, rel=0.2)


@pytest.mark.parametrize(("prompt", "longest"), [(5, 3), (70, 200), (64, 1)])
def test_the_caches_growth_is_the_engines(prompt, longest):
    cache = SlotCache(1, SMALL.max_position_embeddings)
    for position in (torch.arange(prompt - 1), *torch.arange(prompt - 1, prompt + longest - 1)[:, None]):
        cache.place([0], position[None])
        for layer in range(SMALL.num_hidden_layers):
            heads = torch.ones(1, len(position), SMALL.num_key_value_heads, SMALL.head_dim)
            cache.extend(layer, heads, heads)
    held = sum(kind.nbytes for kinds in cache._layers.values() for kind in kinds)
    assert held <= cached_bytes(SMALL, prompt, longest, 4) <= 2 * held
