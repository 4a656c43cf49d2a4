"""Tiny configurations of every family, random weights for them, and the plainest cache: shared by the tests of this folder."""

from typing import Any

import torch
from torch import Tensor

from spoutnik.model.config import ModelConfig
from spoutnik.model.transformer import CausalLM

_COMMON: dict[str, Any] = {
    "vocab_size": 97, "hidden_size": 48, "intermediate_size": 64, "num_hidden_layers": 3, "num_attention_heads": 4,
    "max_position_embeddings": 640,
}  # fmt: skip
_LATENT: dict[str, Any] = _COMMON | {
    "num_key_value_heads": 4, "kv_lora_rank": 16, "qk_nope_head_dim": 8, "qk_rope_head_dim": 4, "v_head_dim": 6,
    "n_routed_experts": 8, "num_experts_per_tok": 3, "moe_intermediate_size": 20, "first_k_dense_replace": 1,
}  # fmt: skip


def _yarn(mscale: float) -> dict[str, Any]:
    return {
        "type": "yarn", "factor": 40, "mscale": mscale, "mscale_all_dim": mscale, "beta_fast": 32, "beta_slow": 1,
        "original_max_position_embeddings": 16,
    }  # fmt: skip


_LLAMA3 = {
    "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 64,
}  # fmt: skip

RAW: dict[str, dict[str, Any]] = {
    "deepseek-v3": _LATENT | {
        "model_type": "deepseek_v3", "q_lora_rank": 24, "n_shared_experts": 1, "n_group": 4, "topk_group": 2,
        "routed_scaling_factor": 2.5, "num_nextn_predict_layers": 1, "rope_scaling": _yarn(1.0),
    },
    "deepseek-v2-lite": _LATENT | {
        "model_type": "deepseek_v2", "q_lora_rank": None, "n_shared_experts": 2, "n_group": 1, "topk_group": 1,
        "topk_method": "greedy", "norm_topk_prob": False, "rope_scaling": _yarn(0.707),
    },
    "deepseek-v2": _LATENT | {
        "model_type": "deepseek_v2", "q_lora_rank": 24, "n_shared_experts": 2, "n_group": 4, "topk_group": 2,
        "topk_method": "group_limited_greedy", "norm_topk_prob": False, "routed_scaling_factor": 16.0, "rope_scaling": _yarn(1.0),
    },
    "llama": _COMMON | {"model_type": "llama", "num_key_value_heads": 4},
    "llama-3": _COMMON | {
        "model_type": "llama", "num_key_value_heads": 2, "rope_theta": 5e5, "rope_scaling": _LLAMA3, "tie_word_embeddings": True,
    },
    "llama-bias": _COMMON | {"model_type": "llama", "num_key_value_heads": 2, "attention_bias": True, "mlp_bias": True, "head_dim": 20},
    "smollm2": _COMMON | {
        "model_type": "llama", "hidden_size": 36, "num_attention_heads": 9, "num_key_value_heads": 3, "rope_theta": 1e5,
        "tie_word_embeddings": True, "rms_norm_eps": 1e-5,
    },
    "mistral": _COMMON | {"model_type": "mistral", "num_key_value_heads": 2, "sliding_window": 5, "rms_norm_eps": 1e-5},
    "qwen2": _COMMON | {"model_type": "qwen2", "num_key_value_heads": 2, "sliding_window": 5, "use_sliding_window": False},
    "qwen2-window": _COMMON | {
        "model_type": "qwen2", "num_key_value_heads": 2, "sliding_window": 5, "use_sliding_window": True, "max_window_layers": 0,
    },
}  # fmt: skip


def tiny_config(name: str, **changes: Any) -> ModelConfig:
    return ModelConfig.from_hf(RAW[name]).with_(**changes)


def randomise(model: torch.nn.Module, seed: int = 0, std: float = 0.2) -> None:
    """Normal weights wide enough for every path to matter, norms around one, and router biases of both signs."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * std + (1.0 if "norm" in name else 0.0))
        for name, buffer in model.named_buffers():
            if name.endswith("e_score_correction_bias"):
                buffer.copy_(torch.rand(buffer.shape, generator=generator) - 0.5)


def tiny_model(name: str, seed: int = 0, **changes: Any) -> CausalLM:
    model = CausalLM(tiny_config(name, **changes))
    randomise(model, seed)
    return model


def foresee(model: CausalLM, rest: float = 0.0, sign: float = 1.0) -> None:
    """Makes the multi-token prediction layer read off a token what the model makes of it; of the other layers' work `rest` is left.

    With a rest of 0 what follows depends on the token alone, so that every guess is right; with the sign -1 no greedy one is.
    """
    layers, size = model.model.layers, model.config.hidden_size
    with torch.no_grad():
        for name, parameter in layers.named_parameters():
            if "o_proj" in name or "down_proj" in name:
                parameter.mul_(0.0 if name.startswith(f"{len(layers) - 1}.") else rest)
        layers[-1].eh_proj.weight.copy_(torch.cat([torch.eye(size) * sign, torch.zeros(size, size)], dim=1))
        layers[-1].enorm.weight.fill_(1.0)
        layers[-1].shared_head.norm.weight.copy_(model.model.norm.weight)


class RowCache:
    """Keeps everything at [row, position]. What was never written is large, so that reading it would show."""

    def __init__(self, rows: int, capacity: int):
        self.rows, self.capacity = rows, capacity
        self.live = torch.arange(rows)
        self.positions_BT = torch.zeros(rows, 1, dtype=torch.long)
        self._stored: dict[int, tuple[Tensor, ...]] = {}

    @property
    def length(self) -> int:
        return int(self.positions_BT.max()) + 1

    def at(self, live: Tensor, positions_BT: Tensor) -> "RowCache":
        self.live, self.positions_BT = live, positions_BT
        return self

    def extend(self, layer: int, *new: Tensor) -> tuple[Tensor, ...]:
        if layer not in self._stored:
            self._stored[layer] = tuple(part.new_full((self.rows, self.capacity, *part.shape[2:]), 1e3) for part in new)
        for kept, part in zip(self._stored[layer], new, strict=True):
            kept[self.live[:, None], self.positions_BT] = part
        return tuple(kept[self.live, : self.length] for kept in self._stored[layer])


def error(found: Tensor, expected: Tensor) -> float:
    """Largest difference, as a share of the largest expected value where that exceeds one."""
    with torch.no_grad():
        return float((found - expected).abs().max() / expected.abs().max().clamp(min=1.0))
