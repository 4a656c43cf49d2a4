"""Rotary position embedding: the frequencies (plain, YaRN, Llama 3, linear) and the two ways of pairing channels.

Sources: RoFormer (arXiv 2104.09864); YaRN (arXiv 2309.00071) as in DeepSeek-V3, section 4.3; Llama 3.1's frequency smoothing.
Letters: B rows, T tokens, H heads, R rotary channels, F = R / 2 frequencies.
"""

import math

import torch
from torch import Tensor

from spoutnik.model.config import ModelConfig


def frequencies(config: ModelConfig) -> Tensor:
    """Angular frequency of each channel pair, float32 [F], after the context extension that the configuration names."""
    dim = config.qk_rope_head_dim if config.is_latent else config.head_dim
    # On CPU even while a model is laid out on the meta device: these numbers are computed, never loaded.
    plain_F = 1.0 / config.rope_theta ** (torch.arange(0, dim, 2, dtype=torch.float32, device="cpu") / dim)
    scaling = config.rope_scaling
    if scaling is None:
        return plain_F
    if scaling["rope_type"] == "linear":
        return plain_F / scaling["factor"]
    if scaling["rope_type"] == "llama3":
        return _llama3(plain_F, scaling)
    return _yarn(plain_F, dim, config.rope_theta, scaling)


def _yarn(plain_F: Tensor, dim: int, base: float, scaling: dict[str, float]) -> Tensor:
    """Fast channels keep their frequency, slow ones are divided by `factor`, with a linear ramp between (YaRN, section 3.2)."""
    original = scaling["original_max_position_embeddings"]

    def channel_with(rotations: float) -> float:
        """The (fractional) pair that turns `rotations` times over the original context."""
        return dim * math.log(original / (rotations * 2 * math.pi)) / (2 * math.log(base))

    low = max(math.floor(channel_with(scaling.get("beta_fast") or 32)), 0)
    high = min(math.ceil(channel_with(scaling.get("beta_slow") or 1)), dim - 1)
    ramp_F = ((torch.arange(dim // 2, dtype=torch.float32, device=plain_F.device) - low) / max(high - low, 0.001)).clamp(0, 1)
    return plain_F / scaling["factor"] * ramp_F + plain_F * (1 - ramp_F)


def _llama3(plain_F: Tensor, scaling: dict[str, float]) -> Tensor:
    """Long wavelengths are stretched by `factor`, short ones kept, the middle interpolated."""
    original, factor = scaling["original_max_position_embeddings"], scaling["factor"]
    low, high = scaling["low_freq_factor"], scaling["high_freq_factor"]
    wavelength_F = 2 * math.pi / plain_F
    smooth_F = ((original / wavelength_F - low) / (high - low)).clamp(0, 1)
    return (1 - smooth_F) * plain_F / factor + smooth_F * plain_F


def yarn_mscale(factor: float, mscale: float) -> float:
    """0.1 * mscale * ln(factor) + 1 (YaRN, equation 22 with DeepSeek's extra coefficient)."""
    return 1.0 if factor <= 1 else 0.1 * mscale * math.log(factor) + 1.0


def embedding_scale(config: ModelConfig) -> float:
    """Factor on cos and sin. For DeepSeek it is the ratio of the two mscales (1.0 in V3), not one of them."""
    scaling = config.rope_scaling
    if scaling is None or scaling["rope_type"] != "yarn":
        return 1.0
    if scaling.get("attention_factor") is not None:
        return float(scaling["attention_factor"])
    factor, mscale, mscale_all_dim = scaling["factor"], scaling.get("mscale"), scaling.get("mscale_all_dim")
    if mscale and mscale_all_dim:
        return yarn_mscale(factor, mscale) / yarn_mscale(factor, mscale_all_dim)
    return yarn_mscale(factor, 1.0)


def softmax_scale(config: ModelConfig) -> float:
    """Factor on attention scores: 1 / sqrt(width of a key), times mscale_all_dim's mscale squared under YaRN (1.8739 for V3)."""
    if not config.is_latent:
        return config.head_dim**-0.5
    scale = (config.qk_nope_head_dim + config.qk_rope_head_dim) ** -0.5
    scaling = config.rope_scaling
    if scaling is not None and scaling.get("mscale_all_dim"):
        scale *= yarn_mscale(scaling["factor"], scaling["mscale_all_dim"]) ** 2
    return scale


def rotation(positions_BT: Tensor, frequencies_F: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    """cos and sin, float32 [B, T, 1, F], ready to broadcast over heads."""
    angles_BTF = positions_BT[..., None].float() * frequencies_F
    return (angles_BTF.cos() * scale)[:, :, None], (angles_BTF.sin() * scale)[:, :, None]


def rotate_interleaved(x_BTHR: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turns adjacent channel pairs (x0, x1), (x2, x3)...: DeepSeek's layout.

    The result holds all first members, then all second ones. Queries and keys are permuted alike, so that their products are those of
    the adjacent layout.
    """
    return _turn(x_BTHR[..., 0::2], x_BTHR[..., 1::2], cos, sin)


def rotate_halves(x_BTHR: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turns pairs (x_i, x_{i + R/2}): the layout of Llama, Mistral and Qwen."""
    first, second = x_BTHR.chunk(2, dim=-1)
    return _turn(first, second, cos, sin)


def _turn(first: Tensor, second: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1).to(first.dtype)
