from collections.abc import Callable

import pytest
import torch
from tiny_models import RAW, RowCache, error, tiny_config, tiny_model
from torch import Tensor
from torch.func import functional_call

from spoutnik.model.attention import GroupedQueryAttention, MultiHeadLatentAttention, Span, attend
from spoutnik.model.config import ModelConfig
from spoutnik.model.rope import frequencies, rotation
from spoutnik.model.transformer import CausalLM


def latent_attention(dtype: torch.dtype, **changes: int) -> MultiHeadLatentAttention:
    torch.manual_seed(0)
    return MultiHeadLatentAttention(tiny_config("deepseek-v3", **changes), layer=0).to(dtype)


def latent_inputs(attention: MultiHeadLatentAttention, rows: int, queries: int, keys: int) -> list[Tensor]:
    dtype, heads = attention.o_proj.weight.dtype, attention.num_heads
    shapes = [(rows, queries, heads, attention.nope), (rows, queries, heads, attention.rope)]
    shapes += [(rows, keys, attention.kv_lora_rank), (rows, keys, attention.rope)]
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype) for shape in shapes]


def masks(queries: int, keys: int) -> list[Tensor | None]:
    """Plainly causal, and two rows at different places in a longer cache."""
    starts_B1 = torch.tensor([[keys - queries], [max(keys - queries - 2, 0)]])
    positions_BT = starts_B1 + torch.arange(queries)
    return [None, (torch.arange(keys) <= positions_BT[:, :, None])[:, None]]


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5), (torch.bfloat16, 2e-2), (torch.float16, 3e-3)]
)
def test_absorbed_and_naive_are_one_function(dtype: torch.dtype, tolerance: float) -> None:
    attention = latent_attention(dtype)
    for queries, keys in ((7, 7), (1, 1), (1, 9), (3, 9)):
        for mask in masks(queries, keys):
            if mask is None and queries != keys:
                continue
            inputs = latent_inputs(attention, rows=2, queries=queries, keys=keys)
            naive, absorbed = attention.naive(*inputs, mask), attention.absorbed(*inputs, mask)
            assert naive.shape == (2, queries, attention.num_heads, attention.value)
            assert absorbed.isfinite().all()
            assert error(absorbed, naive) < tolerance


@pytest.mark.parametrize("form", ["naive", "absorbed"])
def test_gradients_of_both_latent_forms(form: str) -> None:
    attention = latent_attention(
        torch.float64, num_attention_heads=2, num_key_value_heads=2, kv_lora_rank=3, qk_nope_head_dim=2, qk_rope_head_dim=2, v_head_dim=3
    )  # fmt: skip
    function: Callable[..., Tensor] = getattr(attention, form)
    inputs = [part.requires_grad_() for part in latent_inputs(attention, rows=1, queries=2, keys=4)]
    mask = (torch.arange(4) <= torch.tensor([[2], [3]]))[None, None]
    assert torch.autograd.gradcheck(lambda *parts: function(*parts, mask), inputs)

    def of_weight(weight: Tensor) -> Tensor:
        with torch.nn.utils.stateless._reparametrize_module(attention, {"kv_b_proj.weight": weight}):
            return function(*inputs, mask)

    assert torch.autograd.gradcheck(of_weight, [attention.kv_b_proj.weight.detach().clone().requires_grad_()])


def small_config(**changes: object) -> ModelConfig:
    return ModelConfig.from_hf(
        {
            "model_type": "deepseek_v3", "vocab_size": 7, "hidden_size": 6, "intermediate_size": 8, "num_hidden_layers": 1,
            "num_attention_heads": 2, "q_lora_rank": 4, "kv_lora_rank": 3, "qk_nope_head_dim": 2, "qk_rope_head_dim": 2,
            "v_head_dim": 3, "first_k_dense_replace": 1, **changes,
        }
    )  # fmt: skip


@pytest.mark.parametrize("family", ["latent", "latent without query compression", "grouped"])
def test_gradients_of_a_whole_attention_layer(family: str) -> None:
    torch.manual_seed(0)
    if family == "grouped":
        config = small_config(model_type="qwen2", num_key_value_heads=1, head_dim=4)
        layer: torch.nn.Module = GroupedQueryAttention(config, 0).double()
    else:
        config = small_config(q_lora_rank=None) if "without" in family else small_config()
        layer = MultiHeadLatentAttention(config, 0).double()
    cos, sin = (part.double() for part in rotation(torch.arange(3)[None], frequencies(config), 1.0))
    names = [name for name, _ in layer.named_parameters()]
    values = [torch.randn_like(value).requires_grad_() for value in layer.parameters()]
    x_BTD = torch.randn(1, 3, config.hidden_size, dtype=torch.float64, requires_grad=True)

    def function(x: Tensor, *weights: Tensor) -> Tensor:
        return functional_call(layer, dict(zip(names, weights, strict=True)), (x, Span(cos, sin, None), None))

    assert torch.autograd.gradcheck(function, [x_BTD, *values])


@torch.no_grad()
def decode(model: CausalLM, ids_BT: Tensor, chunk: int) -> Tensor:
    """Logits through a cache, `chunk` tokens at a call, the second row three tokens ahead of the first."""
    rows, tokens = ids_BT.shape
    cache, out = RowCache(rows, tokens), torch.zeros(rows, tokens, model.config.vocab_size)

    def feed(live: Tensor, positions_BT: Tensor) -> None:
        at = (live[:, None], positions_BT)
        out[at] = model(ids_BT[at], positions_BT, cache.at(live, positions_BT))

    ahead = 3
    feed(torch.tensor([1]), torch.arange(ahead)[None])
    for start in range(0, tokens - ahead, chunk):
        step = torch.arange(start, min(start + chunk, tokens - ahead))
        feed(torch.tensor([0, 1]), torch.stack((step, step + ahead)))
    feed(torch.tensor([0]), torch.arange(tokens - ahead, tokens)[None])
    return out


@pytest.mark.parametrize("chunk", [1, 4])
@pytest.mark.parametrize("name", RAW)
def test_cached_decoding_equals_the_full_forward(name: str, chunk: int) -> None:
    model = tiny_model(name)
    ids_BT = torch.randint(0, 97, (2, 18), generator=torch.Generator().manual_seed(4))
    with torch.no_grad():
        assert error(decode(model, ids_BT, chunk), model(ids_BT)) < 1e-5


def test_one_token_without_a_cache_is_the_first_of_many() -> None:
    for name in RAW:
        model = tiny_model(name)
        ids_BT = torch.tensor([[5, 6, 7]])
        with torch.no_grad():
            assert error(model(ids_BT[:, :1]), model(ids_BT)[:, :1]) < 1e-5


def test_what_follows_a_token_never_changes_it() -> None:
    for name in RAW:
        model = tiny_model(name)
        ids_BT = torch.randint(0, 97, (1, 12))
        padded_BT = ids_BT.clone()
        padded_BT[:, 7:] = 0
        with torch.no_grad():
            assert error(model(padded_BT)[:, :7], model(ids_BT)[:, :7]) < 1e-5


@pytest.mark.parametrize("name", ["mistral", "llama", "deepseek-v3"])
def test_only_relative_positions_matter_even_without_a_cache(name: str) -> None:
    model = tiny_model(name)
    ids_BT = torch.randint(0, 97, (2, 12), generator=torch.Generator().manual_seed(5))
    with torch.no_grad():
        assert error(model(ids_BT, torch.arange(12)[None] + torch.tensor([[3], [90]])), model(ids_BT)) < 1e-4


def test_a_query_that_may_look_at_nothing_spoils_no_other() -> None:
    attention = latent_attention(torch.float32)
    inputs = latent_inputs(attention, rows=2, queries=1, keys=5)
    mask = torch.ones(2, 1, 1, 5, dtype=torch.bool)
    mask[0] = False
    for form in (attention.naive, attention.absorbed):
        assert torch.equal(form(*inputs, mask)[1], form(*inputs, torch.ones_like(mask))[1])


def test_heads_of_a_group_share_their_key() -> None:
    query, key, value = torch.randn(1, 4, 6, 8), torch.randn(1, 4, 2, 8), torch.randn(1, 4, 2, 5)
    repeated = attend(query, key.repeat_interleave(3, 2), value.repeat_interleave(3, 2), None, 0.3)
    assert torch.allclose(attend(query, key, value, None, 0.3), repeated, atol=1e-6)
