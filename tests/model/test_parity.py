"""Every family against transformers in float32: the same logits and the same gradient of every parameter."""

from typing import Any

import pytest
import torch
import transformers
from tiny_models import RAW, error, randomise, tiny_config, tiny_model
from torch import Tensor
from transformers.modeling_layers import MtpModel

from spoutnik.model.transformer import CausalLM

LOGITS, GRADIENT = 1e-5, 1e-4
TOKENS = 24  # longer than the sliding windows and than the YaRN configurations' original context


def both(name: str, **changes: Any) -> tuple[CausalLM, Any]:
    """Our model and transformers' own, built from what we write to config.json, with equal weights."""
    config = tiny_config(name, **changes)
    theirs = transformers.AutoModelForCausalLM.from_config(
        transformers.AutoConfig.for_model(**config.to_hf()), attn_implementation="eager"
    ).eval()
    ours = CausalLM(config)
    randomise(ours)
    main = {key: value for key, value in ours.state_dict().items() if f"layers.{config.num_hidden_layers}." not in key}
    theirs.load_state_dict(main, strict=True)
    return ours, theirs


def assert_same_gradients(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> None:
    assert ours.keys() == theirs.keys()
    for name, expected in theirs.items():
        assert expected.norm() > 0, name
        assert (ours[name] - expected).norm() / expected.norm() < GRADIENT, name


def gradients(model: Any) -> dict[str, Tensor]:
    return {name: parameter.grad for name, parameter in model.named_parameters() if parameter.grad is not None}


def assert_parity(ours: CausalLM, theirs: Any) -> None:
    torch.manual_seed(1)
    ids_BT = torch.randint(0, 97, (2, TOKENS))
    our_logits, their_logits = ours(ids_BT), theirs(ids_BT).logits
    assert our_logits.dtype == torch.float32
    assert error(our_logits, their_logits) < LOGITS
    weights_BTV = torch.randn_like(their_logits)
    (our_logits * weights_BTV).sum().backward()
    (their_logits * weights_BTV).sum().backward()
    assert_same_gradients(gradients(ours), gradients(theirs))


@pytest.mark.parametrize("name", RAW)
def test_logits_and_gradients_equal_those_of_transformers(name: str) -> None:
    assert_parity(*both(name))


def test_small_qwen2_models_share_embedding_and_head() -> None:
    assert_parity(*both("qwen2", tie_word_embeddings=True))


@pytest.mark.parametrize("bias", [-2.0, 2.0])
def test_biases_that_are_all_negative_or_all_positive_select_the_same_experts(bias: float) -> None:
    ours, theirs = both("deepseek-v3")
    for model in (ours, theirs):
        for name, buffer in model.named_buffers():
            if name.endswith("e_score_correction_bias"):
                buffer.add_(bias)
    assert_parity(ours, theirs)


def test_v3_without_query_compression_and_without_normalised_weights() -> None:
    assert_parity(*both("deepseek-v3", q_lora_rank=None, norm_topk_prob=False))


@pytest.mark.parametrize("name", ["llama", "deepseek-v3"])
def test_linear_position_scaling_agrees(name: str) -> None:
    assert_parity(*both(name, rope_scaling={"rope_type": "linear", "factor": 4.0}))


def test_yarn_in_a_dense_model_scales_cos_and_sin() -> None:
    assert_parity(*both("qwen2", rope_scaling={"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16}))


def test_multi_token_prediction_equals_transformers_drafting_layer() -> None:
    ours, theirs = both("deepseek-v3")
    main = ours.config.num_hidden_layers
    drafter = MtpModel(theirs, 1).eval()
    prefix, outer = f"model.layers.{main}.", ("enorm", "hnorm", "eh_proj")
    renamed = {}
    for name, value in ours.state_dict().items():
        if name.startswith(prefix):
            name = name.removeprefix(prefix).replace("shared_head.norm", "post_norm")
            renamed["layers.0." + (name if name.startswith((*outer, "post_norm")) else f"mtp_block.{name}")] = value
    missing, unexpected = drafter.load_state_dict(renamed, strict=False)
    assert not unexpected
    assert set(missing) == {"embed_tokens.weight", "shared_head.weight"}

    ids_BT = torch.randint(0, 97, (2, TOKENS), generator=torch.Generator().manual_seed(2))
    next_ids_BT, positions_BT = ids_BT[:, 1:], torch.arange(1, TOKENS)[None].expand(2, -1)
    our_hidden = ours.predict_further(ours.hidden(ids_BT)[:, :-1], next_ids_BT)
    their_main = theirs.model(ids_BT).last_hidden_state[:, :-1]
    their_hidden = drafter.forward_layer(0, their_main, positions_BT, None, input_ids=next_ids_BT)
    our_logits, their_logits = ours.head(our_hidden), theirs.lm_head(their_hidden)
    assert error(our_logits, their_logits) < LOGITS

    weights_BTV = torch.randn_like(their_logits)
    (our_logits * weights_BTV).sum().backward()
    (their_logits * weights_BTV).sum().backward()
    ours_by_name = gradients(ours)
    for name, parameter in drafter.named_parameters():
        if name in ("embed_tokens.weight", "shared_head.weight"):
            continue
        own = name.removeprefix("layers.0.").removeprefix("mtp_block.").replace("post_norm", "shared_head.norm")
        assert (ours_by_name[prefix + own] - parameter.grad).norm() / parameter.grad.norm() < GRADIENT, name
    assert_same_gradients({n: g for n, g in ours_by_name.items() if not n.startswith(prefix)}, gradients(theirs))


def test_a_model_in_bfloat16_follows_its_float32_self() -> None:
    for name in ("deepseek-v3", "deepseek-v2-lite", "mistral"):
        model = tiny_model(name)
        randomise(model, std=0.1)
        ids_BT = torch.randint(0, 97, (2, TOKENS), generator=torch.Generator().manual_seed(3))
        with torch.no_grad():
            exact = model(ids_BT)
            for dtype in (torch.bfloat16, torch.float16):
                rounded = model.to(dtype)(ids_BT)
                assert rounded.dtype == torch.float32
                assert rounded.isfinite().all()
                # A token whose close call between experts falls the other way is off by more: the median is the measure.
                assert (rounded - exact).abs().median() < 0.03 * exact.abs().max(), (name, dtype)
