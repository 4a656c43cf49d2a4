import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_models import tiny_config
from torch import Tensor

from spoutnik.model.config import ModelConfig
from spoutnik.model.rope import embedding_scale, frequencies, rotate_halves, rotate_interleaved, rotation, softmax_scale


def published(mscale: float) -> ModelConfig:
    """The rotary sizes of DeepSeek-V3 and V2-Lite, which differ in `mscale` alone."""
    scaling = {
        "type": "yarn", "factor": 40, "beta_fast": 32, "beta_slow": 1, "mscale": mscale, "mscale_all_dim": mscale,
        "original_max_position_embeddings": 4096,
    }  # fmt: skip
    raw = tiny_config("deepseek-v3").to_hf() | {"qk_nope_head_dim": 128, "qk_rope_head_dim": 64, "rope_scaling": scaling}
    return ModelConfig.from_hf(raw)


def test_yarn_keeps_the_fast_channels_and_divides_the_slow_ones() -> None:
    plain_F = frequencies(published(1.0).with_(rope_scaling=None))
    ratio_F = plain_F / frequencies(published(1.0))
    assert len(ratio_F) == 32
    assert torch.allclose(ratio_F[:11], torch.ones(11))
    assert torch.allclose(ratio_F[23:], torch.full((9,), 40.0))
    ramp_F = (1 / ratio_F[10:24] - 1 / 40) / (1 - 1 / 40)
    assert torch.allclose(ramp_F, torch.linspace(1, 0, 14), atol=1e-5)


@pytest.mark.parametrize(("mscale", "squared"), [(1.0, 1.87385), (0.707, 1.58963)])
def test_yarn_scales_the_softmax_and_not_cos_and_sin(mscale: float, squared: float) -> None:
    config = published(mscale)
    assert embedding_scale(config) == 1.0
    assert softmax_scale(config) * 192**0.5 == pytest.approx(squared, abs=5e-6)


def test_without_yarn_the_softmax_scale_is_plain() -> None:
    assert softmax_scale(published(1.0).with_(rope_scaling=None)) == 192**-0.5
    assert softmax_scale(tiny_config("llama-3")) == 12**-0.5


def test_yarn_scales_cos_and_sin_where_no_mscale_is_named() -> None:
    yarn = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16}
    assert embedding_scale(tiny_config("qwen2", rope_scaling=yarn)) == pytest.approx(1.13863, abs=1e-5)
    assert embedding_scale(tiny_config("qwen2", rope_scaling=yarn | {"attention_factor": 0.5})) == 0.5


def test_llama_3_keeps_short_waves_and_stretches_long_ones() -> None:
    config = ModelConfig.from_hf(
        tiny_config("llama-3").to_hf() | {"head_dim": 128, "rope_scaling": {
            "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192,
        }}
    )  # fmt: skip
    ratio_F = frequencies(config.with_(rope_scaling=None)) / frequencies(config)
    assert torch.allclose(ratio_F[:29], torch.ones(29))
    assert torch.allclose(ratio_F[36:], torch.full((28,), 8.0))
    assert (ratio_F.diff() > -1e-5).all()


def turned(x: Tensor, position: int, frequencies_F: Tensor, interleaved: bool) -> Tensor:
    cos, sin = rotation(torch.tensor([[position]]), frequencies_F, 1.0)
    return (rotate_interleaved if interleaved else rotate_halves)(x.view(1, 1, 1, -1), cos.double(), sin.double()).flatten()


def test_interleaved_pairs_score_as_complex_numbers_do() -> None:
    query, key = torch.randn(2, 8, dtype=torch.float64)
    frequencies_F = torch.tensor([1.0, 0.3, 0.1, 0.01])
    found = turned(query, 11, frequencies_F, True) @ turned(key, 4, frequencies_F, True)
    pairs_q, pairs_k = (torch.view_as_complex(part.view(4, 2)) for part in (query, key))
    turn = torch.polar(torch.ones(4, dtype=torch.float64), 7 * frequencies_F.double())
    assert found.item() == pytest.approx((pairs_q * turn * pairs_k.conj()).sum().real.item(), abs=1e-6)


def test_interleaved_and_halves_score_alike_when_channels_are_reordered_and_only_then() -> None:
    query, key = torch.randn(2, 8, dtype=torch.float64)
    frequencies_F = torch.tensor([1.0, 0.3, 0.1, 0.01])
    order = torch.tensor([0, 2, 4, 6, 1, 3, 5, 7])
    interleaved = turned(query, 11, frequencies_F, True) @ turned(key, 4, frequencies_F, True)
    reordered = turned(query[order], 11, frequencies_F, False) @ turned(key[order], 4, frequencies_F, False)
    assert torch.allclose(interleaved, reordered)
    assert not torch.allclose(interleaved, turned(query, 11, frequencies_F, False) @ turned(key, 4, frequencies_F, False))


@settings(deadline=None, max_examples=60)
@given(
    near=st.integers(0, 4000), far=st.integers(0, 4000), shift=st.integers(0, 4000), interleaved=st.booleans(), seed=st.integers(0, 2**16)
)
def test_scores_depend_on_the_distance_alone(near: int, far: int, shift: int, interleaved: bool, seed: int) -> None:
    query, key = torch.randn(2, 64, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    frequencies_F = frequencies(published(1.0))

    def score(offset: int) -> float:
        left, right = (turned(x, at + offset, frequencies_F, interleaved) for x, at in ((query, near), (key, far)))
        return float(left @ right)

    # Angles are float32: at position 8000 they are known to 5e-4.
    assert score(shift) == pytest.approx(score(0), abs=0.05)


def test_rotation_keeps_dtype_and_length() -> None:
    for dtype, tolerance in ((torch.float32, 1e-5), (torch.bfloat16, 2e-2), (torch.float16, 2e-3)):
        x = torch.randn(2, 3, 4, 8).to(dtype)
        cos, sin = rotation(torch.arange(3)[None], torch.tensor([1.0, 0.3, 0.1, 0.01]), 1.0)
        for rotate in (rotate_interleaved, rotate_halves):
            out = rotate(x, cos, sin)
            assert out.dtype == dtype
            assert torch.allclose(out.float().norm(dim=-1), x.float().norm(dim=-1), rtol=tolerance)
