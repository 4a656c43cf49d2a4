"""Configurations for tests: the published ones, and a hypothesis strategy for every possible one."""

from typing import Any

from hypothesis import strategies as st

from spoutnik.model.config import ModelConfig

_YARN = {"type": "yarn", "factor": 40, "beta_fast": 32, "beta_slow": 1, "original_max_position_embeddings": 4096}
_HEADS = {"qk_nope_head_dim": 128, "qk_rope_head_dim": 64, "v_head_dim": 128, "kv_lora_rank": 512, "max_position_embeddings": 163840}

# Published configurations: DeepSeek-V3's config.json whole, of the others what counts.
PUBLISHED: dict[str, dict[str, Any]] = {
    "DeepSeek-V3": _HEADS | {
        "architectures": ["DeepseekV3ForCausalLM"], "model_type": "deepseek_v3", "attention_bias": False, "attention_dropout": 0.0,
        "bos_token_id": 0, "eos_token_id": 1, "ep_size": 1, "first_k_dense_replace": 3, "hidden_act": "silu", "hidden_size": 7168,
        "initializer_range": 0.02, "intermediate_size": 18432, "moe_intermediate_size": 2048, "moe_layer_freq": 1, "n_group": 8,
        "n_routed_experts": 256, "n_shared_experts": 1, "norm_topk_prob": True, "num_attention_heads": 128, "num_experts_per_tok": 8,
        "num_hidden_layers": 61, "num_key_value_heads": 128, "num_nextn_predict_layers": 1, "q_lora_rank": 1536,
        "quantization_config": {"activation_scheme": "dynamic", "fmt": "e4m3", "quant_method": "fp8", "weight_block_size": [128, 128]},
        "rms_norm_eps": 1e-6, "rope_scaling": _YARN | {"mscale": 1.0, "mscale_all_dim": 1.0}, "rope_theta": 10000,
        "routed_scaling_factor": 2.5, "scoring_func": "sigmoid", "tie_word_embeddings": False, "topk_group": 4, "topk_method": "noaux_tc",
        "torch_dtype": "bfloat16", "transformers_version": "4.33.1", "use_cache": True, "vocab_size": 129280,
    },
    "DeepSeek-V2": _HEADS | {
        "model_type": "deepseek_v2", "vocab_size": 102400, "hidden_size": 5120, "intermediate_size": 12288, "moe_intermediate_size": 1536,
        "num_hidden_layers": 60, "first_k_dense_replace": 1, "num_attention_heads": 128, "num_key_value_heads": 128,
        "n_routed_experts": 160, "n_shared_experts": 2, "num_experts_per_tok": 6, "n_group": 8, "topk_group": 3,
        "topk_method": "group_limited_greedy", "norm_topk_prob": False, "routed_scaling_factor": 16.0, "q_lora_rank": 1536,
        "rope_scaling": _YARN | {"mscale": 1.0, "mscale_all_dim": 1.0},
    },
    "DeepSeek-V2-Lite": _HEADS | {
        "model_type": "deepseek_v2", "vocab_size": 102400, "hidden_size": 2048, "intermediate_size": 10944, "moe_intermediate_size": 1408,
        "num_hidden_layers": 27, "first_k_dense_replace": 1, "num_attention_heads": 16, "num_key_value_heads": 16,
        "n_routed_experts": 64, "n_shared_experts": 2, "num_experts_per_tok": 6, "n_group": 1, "topk_group": 1, "topk_method": "greedy",
        "norm_topk_prob": False, "routed_scaling_factor": 1.0, "q_lora_rank": None,
        "rope_scaling": _YARN | {"mscale": 0.707, "mscale_all_dim": 0.707},
    },
    "Llama-3.1-8B": {
        "model_type": "llama", "vocab_size": 128256, "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32,
        "num_attention_heads": 32, "num_key_value_heads": 8, "max_position_embeddings": 131072, "rms_norm_eps": 1e-5, "rope_theta": 5e5,
        "rope_scaling": {
            "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192, "rope_type": "llama3",
        },
    },
    "SmolLM2-135M": {
        "model_type": "llama", "vocab_size": 49152, "hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30,
        "num_attention_heads": 9, "num_key_value_heads": 3, "max_position_embeddings": 8192, "rms_norm_eps": 1e-5, "rope_theta": 100000,
        "tie_word_embeddings": True,
    },
}  # fmt: skip


@st.composite
def configurations(draw: st.DrawFn) -> ModelConfig:
    """Any possible configuration of any family."""
    family = draw(st.sampled_from(["deepseek_v3", "deepseek_v2", "llama", "mistral", "qwen2"]))
    small, positive = st.integers(1, 5), st.floats(1e-8, 1e6)
    key_heads = draw(small)
    heads = key_heads * (1 if family.startswith("deepseek") else draw(small))
    values: dict[str, Any] = {
        "model_type": family, "vocab_size": draw(small), "hidden_size": heads * 2 * draw(small), "intermediate_size": draw(small),
        "num_hidden_layers": draw(small), "num_attention_heads": heads, "num_key_value_heads": key_heads, "rope_theta": draw(positive),
        "rms_norm_eps": draw(positive), "tie_word_embeddings": draw(st.booleans()), "bos_token_id": draw(st.none() | small),
        "eos_token_id": draw(st.none() | small | st.lists(small, min_size=1)), "pad_token_id": draw(st.none() | small),
        "rope_scaling": draw(st.none() | st.just({"rope_type": "linear", "factor": 2.0}) | st.builds(
            lambda factor: {"rope_type": "yarn", "factor": factor, "original_max_position_embeddings": 8}, positive)),
    }  # fmt: skip
    if family in ("mistral", "qwen2"):
        values["sliding_window"] = draw(st.none() | small)
    if family == "llama":
        values |= {"attention_bias": draw(st.booleans()), "mlp_bias": draw(st.booleans()), "head_dim": 2 * draw(small)}
    if family.startswith("deepseek"):
        groups, size = draw(small), draw(st.integers(2, 5))
        opened = draw(st.integers(1, groups))
        values |= {
            "q_lora_rank": draw(st.none() | small), "kv_lora_rank": draw(small), "qk_nope_head_dim": draw(small),
            "qk_rope_head_dim": 2 * draw(small), "v_head_dim": draw(small), "n_routed_experts": groups * size, "n_group": groups,
            "topk_group": opened, "num_experts_per_tok": draw(st.integers(1, opened * size)), "moe_intermediate_size": draw(small),
            "n_shared_experts": draw(small), "first_k_dense_replace": draw(st.integers(0, 5)), "routed_scaling_factor": draw(positive),
            "num_nextn_predict_layers": draw(st.integers(0, 2)),
            "topk_method": "noaux_tc" if family == "deepseek_v3" else draw(st.sampled_from(["greedy", "group_limited_greedy"])),
            "norm_topk_prob": family == "deepseek_v3" and draw(st.booleans()),
        }  # fmt: skip
    return ModelConfig(**values)
