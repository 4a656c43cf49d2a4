"""What is written is read back: by the reference package, tensor by tensor, and by our own loader as the same model."""

import logging
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from configurations import configurations
from hypothesis import HealthCheck, example, given, reject, settings
from hypothesis import strategies as st
from tiny_models import RAW, error, randomise, tiny_config, tiny_model

from spoutnik.checkpoint.assemble import give_weights, parameters_of, skeleton
from spoutnik.checkpoint.gguf import GGUF
from spoutnik.checkpoint.gguf_export import differences, save_gguf
from spoutnik.checkpoint.gguf_layout import permute, unite, unpermute
from spoutnik.checkpoint.gguf_quant import FORMATS
from spoutnik.checkpoint.load import open_model
from spoutnik.errors import UserError
from spoutnik.model.config import ModelConfig
from spoutnik.model.rope import embedding_scale, frequencies, softmax_scale
from spoutnik.model.transformer import CausalLM
from spoutnik.text.tokenizer import Tokenizer, train_bpe

gguf = pytest.importorskip("gguf")

LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}
SPECIAL: dict[str, Any] = {"vocab_size": 300, "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 2}
CHANGES: dict[str, dict[str, Any]] = {"llama-3": {"rope_scaling": LLAMA3}, "deepseek-v3": {"num_nextn_predict_layers": 0}}
IDS_BT = torch.arange(40).view(2, 20) * 7 % 300
ARCHITECTURES = {"deepseek_v3": "deepseek2", "deepseek_v2": "deepseek2", "mistral": "llama", "llama": "llama", "qwen2": "qwen2"}
HEADS, NOPE, VALUE, LATENT, HIDDEN, WIDTH = 4, 8, 6, 16, 48, 20
"""Sizes of the tiny DeepSeek models."""


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train_bpe(["some words to learn from, again and again"] * 9, vocab_size=290)


def make(name: str, **changes: Any) -> CausalLM:
    return tiny_model(name, **SPECIAL | CHANGES.get(name, {}) | changes).eval()


def rounded(model: CausalLM) -> dict[str, torch.Tensor]:
    """What an f16 file keeps: matrices in half precision; vectors, the router and what rebuilds keys and values as they are."""
    return {
        name: tensor if tensor.ndim == 1 or name.endswith((".mlp.gate.weight", ".kv_b_proj.weight")) else tensor.half().float()
        for name, tensor in parameters_of(model).items()
    }


def saved(model: CausalLM, tokenizer: Tokenizer, path: Path, file_type: Any = "f16") -> GGUF:
    save_gguf(model, tokenizer, path, file_type)
    return GGUF(path)


@pytest.mark.parametrize("name", RAW)
def test_every_family_is_read_back_as_the_same_model_with_equal_weights(name: str, tokenizer: Tokenizer, tmp_path: Path) -> None:
    model = make(name)
    save_gguf(model, tokenizer, tmp_path / "x.gguf")
    again, same = open_model(tmp_path / "x.gguf")
    assert again.config == model.config
    expected, found = rounded(model), parameters_of(again)
    assert found.keys() == expected.keys()
    for parameter, tensor in expected.items():
        assert torch.equal(found[parameter], tensor), parameter
    assert same.encode("some words <think> again") == tokenizer.encode("some words <think> again")


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(config=configurations())
@example(config=tiny_config("mistral", rope_scaling={"rope_type": "yarn", "factor": 1 + 1e-8, "original_max_position_embeddings": 8}))
def test_any_configuration_is_read_back_as_one_that_computes_the_same(config: ModelConfig, tokenizer: Tokenizer, tmp_path: Path) -> None:
    theta = float(np.float32(config.rope_theta))  # as single as the file keeps it: YaRN divides by its logarithm
    config = config.with_(**SPECIAL, num_nextn_predict_layers=0, rope_theta=theta)
    try:
        model = CausalLM(config).eval()
    except ArithmeticError:
        reject()
    randomise(model)
    try:
        save_gguf(model, tokenizer, tmp_path / "x.gguf")
    except UserError:
        assert config.rope_scaling is not None
        assert config.is_latent or np.float32(config.rope_scaling["factor"]) <= 1
        return
    again, _ = open_model(tmp_path / "x.gguf")
    same = give_weights(skeleton(config, 999), rounded(model))
    with torch.no_grad():
        assert error(again(IDS_BT), same(IDS_BT)) < 1e-3


def expected_tensors(model: CausalLM) -> Iterator[tuple[str, np.ndarray]]:
    """Some tensors of a DeepSeek file, written down from what llama.cpp's loader and graph want of them; shapes slowest first."""
    state = model.state_dict()
    prefix = "model.layers.1."
    rebuild = state[prefix + "self_attn.kv_b_proj.weight"]
    yield "attn_k_b.weight", np.stack([rebuild[head * (NOPE + VALUE) :][:NOPE].T.numpy() for head in range(HEADS)])
    yield "attn_v_b.weight", np.stack([rebuild[head * (NOPE + VALUE) + NOPE :][:VALUE].numpy() for head in range(HEADS)])
    experts = state[prefix + "mlp.experts.gate_up_proj"]
    yield "ffn_gate_exps.weight", np.stack([expert[:WIDTH].numpy() for expert in experts])
    yield "ffn_up_exps.weight", np.stack([expert[WIDTH:].numpy() for expert in experts])
    yield "ffn_down_exps.weight", state[prefix + "mlp.experts.down_proj"].numpy()
    yield "ffn_gate_inp.weight", state[prefix + "mlp.gate.weight"].numpy()
    yield "exp_probs_b.bias", state[prefix + "mlp.gate.e_score_correction_bias"].numpy()
    yield "attn_kv_a_mqa.weight", state[prefix + "self_attn.kv_a_proj_with_mqa.weight"].numpy()
    yield "ffn_down_shexp.weight", state[prefix + "mlp.shared_experts.down_proj.weight"].numpy()


@pytest.mark.parametrize("file_type", FORMATS)
def test_the_reference_reader_dequantises_the_tensors_that_llama_cpp_wants(file_type: Any, tokenizer: Tokenizer, tmp_path: Path) -> None:
    model = make("deepseek-v3", moe_intermediate_size=WIDTH, hidden_size=64)
    save_gguf(model, tokenizer, tmp_path / "x.gguf", file_type)
    tensors = {tensor.name: tensor for tensor in gguf.GGUFReader(tmp_path / "x.gguf").tensors}
    tolerance = {"f32": 0.0, "f16": 1e-3, "q8_0": 6e-3, "q4_1": 0.08, "q4_0": 0.15}[file_type]
    for name, values in expected_tensors(model):
        tensor = tensors[f"blk.1.{name}"]
        found = gguf.dequantize(tensor.data, tensor.tensor_type)
        assert found.shape == values.shape, name
        assert np.abs(found - values).max() <= tolerance, name


def test_types_are_chosen_by_what_a_tensor_is(tokenizer: Tokenizer, tmp_path: Path) -> None:
    file = saved(make("deepseek-v3", hidden_size=64), tokenizer, tmp_path / "x.gguf", "q4_0")
    kinds = {name: tensor.type.name for name, tensor in file.tensors.items()}
    assert kinds["token_embd.weight"] == kinds["blk.1.ffn_gate_exps.weight"] == "Q4_0"
    assert kinds["output.weight"] == "Q8_0"
    assert kinds["blk.1.attn_q_b.weight"] == "F16"  # rows of 24 are no blocks
    vectors = ("output_norm.weight", "blk.1.attn_kv_a_norm.weight", "blk.1.exp_probs_b.bias")
    matrices = ("blk.1.ffn_gate_inp.weight", "blk.1.attn_k_b.weight", "blk.1.attn_v_b.weight")
    assert {kinds[name] for name in (*vectors, *matrices)} == {"F32"}
    tied = saved(make("deepseek-v3", hidden_size=64, tie_word_embeddings=True), tokenizer, tmp_path / "x.gguf", "q4_1")
    assert tied.tensors["token_embd.weight"].type.name == "Q8_0"
    assert "output.weight" not in tied.tensors


@pytest.mark.parametrize("name", RAW)
def test_the_reference_package_knows_every_key_and_tensor(name: str, tokenizer: Tokenizer, tmp_path: Path) -> None:
    model = make(name)
    file, architecture = saved(model, tokenizer, tmp_path / "x.gguf"), ARCHITECTURES[model.config.model_type]
    sections = (gguf.Keys.General, gguf.Keys.LLM, gguf.Keys.Attention, gguf.Keys.Rope, gguf.Keys.Tokenizer)
    templates = [value for section in sections for value in vars(section).values() if isinstance(value, str)]
    known = {template.replace("{arch}", architecture) for template in templates}
    assert file.metadata.keys() <= known
    assert file.metadata["general.architecture"] == architecture
    number = next(number for number, written in gguf.MODEL_ARCH_NAMES.items() if written == architecture)
    roles = {gguf.TENSOR_NAMES[role] for role in gguf.MODEL_TENSORS[number]}
    layers = range(model.config.num_hidden_layers)
    assert {tensor.rpartition(".")[0] for tensor in file.tensors} <= {role.format(bid=layer) for role in roles for layer in layers}


def test_keys_of_deepseek_v3_are_those_that_llama_cpp_reads(tokenizer: Tokenizer, tmp_path: Path) -> None:
    metadata = saved(make("deepseek-v3"), tokenizer, tmp_path / "x.gguf").metadata
    expected = {
        "attention.head_count": 4, "attention.head_count_kv": 1, "attention.q_lora_rank": 24, "attention.kv_lora_rank": 16,
        "attention.key_length": 20, "attention.value_length": 16, "attention.key_length_mla": 12, "attention.value_length_mla": 6,
        "rope.dimension_count": 4, "leading_dense_block_count": 1, "expert_count": 8, "expert_used_count": 3, "expert_shared_count": 1,
        "expert_feed_forward_length": 20, "expert_group_count": 4, "expert_group_used_count": 2, "expert_weights_scale": 2.5,
        "expert_weights_norm": True, "expert_gating_func": 2, "rope.scaling.type": "yarn", "rope.scaling.factor": 40.0,
        "rope.scaling.original_context_length": 16, "rope.scaling.yarn_log_multiplier": pytest.approx(0.1), "block_count": 3,
    }  # fmt: skip
    assert {key: metadata[f"deepseek2.{key}"] for key in expected} == expected
    assert "deepseek2.rope.scaling.attn_factor" not in metadata
    general = {"type": "model", "name": "x", "file_type": 1, "quantization_version": 2}
    assert {key: metadata[f"general.{key}"] for key in general} == general


def test_a_layer_may_have_more_experts_than_the_file_has_tensors(tokenizer: Tokenizer, tmp_path: Path) -> None:
    model = make("deepseek-v3", num_hidden_layers=2, n_routed_experts=64)
    assert len(saved(model, tokenizer, tmp_path / "x.gguf").tensors) < 64
    assert open_model(tmp_path / "x.gguf")[0].config == model.config


def test_prediction_layers_stay_behind(tokenizer: Tokenizer, tmp_path: Path) -> None:
    model = make("deepseek-v3", num_nextn_predict_layers=1)
    save_gguf(model, tokenizer, tmp_path / "x.gguf")
    again, _ = open_model(tmp_path / "x.gguf")
    assert again.config == model.config.with_(num_nextn_predict_layers=0)


def test_old_files_with_one_matrix_for_keys_and_values_are_the_same_model(tokenizer: Tokenizer, tmp_path: Path) -> None:
    """As converters wrote before keys and values were apart: no `*_mla` lengths, as many key heads as heads, no gating function for V2."""
    model = make("deepseek-v2-lite")
    file = saved(model, tokenizer, tmp_path / "new.gguf")
    writer = gguf.GGUFWriter(tmp_path / "old.gguf", "deepseek2")
    old = {"attention.key_length": 12, "attention.value_length": 6, "attention.head_count_kv": 4}
    gone = ("attention.key_length_mla", "attention.value_length_mla", "attention.q_lora_rank", "expert_gating_func", "expert_weights_norm")
    for key, value in file.metadata.items():
        short = key.removeprefix("deepseek2.")
        if key != "general.architecture" and short not in gone:
            kinds = {str: "STRING", bool: "BOOL", float: "FLOAT32", int: "UINT32"}
            add = writer.add_array if isinstance(value, list) else writer.add_key_value
            add(key, old.get(short, value), *([] if isinstance(value, list) else [gguf.GGUFValueType[kinds[type(value)]]]))
    for name in file.tensors:
        if "attn_k_b" not in name and "attn_v_b" not in name:
            writer.add_tensor(name, file.read(name).numpy())
    for layer in range(3):
        weight = rounded(model)[f"model.layers.{layer}.self_attn.kv_b_proj.weight"]
        writer.add_tensor(f"blk.{layer}.attn_kv_b.weight", weight.numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    again, expected = open_model(tmp_path / "old.gguf")[0], open_model(tmp_path / "new.gguf")[0]
    assert again.config == expected.config
    for name, tensor in expected.state_dict().items():
        assert torch.equal(again.state_dict()[name], tensor), name


@pytest.mark.parametrize(
    "scaling",
    [
        {"mscale": 1.0, "mscale_all_dim": 1.0},
        {"mscale": 0.707, "mscale_all_dim": 0.707},
        {"mscale": 1.0, "mscale_all_dim": 0.707},
        {"mscale": 0.707, "mscale_all_dim": 1.0},
        {},
        {"attention_factor": 1.0},
        {"attention_factor": 0.8, "mscale_all_dim": 1.0},
        {"beta_fast": 16, "beta_slow": 2},
    ],
    ids=str,
)
@pytest.mark.parametrize("name", ["deepseek-v3", "llama", "qwen2"])
def test_yarn_comes_back_with_its_scales_and_frequencies_and_as_llama_cpp_computes_them(
    name: str, scaling: dict[str, Any], tokenizer: Tokenizer, tmp_path: Path
) -> None:
    rope = {"rope_type": "yarn", "factor": 40.0, "original_max_position_embeddings": 16, **scaling}
    config = make(name, rope_scaling=rope).config
    file = saved(make(name, rope_scaling=rope), tokenizer, tmp_path / "x.gguf")
    again = open_model(tmp_path / "x.gguf")[0].config
    assert embedding_scale(again) == pytest.approx(embedding_scale(config), rel=1e-5)
    assert softmax_scale(again) == pytest.approx(softmax_scale(config), rel=1e-5)
    assert torch.equal(frequencies(again), frequencies(config))
    # llama_context's constructor and deepseek2's graph, line by line
    field, stretch = file.metadata.get, np.log(40.0)
    multiplier = field("deepseek2.rope.scaling.yarn_log_multiplier", 0.0) / 0.1
    attn_factor = 1.0 if multiplier else 1 + 0.1 * stretch
    attn_factor *= 1 / (1 + 0.1 * stretch) * field(f"{ARCHITECTURES[config.model_type]}.rope.scaling.attn_factor", 1.0)
    assert attn_factor * (1 + 0.1 * stretch) == pytest.approx(embedding_scale(config), rel=1e-5)
    if config.is_latent:
        mscale = attn_factor * (1 + 0.1 * stretch) * (1 + 0.1 * multiplier * stretch)
        assert mscale**2 / np.sqrt(12) == pytest.approx(softmax_scale(config), rel=1e-5)


@pytest.mark.parametrize(
    ("name", "scaling"),
    [
        ("deepseek-v3", {"rope_type": "linear", "factor": 2.0}),
        ("qwen2", LLAMA3),
        ("llama", {"rope_type": "yarn", "factor": 1.0, "original_max_position_embeddings": 16}),
    ],
)
def test_a_context_extension_that_the_format_cannot_say_is_refused(
    name: str, scaling: dict[str, Any], tokenizer: Tokenizer, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match="cannot say"):
        save_gguf(make(name, rope_scaling=scaling), tokenizer, tmp_path / "x.gguf")
    assert list(tmp_path.iterdir()) == []


def test_what_llama_cpp_computes_otherwise_is_said(tokenizer: Tokenizer, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    yarn = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16, "beta_fast": 16}
    assert [differences(tiny_config(name)) for name in ("deepseek-v3", "deepseek-v2-lite", "llama", "smollm2", "qwen2")] == [[]] * 5
    for name, changes, text in (
        ("mistral", {}, "last 5 only"),
        ("deepseek-v2", {}, "best two"),
        ("deepseek-v3", {"rms_norm_eps": 1e-5}, "epsilon"),
        ("deepseek-v3", {"num_hidden_layers": 27}, "27 layers"),
        ("deepseek-v3", {"n_shared_experts": 0}, "shared"),
        ("qwen2", {"head_dim": 10}, "4 heads of 10"),
        ("llama", {"rope_scaling": yarn}, "16 and 1"),
    ):
        (found,) = differences(tiny_config(name, **changes))
        assert text in found
    with caplog.at_level(logging.WARNING):
        save_gguf(make("mistral"), tokenizer, tmp_path / "x.gguf")
    assert "last 5 only" in caplog.text


def test_weights_beyond_half_precision_are_refused_by_name_and_leave_no_file(tokenizer: Tokenizer, tmp_path: Path) -> None:
    model = make("llama")
    with torch.no_grad():
        model.lm_head.weight[3, 3] = 1e6
    with pytest.raises(UserError, match=r"output\.weight does not fit f16"):
        save_gguf(model, tokenizer, tmp_path / "x.gguf")
    assert list(tmp_path.iterdir()) == []


@pytest.fixture(scope="module")
def small(tokenizer: Tokenizer, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("small") / "x.gguf"
    save_gguf(make("deepseek-v3", num_hidden_layers=2), tokenizer, path)
    return path.read_bytes()


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=150)
@given(data=st.data())
def test_a_damaged_deepseek_file_gives_an_error_of_ours_or_a_model(small: bytes, tmp_path: Path, data: st.DataObject) -> None:
    content = bytearray(small)
    fields, tensors = (0, small.index(b"tokenizer.ggml")), (small.index(b"token_embd"), small.rindex(b"ffn_down") + 60)
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(*data.draw(st.sampled_from((fields, tensors)))))] = data.draw(st.integers(0, 255))
    path = tmp_path / "x.gguf"
    path.write_bytes(content)
    with suppress(UserError):
        open_model(path)


def test_permuting_is_undone_by_unpermuting() -> None:
    rows = torch.randn(24, 5)
    assert torch.equal(unpermute(permute(rows, 3), 3), rows)
    assert not torch.equal(permute(rows, 3), rows)


@pytest.mark.parametrize(
    "parts",
    [
        {"blk.0.attn_k_b.weight": (4, 16, 8)},
        {"blk.0.attn_k_b.weight": (4, 16, 8), "blk.0.attn_v_b.weight": (4, 6, 15)},
        {"blk.0.attn_k_b.weight": (4, 16, 8), "blk.0.attn_v_b.weight": (24, 16)},
        {"blk.0.attn_k_b.weight": (4,), "blk.0.attn_v_b.weight": (4,)},
        {"blk.0.attn_k_b.weight": (4, 16, 8), "blk.0.attn_v_b.weight": (4, 6, 16), "blk.0.attn_kv_b.weight": (56, 16)},
        {"blk.0.ffn_gate_exps.weight": (8, 20, 48), "blk.0.ffn_up_exps.weight": (8, 21, 48)},
        {"blk.0.ffn_up_exps.weight": (8, 20, 48)},
    ],
)
def test_parts_that_do_not_fit_together_are_refused(parts: dict[str, tuple[int, ...]]) -> None:
    with pytest.raises(UserError, match="do not fit together"):
        unite("x", {name: torch.zeros(shape) for name, shape in parts.items()})
