import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from configurations import PUBLISHED, configurations
from hypothesis import given, settings
from tiny_models import RAW, tiny_config

from spoutnik.errors import UserError
from spoutnik.model.config import ModelConfig
from spoutnik.model.transformer import CausalLM

MILLIONS = {"DeepSeek-V3": 671_030, "DeepSeek-V2": 235_740, "DeepSeek-V2-Lite": 15_710, "Llama-3.1-8B": 8_030, "SmolLM2-135M": 134.5}


@pytest.mark.parametrize("name", PUBLISHED)
def test_parameter_counts_of_published_models(name: str) -> None:
    config = ModelConfig.from_hf(PUBLISHED[name]).with_(num_nextn_predict_layers=0)
    with torch.device("meta"):
        model = CausalLM(config)
    counted = sum(parameter.numel() for parameter in model.parameters())
    assert counted / 1e6 == pytest.approx(MILLIONS[name], rel=3e-4)


@pytest.mark.parametrize("name", [*RAW, *PUBLISHED])
def test_transformers_reads_what_we_write_and_we_read_what_it_writes(name: str, tmp_path: Path) -> None:
    config = ModelConfig.from_hf((RAW | PUBLISHED)[name])
    written = config.to_hf()
    (tmp_path / "config.json").write_text(json.dumps(written))
    theirs = transformers.AutoConfig.from_pretrained(tmp_path)
    assert theirs.architectures == written["architectures"]
    for field in written.keys() - {"rope_theta", "rope_scaling"}:
        assert getattr(theirs, field) == written[field], field
    assert theirs.rope_parameters["rope_theta"] == config.rope_theta
    for key, value in (config.rope_scaling or {"rope_type": "default"}).items():
        assert theirs.rope_parameters[key] == value, key
    theirs.save_pretrained(tmp_path)
    assert ModelConfig.from_hf(json.loads((tmp_path / "config.json").read_text())) == config


@settings(deadline=None, max_examples=150)
@given(config=configurations())
def test_what_we_write_reads_back_as_the_same_configuration(config: ModelConfig) -> None:
    assert ModelConfig.from_hf(json.loads(json.dumps(config.to_hf()))) == config


@settings(deadline=None, max_examples=40)
@given(config=configurations())
def test_transformers_accepts_every_configuration_that_we_accept(config: ModelConfig) -> None:
    theirs = transformers.AutoConfig.for_model(**config.to_hf())
    assert ModelConfig.from_hf(theirs.to_dict()) == config


@pytest.mark.parametrize(
    ("name", "change", "complaint"),
    [
        ("llama", {"model_type": "gpt2"}, "deepseek_v3"),
        ("llama", {"hidden_act": "gelu"}, "silu"),
        ("llama", {"hidden_size": 50}, "multiple"),
        ("llama", {"num_key_value_heads": 3}, "evenly"),
        ("llama", {"head_dim": 7}, "even number"),
        ("llama", {"vocab_size": 0}, "vocab_size is 0"),
        ("llama", {"vocab_size": "97"}, "vocab_size is '97'"),
        ("llama", {"num_hidden_layers": 2.5}, "num_hidden_layers is 2.5"),
        ("llama", {"rms_norm_eps": 0}, "rms_norm_eps is 0"),
        ("llama", {"hidden_size": None}, "hidden_size"),
        ("llama", {"rope_theta": "wide"}, "wide"),
        ("llama", {"rope_scaling": {"type": "dynamic", "factor": 2}}, "'dynamic' is unknown"),
        ("llama", {"rope_scaling": {"type": "llama3", "factor": 8}}, "low_freq_factor"),
        ("llama", {"rope_scaling": {"type": "linear", "factor": -1}}, "positive number"),
        ("mistral", {"sliding_window": 0}, "sliding_window is 0"),
        ("mistral", {"attention_bias": True}, "attention_bias"),
        ("qwen2", {"mlp_bias": True}, "mlp_bias"),
        ("qwen2", {"use_sliding_window": True, "max_window_layers": 2}, "1 of its 3 layers"),
        ("deepseek-v3", {"kv_lora_rank": 0}, "kv_lora_rank is 0"),
        ("deepseek-v3", {"qk_rope_head_dim": 3}, "even number"),
        ("deepseek-v3", {"num_key_value_heads": 2}, "key-value heads"),
        ("deepseek-v3", {"n_group": 3}, "3 groups"),
        ("deepseek-v3", {"n_group": 0}, "n_group is 0"),
        ("deepseek-v3", {"n_group": 8, "topk_group": 4}, "best two"),
        ("deepseek-v3", {"topk_group": 5}, "5 groups"),
        ("deepseek-v3", {"num_experts_per_tok": 5}, "5 experts per token"),
        ("deepseek-v3", {"scoring_func": "softmax"}, "sigmoid"),
        ("deepseek-v3", {"rope_interleave": False}, "rope_interleave"),
        ("deepseek-v3", {"topk_method": "greedy"}, "noaux_tc"),
        ("deepseek-v3", {"n_routed_experts": 0}, "first_k_dense_replace"),
        ("deepseek-v2", {"norm_topk_prob": True}, "norm_topk_prob"),
        ("deepseek-v2", {"moe_layer_freq": 2}, "moe_layer_freq"),
    ],
)
def test_an_impossible_configuration_is_refused_by_name(name: str, change: dict[str, Any], complaint: str) -> None:
    with pytest.raises(UserError, match=complaint):
        ModelConfig.from_hf(RAW[name] | change)


def test_a_rope_scaling_without_a_type_is_refused_when_made_by_hand() -> None:
    with pytest.raises(UserError, match="rope type"):
        tiny_config("llama", rope_scaling={"type": "yarn", "factor": 2.0})


def test_a_qwen2_window_that_begins_after_the_last_layer_is_none() -> None:
    assert ModelConfig.from_hf(RAW["qwen2-window"] | {"max_window_layers": 3}).sliding_window is None
    assert ModelConfig.from_hf(RAW["qwen2-window"]).sliding_window == 5


def test_end_tokens_are_a_set_whether_one_or_many() -> None:
    assert tiny_config("llama", eos_token_id=[1, 5]).eos_token_ids == {1, 5}
    assert tiny_config("llama", eos_token_id=1).eos_token_ids == {1}
    assert tiny_config("llama").eos_token_ids == frozenset()
