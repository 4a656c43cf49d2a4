"""The two attentions, side by side: grouped-query (Llama, Mistral, Qwen) and multi-head latent (DeepSeek).

Letters: B rows, T query tokens, S key tokens, H heads, N channels of a head without position, R with rotary position, V of a value,
C channels of the latent, D hidden size.
"""

from typing import NamedTuple, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spoutnik.model.config import ModelConfig
from spoutnik.model.layers import RMSNorm
from spoutnik.model.rope import rotate_halves, rotate_interleaved, softmax_scale

SHORT = 256
"""Up to so many tokens, causal attention is written out instead of fused."""


class Cache(Protocol):
    """Where attention keeps what later tokens will read. The owner (the engine) knows rows, positions and memory."""

    length: int
    """S, the number of keys that `extend` returns; every position of the call is below it."""

    def extend(self, layer: int, *new: Tensor) -> tuple[Tensor, ...]:
        """Stores each `new` [B, T, ...] at the positions of this call and returns each with everything cached, [B, S, ...]."""
        ...


class Span(NamedTuple):
    """What a call of the decoder tells its attention layers about positions."""

    cos: Tensor
    """[B, T, 1, R / 2] float32"""
    sin: Tensor
    mask: Tensor | None
    """[B, 1, T, S] or [1, 1, T, S], True where a query may look; None means plainly causal with T == S."""


def attend(query_BTHd: Tensor, key_BSHd: Tensor, value_BSHV: Tensor, mask: Tensor | None, scale: float) -> Tensor:
    """softmax(q k^T * scale) v -> [B, T, H, V]. Keys and values may have fewer heads; each then serves a group of queries."""
    if mask is None and query_BTHd.shape[1] <= SHORT:
        return _attend_short(query_BTHd, key_BSHd, value_BSHV, scale)
    if mask is not None and query_BTHd.shape[1] == 1:
        return _attend_one(query_BTHd, key_BSHd, value_BSHV, mask, scale)
    grouped = query_BTHd.shape[2] != key_BSHd.shape[2]
    out_BHTV = F.scaled_dot_product_attention(
        query_BTHd.transpose(1, 2),
        key_BSHd.transpose(1, 2),
        value_BSHV.transpose(1, 2),
        attn_mask=mask,
        is_causal=mask is None,
        scale=scale,
        enable_gqa=grouped,
    )
    return out_BHTV.transpose(1, 2)


def _attend_short(query_BTHd: Tensor, key_BTHd: Tensor, value_BTHV: Tensor, scale: float) -> Tensor:
    """Causal attention written out: for a few hundred tokens its backward is up to three times faster than the fused one on CPU."""
    tokens, key_heads = query_BTHd.shape[1], key_BTHd.shape[2]
    query_BhnTd = (query_BTHd * scale).transpose(1, 2).unflatten(1, (key_heads, -1))
    scores_BhnTT = (query_BhnTd.flatten(2, 3) @ key_BTHd.permute(0, 2, 3, 1)).unflatten(2, (-1, tokens))
    future_TT = torch.full((tokens, tokens), -torch.inf, dtype=scores_BhnTT.dtype, device=scores_BhnTT.device).triu(1)
    wide = torch.promote_types(scores_BhnTT.dtype, torch.float32)
    weights_BhnTT = (scores_BhnTT + future_TT).softmax(-1, dtype=wide).to(value_BTHV.dtype)
    out_BhnTV = (weights_BhnTT.flatten(2, 3) @ value_BTHV.transpose(1, 2)).unflatten(2, (-1, tokens))
    return out_BhnTV.flatten(1, 2).transpose(1, 2)


def _attend_one(query_B1Hd: Tensor, key_BShd: Tensor, value_BShV: Tensor, mask: Tensor, scale: float) -> Tensor:
    """One query per row (decoding) as two batched products over (row, key head): faster on CPU than the fused form, most in bfloat16."""
    rows, key_heads = key_BShd.shape[0], key_BShd.shape[2]
    query_bgd = query_B1Hd.reshape(rows * key_heads, -1, query_B1Hd.shape[-1])
    scores_BhgS = (query_bgd @ key_BShd.transpose(1, 2).flatten(0, 1).mT).unflatten(0, (rows, key_heads))
    wide = torch.promote_types(scores_BhgS.dtype, torch.float32)
    weights_BhgS = (scores_BhgS * scale).masked_fill(~mask, -torch.inf).softmax(-1, dtype=wide).to(value_BShV.dtype)
    out_bgV = weights_BhgS.flatten(0, 1) @ value_BShV.transpose(1, 2).flatten(0, 1)
    return out_bgV.view(rows, 1, query_B1Hd.shape[2], -1)


class GroupedQueryAttention(nn.Module):
    """Attention in which groups of query heads share a key-value head (arXiv 2305.13245); rotary pairs are halves."""

    def __init__(self, config: ModelConfig, layer: int):
        super().__init__()
        self.layer, self.head_dim, self.scale = layer, config.head_dim, softmax_scale(config)
        query_size, key_size = config.num_attention_heads * config.head_dim, config.num_key_value_heads * config.head_dim
        self.q_proj = nn.Linear(config.hidden_size, query_size, bias=config.attention_bias)
        self.k_proj = nn.Linear(config.hidden_size, key_size, bias=config.attention_bias)
        self.v_proj = nn.Linear(config.hidden_size, key_size, bias=config.attention_bias)
        self.o_proj = nn.Linear(query_size, config.hidden_size, bias=config.attention_bias and config.model_type == "llama")

    def forward(self, x_BTD: Tensor, span: Span, cache: Cache | None) -> Tensor:
        query_BTHd = rotate_halves(self.q_proj(x_BTD).unflatten(-1, (-1, self.head_dim)), span.cos, span.sin)
        key_BShd = rotate_halves(self.k_proj(x_BTD).unflatten(-1, (-1, self.head_dim)), span.cos, span.sin)
        value_BShd = self.v_proj(x_BTD).unflatten(-1, (-1, self.head_dim))
        if cache is not None:
            key_BShd, value_BShd = cache.extend(self.layer, key_BShd, value_BShd)
        return self.o_proj(attend(query_BTHd, key_BShd, value_BShd, span.mask, self.scale).flatten(2))


class MultiHeadLatentAttention(nn.Module):
    """Keys and values are rebuilt from one small latent per token, which is all that is cached (DeepSeek-V3, equations 1 to 11).

    `naive` rebuilds every head's keys and values: cheaper when many queries share them (training, prefill). `absorbed` folds the
    rebuilding matrices into the query and the output and attends over latents: cheaper for one query over a long cache. Both compute
    the same function; a test holds one against the other.
    """

    def __init__(self, config: ModelConfig, layer: int):
        super().__init__()
        self.layer, self.scale = layer, softmax_scale(config)
        self.num_heads, self.kv_lora_rank = config.num_attention_heads, config.kv_lora_rank
        self.nope, self.rope, self.value = config.qk_nope_head_dim, config.qk_rope_head_dim, config.v_head_dim
        hidden_size, query_size = config.hidden_size, self.num_heads * (self.nope + self.rope)
        if config.q_lora_rank:
            self.q_a_proj = nn.Linear(hidden_size, config.q_lora_rank, bias=False)
            # transformers builds the latents' norms with its default 1e-6 whatever rms_norm_eps says; every published model has 1e-6.
            self.q_a_layernorm = RMSNorm(config.q_lora_rank, 1e-6)
            self.q_b_proj = nn.Linear(config.q_lora_rank, query_size, bias=False)
        else:
            self.q_proj = nn.Linear(hidden_size, query_size, bias=False)
        self.kv_a_proj_with_mqa = nn.Linear(hidden_size, self.kv_lora_rank + self.rope, bias=False)
        self.kv_a_layernorm = RMSNorm(self.kv_lora_rank, 1e-6)
        self.kv_b_proj = nn.Linear(self.kv_lora_rank, self.num_heads * (self.nope + self.value), bias=False)
        self.o_proj = nn.Linear(self.num_heads * self.value, hidden_size, bias=False)

    def forward(self, x_BTD: Tensor, span: Span, cache: Cache | None) -> Tensor:
        q_nope_BTHN, q_rope_BTHR = self._queries(x_BTD, span)
        latent_BSC, k_rope_BSR = self.kv_a_proj_with_mqa(x_BTD).split([self.kv_lora_rank, self.rope], dim=-1)
        latent_BSC = self.kv_a_layernorm(latent_BSC)
        k_rope_BSR = rotate_interleaved(k_rope_BSR[:, :, None], span.cos, span.sin).squeeze(2)
        if cache is not None:
            latent_BSC, k_rope_BSR = cache.extend(self.layer, latent_BSC, k_rope_BSR)
        one_query_many_keys = cache is not None and x_BTD.shape[1] == 1
        attention = self.absorbed if one_query_many_keys else self.naive
        return self.o_proj(attention(q_nope_BTHN, q_rope_BTHR, latent_BSC, k_rope_BSR, span.mask).flatten(2))

    def _queries(self, x_BTD: Tensor, span: Span) -> tuple[Tensor, Tensor]:
        query_BTq = self.q_b_proj(self.q_a_layernorm(self.q_a_proj(x_BTD))) if hasattr(self, "q_a_proj") else self.q_proj(x_BTD)
        q_nope_BTHN, q_rope_BTHR = query_BTq.unflatten(-1, (self.num_heads, -1)).split([self.nope, self.rope], dim=-1)
        return q_nope_BTHN, rotate_interleaved(q_rope_BTHR, span.cos, span.sin)

    def naive(self, q_nope_BTHN: Tensor, q_rope_BTHR: Tensor, latent_BSC: Tensor, k_rope_BSR: Tensor, mask: Tensor | None) -> Tensor:
        """Multi-head form: k = [W_UK c ; k_rope], v = W_UV c. Returns [B, T, H, V]."""
        k_nope_BSHN, value_BSHV = self.kv_b_proj(latent_BSC).unflatten(-1, (self.num_heads, -1)).split([self.nope, self.value], dim=-1)
        key_BSHd = torch.cat((k_nope_BSHN, k_rope_BSR[:, :, None].expand(-1, -1, self.num_heads, -1)), dim=-1)
        return attend(torch.cat((q_nope_BTHN, q_rope_BTHR), dim=-1), key_BSHd, value_BSHV, mask, self.scale)

    def absorbed(self, q_nope_BTHN: Tensor, q_rope_BTHR: Tensor, latent_BSC: Tensor, k_rope_BSR: Tensor, mask: Tensor | None) -> Tensor:
        """Multi-query form: score = (W_UK^T q_nope) . c + q_rope . k_rope, output = W_UV (sum p c). Returns [B, T, H, V]."""
        up_HnC = self.kv_b_proj.weight.unflatten(0, (self.num_heads, -1))
        up_key_HNC, up_value_HVC = up_HnC.split([self.nope, self.value], dim=1)
        # Heads and queries share one axis, so that a row's latents are read once and not copied for each head.
        query_BTHC = torch.einsum("bthn,hnc->bthc", q_nope_BTHN, up_key_HNC)
        scores_BqS = query_BTHC.flatten(1, 2) @ latent_BSC.mT + q_rope_BTHR.flatten(1, 2) @ k_rope_BSR.mT
        scores_BTHS = scores_BqS.unflatten(1, (-1, self.num_heads)) * self.scale
        if mask is None:
            mask = torch.ones(scores_BTHS.shape[1], latent_BSC.shape[1], dtype=torch.bool, device=scores_BTHS.device).tril()[None, None]
        wide = torch.promote_types(scores_BTHS.dtype, torch.float32)
        weights_BTHS = scores_BTHS.masked_fill(~mask.transpose(1, 2), -torch.inf).softmax(-1, dtype=wide).to(latent_BSC.dtype)
        mixed_BTHC = (weights_BTHS.flatten(1, 2) @ latent_BSC).unflatten(1, (-1, self.num_heads))
        return torch.einsum("bthc,hvc->bthv", mixed_BTHC, up_value_HVC)
