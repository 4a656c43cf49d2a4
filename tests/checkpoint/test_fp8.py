import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from spoutnik.checkpoint.fp8 import block_size, dequantise
from spoutnik.checkpoint.hf import load_checkpoint, save_checkpoint
from spoutnik.checkpoint.shards import BESIDE
from spoutnik.errors import UserError
from spoutnik.model.config import ModelConfig
from spoutnik.model.init import initialise
from spoutnik.model.transformer import CausalLM

CONFIG = ModelConfig(
    "deepseek_v3", vocab_size=320, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=4,
    q_lora_rank=16, kv_lora_rank=16, qk_nope_head_dim=8, qk_rope_head_dim=8, v_head_dim=8, n_routed_experts=4, n_shared_experts=1,
    num_experts_per_tok=2, moe_intermediate_size=16, first_k_dense_replace=1, num_nextn_predict_layers=1,
)  # fmt: skip
FP8 = torch.float8_e4m3fn
QUANTISATION = {"activation_scheme": "dynamic", "fmt": "e4m3", "quant_method": "fp8", "weight_block_size": [16, 16]}


def quantise(weight_OI: torch.Tensor, block: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Block by block, as DeepSeek's kernel does: scale = amax / 448."""
    rows, columns = (-(-side // block) for side in weight_OI.shape)
    scale = torch.empty(rows, columns)
    quants = torch.empty(weight_OI.shape, dtype=FP8)
    for row in range(rows):
        for column in range(columns):
            area = (slice(row * block, (row + 1) * block), slice(column * block, (column + 1) * block))
            scale[row, column] = weight_OI[area].abs().max().clamp(min=1e-4) / 448
            quants[area] = (weight_OI[area] / scale[row, column]).to(FP8)
    return quants, scale


@pytest.mark.parametrize("shape", [(576, 256), (128, 128), (130, 60), (1, 1)])
def test_each_block_is_multiplied_by_its_scale_even_a_partial_one(shape: tuple[int, int]) -> None:
    torch.manual_seed(0)
    weight_OI = torch.randn(shape).to(FP8)
    scale_oi = torch.rand(-(-shape[0] // 128), -(-shape[1] // 128)) + 0.5
    out = dequantise("w", weight_OI, scale_oi, (128, 128), torch.float32)
    for row in range(shape[0]):
        expected = weight_OI[row].float() * scale_oi[row // 128, torch.arange(shape[1]) // 128]
        assert torch.equal(out[row], expected)


def test_quantising_and_reading_back_loses_only_the_mantissa() -> None:
    torch.manual_seed(0)
    weight_OI = torch.randn(576, 200)
    again = dequantise("w", *quantise(weight_OI, 128), (128, 128), torch.float32)
    assert ((again - weight_OI).abs() <= weight_OI.abs() / 16 + 1e-2).all()


def make() -> CausalLM:
    model = CausalLM(CONFIG)
    initialise(model, 0)
    return model


@pytest.fixture
def quantised(tmp_path: Path) -> Path:
    """A checkpoint as DeepSeek releases it: projections in FP8, all else in bfloat16."""
    save_checkpoint(make(), None, tmp_path)
    tensors = {}
    beside = load_file(tmp_path / BESIDE)
    (tmp_path / BESIDE).unlink()
    for name, tensor in (load_file(tmp_path / "model.safetensors") | beside).items():
        if "_proj" in name and "eh_proj" not in name:
            tensors[name], tensors[f"{name}_scale_inv"] = quantise(tensor, 16)
        else:
            tensors[name] = tensor if name.endswith("bias") else tensor.bfloat16()
    save_file(tensors, tmp_path / "model.safetensors")
    set_quantisation(tmp_path, QUANTISATION)
    return tmp_path


def set_quantisation(directory: Path, value: object) -> None:
    config = json.loads((directory / "config.json").read_text())
    (directory / "config.json").write_text(json.dumps(config | {"quantization_config": value}))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_an_fp8_checkpoint_loads_as_the_model_it_was_made_of(quantised: Path, dtype: torch.dtype) -> None:
    original, model = make().state_dict(), load_checkpoint(quantised, dtype).state_dict()
    for name, tensor in original.items():
        assert model[name].dtype == (torch.float32 if name.endswith("bias") else dtype)
        torch.testing.assert_close(model[name].float(), tensor, rtol=1 / 14, atol=2e-3)
    gate_up = model["model.layers.1.mlp.experts.gate_up_proj"].float()
    files = load_file(quantised / "model.safetensors")
    stem = "model.layers.1.mlp.experts.3.up_proj.weight"
    assert torch.equal(gate_up[3, 16:], dequantise("", files[stem], files[stem + "_scale_inv"], (16, 16), dtype).float())


@pytest.mark.parametrize(
    ("scale", "complaint"), [(None, "lacks its scale"), (torch.ones(1, 1), r"shape \[1, 1\]"), (torch.full((3, 2), torch.nan), "NaN")]
)
def test_a_scale_that_is_missing_or_wrong_is_refused(quantised: Path, scale: torch.Tensor | None, complaint: str) -> None:
    tensors = load_file(quantised / "model.safetensors")
    name = "model.layers.0.mlp.up_proj.weight_scale_inv"
    assert tensors.pop(name).shape == (3, 2)
    save_file(tensors | ({} if scale is None else {name: scale}), quantised / "model.safetensors")
    with pytest.raises(UserError, match=complaint):
        load_checkpoint(quantised)


def test_fp8_without_a_configuration_for_it_is_refused(quantised: Path) -> None:
    set_quantisation(quantised, None)
    with pytest.raises(UserError, match="no quantization_config"):
        load_checkpoint(quantised)


@pytest.mark.parametrize(
    "change", [{"quant_method": "gptq"}, {"fmt": "e5m2"}, {"weight_block_size": None}, {"weight_block_size": [0, 128]}]
)
def test_other_quantisations_are_refused(change: dict[str, object]) -> None:
    assert block_size(QUANTISATION) == (16, 16)
    with pytest.raises(UserError, match="quantised"):
        block_size(QUANTISATION | change)
