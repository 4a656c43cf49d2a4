import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from spoutnik.checkpoint.hf import load_checkpoint, load_tokenizer, save_checkpoint
from spoutnik.checkpoint.shards import BESIDE
from spoutnik.errors import UserError
from spoutnik.model.config import ModelConfig
from spoutnik.model.init import initialise
from spoutnik.model.transformer import CausalLM
from spoutnik.text.tokenizer import Tokenizer, train_bpe

SIZES = {"vocab_size": 320, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
LATENT = {
    **SIZES, "num_key_value_heads": 4, "kv_lora_rank": 16, "qk_nope_head_dim": 8, "qk_rope_head_dim": 8, "v_head_dim": 8,
    "n_routed_experts": 4, "n_shared_experts": 1, "num_experts_per_tok": 2, "moe_intermediate_size": 16, "first_k_dense_replace": 1,
}  # fmt: skip
CONFIGS = {
    "deepseek_v3": ModelConfig("deepseek_v3", **LATENT, q_lora_rank=16, n_group=2, topk_group=1, routed_scaling_factor=2.5),
    "deepseek_v2": ModelConfig("deepseek_v2", **LATENT, topk_method="greedy", norm_topk_prob=False),
    "llama": ModelConfig("llama", **SIZES, num_key_value_heads=2, tie_word_embeddings=True),
    "llama-untied": ModelConfig("llama", **SIZES, num_key_value_heads=2),
    "mistral": ModelConfig("mistral", **SIZES, num_key_value_heads=2, sliding_window=4),
    "qwen2": ModelConfig("qwen2", **SIZES, num_key_value_heads=2, attention_bias=True, tie_word_embeddings=True),
}
WITH_MTP = CONFIGS["deepseek_v3"].with_(num_nextn_predict_layers=1)
IDS_BT = torch.arange(24).view(2, 12) % 320


def make(config: ModelConfig, seed: int = 0) -> CausalLM:
    model = CausalLM(config)
    initialise(model, seed)
    for name, buffer in model.named_buffers():
        if name.endswith("e_score_correction_bias"):
            buffer.copy_(torch.linspace(-0.3, 0.4, len(buffer)))
    return model


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train_bpe(["some words to learn from, again and again"] * 9, vocab_size=300)


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """A checkpoint whose prediction layer lies in the main file, as DeepSeek's do."""
    directory = tmp_path / "model"
    save_checkpoint(make(WITH_MTP), None, directory)
    save_file(load_file(directory / "model.safetensors") | load_file(directory / BESIDE), directory / "model.safetensors")
    (directory / BESIDE).unlink()
    return directory


def tamper(directory: Path, **changes: torch.Tensor | None) -> None:
    """Replaces or removes tensors by name."""
    tensors = {name: tensor for name, tensor in (load_file(directory / "model.safetensors") | changes).items() if tensor is not None}
    save_file(tensors, directory / "model.safetensors")


@pytest.mark.parametrize("config", [*CONFIGS.values(), WITH_MTP], ids=[*CONFIGS, "mtp"])
def test_loading_what_was_saved_gives_the_same_bits(config: ModelConfig, tmp_path: Path) -> None:
    model = make(config)
    save_checkpoint(model, None, tmp_path)
    again = load_checkpoint(tmp_path)
    assert again.config == config
    assert again.state_dict().keys() == model.state_dict().keys()
    assert all(torch.equal(tensor, again.state_dict()[name]) for name, tensor in model.state_dict().items())
    assert (again.lm_head.weight is again.model.embed_tokens.weight) == config.tie_word_embeddings


@pytest.mark.parametrize("config", [*CONFIGS.values(), WITH_MTP], ids=[*CONFIGS, "mtp"])
def test_transformers_loads_what_we_save_with_the_same_logits(config: ModelConfig, tmp_path: Path, tokenizer: Tokenizer) -> None:
    transformers = pytest.importorskip("transformers")
    model = make(config)
    save_checkpoint(model, tokenizer, tmp_path, max_shard_bytes=20_000)
    oracle, info = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, output_loading_info=True, attn_implementation="eager")
    assert not info["missing_keys"]
    assert not info["mismatched_keys"]
    assert not info["unexpected_keys"]
    with torch.no_grad():
        torch.testing.assert_close(model(IDS_BT), oracle(IDS_BT).logits, atol=1e-5, rtol=0)
    assert transformers.AutoTokenizer.from_pretrained(tmp_path).encode("words") == tokenizer.encode("words", add_special_tokens=True)
    assert oracle.generation_config.eos_token_id == tokenizer.eos_token_id


def test_at_its_published_depth_transformers_expects_the_mtp_layer(tmp_path: Path) -> None:
    """The rule by which transformers passes over the layer names layer 61, that of DeepSeek-V3."""
    transformers = pytest.importorskip("transformers")
    narrow = {"hidden_size": 8, "intermediate_size": 8, "num_attention_heads": 2, "num_key_value_heads": 2, "moe_intermediate_size": 4}
    save_checkpoint(make(WITH_MTP.with_(num_hidden_layers=61, **narrow)), None, tmp_path)
    info = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, output_loading_info=True)[1]
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_we_load_what_transformers_saves_with_the_same_logits(config: ModelConfig, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    oracle = transformers.AutoModelForCausalLM.from_config(transformers.AutoConfig.for_model(**config.to_hf()), attn_implementation="eager")
    oracle.save_pretrained(tmp_path, max_shard_size="20KB")
    model = load_checkpoint(tmp_path)
    with torch.no_grad():
        torch.testing.assert_close(model(IDS_BT), oracle(IDS_BT).logits, atol=1e-5, rtol=0)


def test_the_files_hold_the_published_names(saved: Path) -> None:
    tensors = load_file(saved / "model.safetensors")
    assert tensors["model.layers.1.mlp.experts.3.down_proj.weight"].shape == (32, 16)
    assert tensors["model.layers.1.mlp.experts.3.gate_proj.weight"].shape == (16, 32)
    assert torch.equal(tensors["model.layers.2.embed_tokens.weight"], tensors["model.embed_tokens.weight"])
    assert torch.equal(tensors["model.layers.2.shared_head.head.weight"], tensors["lm_head.weight"])
    assert {"model.layers.2.enorm.weight", "model.layers.2.eh_proj.weight", "model.layers.2.shared_head.norm.weight"} <= tensors.keys()


def test_the_router_bias_stays_float32_in_a_bfloat16_model(tmp_path: Path) -> None:
    save_checkpoint(make(WITH_MTP), None, tmp_path)
    model = load_checkpoint(tmp_path, dtype=torch.bfloat16)
    save_checkpoint(model, None, tmp_path)
    for name, tensor in load_file(tmp_path / "model.safetensors").items():
        assert tensor.dtype == (torch.float32 if name.endswith("e_score_correction_bias") else torch.bfloat16), name
    bias = load_checkpoint(tmp_path, torch.bfloat16).model.layers[1].mlp.gate.e_score_correction_bias
    assert torch.equal(bias, torch.linspace(-0.3, 0.4, 4))
    assert json.loads((tmp_path / "config.json").read_text())["dtype"] == "bfloat16"


def test_lineage_is_written_and_never_outlives_its_weights(tmp_path: Path) -> None:
    save_checkpoint(make(WITH_MTP), None, tmp_path, lineage={"parent": "x"})
    assert json.loads((tmp_path / "spoutnik.json").read_text()) == {"parent": "x"}
    save_checkpoint(make(WITH_MTP), None, tmp_path)
    assert not (tmp_path / "spoutnik.json").exists()


def test_saving_over_a_checkpoint_leaves_no_stale_weights_and_keeps_other_files(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    save_checkpoint(make(WITH_MTP, seed=1), None, tmp_path, max_shard_bytes=20_000)
    assert len(list(tmp_path.glob("model-*.safetensors"))) > 2
    model = make(WITH_MTP, seed=2)
    save_checkpoint(model, None, tmp_path)
    assert {file.name for file in tmp_path.iterdir()} == {
        "config.json", "generation_config.json", "model.safetensors", BESIDE, "notes.txt",
    }  # fmt: skip
    assert torch.equal(load_checkpoint(tmp_path).lm_head.weight, model.lm_head.weight)
    assert list(tmp_path.parent.glob(".*.saving")) == []


def test_a_template_left_by_another_tokenizer_does_not_overrule_the_new_one(tmp_path: Path, tokenizer: Tokenizer) -> None:
    (tmp_path / "chat_template.jinja").write_text("old")
    save_checkpoint(make(WITH_MTP), tokenizer, tmp_path)
    assert load_tokenizer(tmp_path).chat_template == tokenizer.chat_template


FULL_DISK = """
import resource, sys
import torch
sys.path.insert(0, {tests!r})
from test_hf import WITH_MTP, make
from spoutnik.checkpoint.hf import save_checkpoint
from spoutnik.errors import UserError
model = make(WITH_MTP, seed=7)
resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))
try:
    save_checkpoint(model, None, {directory!r})
except UserError as error:
    print("refused:", error)
"""


def test_a_full_disk_leaves_the_old_checkpoint_whole(saved: Path) -> None:
    before = {file.name: file.read_bytes() for file in saved.iterdir()}
    assert len(before["model.safetensors"]) > 50_000
    script = FULL_DISK.format(tests=str(Path(__file__).parent), directory=str(saved))
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("refused: The checkpoint cannot be saved to")
    assert {file.name: file.read_bytes() for file in saved.iterdir()} == before
    assert [entry.name for entry in saved.parent.iterdir()] == [saved.name]


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"model.norm.weight": None}, r"model\.norm\.weight missing"),
        ({"model.layers.1.mlp.experts.2.up_proj.weight": None}, r"experts\.2\.up_proj\.weight missing"),
        ({"model.layers.2.eh_proj.weight": None}, "eh_proj"),
        ({"stray": torch.zeros(1)}, "stray unexpected"),
        ({"model.norm.weight": torch.zeros(31)}, r"\[31\].*\[32\]"),
        ({"model.norm.weight": torch.full((32,), torch.nan)}, r"model\.norm\.weight holds NaN"),
        ({"model.norm.weight": torch.full((32,), torch.inf)}, "NaN or infinity"),
        ({"model.norm.weight": torch.zeros(32, dtype=torch.int8)}, "int8"),
        ({"model.layers.2.embed_tokens.weight": torch.zeros(320, 32)}, "other values"),
        ({"model.layers.2.shared_head.head.weight": torch.zeros(320, 32)}, "other values"),
    ],
)
def test_weights_that_do_not_fit_are_refused_by_name(saved: Path, change: dict[str, torch.Tensor | None], complaint: str) -> None:
    tamper(saved, **change)
    with pytest.raises(UserError, match=complaint):
        load_checkpoint(saved)


def test_nan_is_let_through_when_asked(saved: Path) -> None:
    tamper(saved, **{"model.norm.weight": torch.full((32,), torch.nan)})
    assert load_checkpoint(saved, check_finite=False).model.norm.weight.isnan().all()


def test_a_tensor_in_both_files_is_refused(tmp_path: Path) -> None:
    save_checkpoint(make(WITH_MTP), None, tmp_path)
    save_file({"model.norm.weight": torch.ones(32)}, tmp_path / BESIDE)
    with pytest.raises(UserError, match=r"model\.norm\.weight, which the other weights hold"):
        load_checkpoint(tmp_path)


def test_old_rotary_tables_are_ignored(saved: Path) -> None:
    tamper(saved, **{"model.layers.0.self_attn.rotary_emb.inv_freq": torch.zeros(4)})
    load_checkpoint(saved)


def test_a_model_without_its_prediction_layer_loads_without_it(saved: Path) -> None:
    layer = [name for name in load_file(saved / "model.safetensors") if name.startswith("model.layers.2.")]
    tamper(saved, **dict.fromkeys(layer))
    assert load_checkpoint(saved).config.num_nextn_predict_layers == 0


@pytest.mark.parametrize(
    "config", ['{"model_type": "gpt5"}', '{"model_type": "llama"}', "[]", "{", '{"model_type": "llama", "vocab_size": "x"}']
)
def test_an_impossible_configuration_is_refused(saved: Path, config: str) -> None:
    (saved / "config.json").write_text(config)
    with pytest.raises(UserError):
        load_checkpoint(saved)


@pytest.mark.parametrize(
    "change",
    [
        {"num_hidden_layers": 10**9},
        {"num_nextn_predict_layers": 10**9},
        {"n_routed_experts": 10**9, "n_group": 1, "topk_group": 1},
        {"vocab_size": 2**62},
        {"hidden_size": 10**400},
    ],
)
def test_a_configuration_far_beyond_its_files_costs_neither_time_nor_memory(saved: Path, change: dict[str, int]) -> None:
    config = json.loads((saved / "config.json").read_text())
    (saved / "config.json").write_text(json.dumps(config | change))
    with pytest.raises(UserError):
        load_checkpoint(saved)


def test_a_tokenizer_larger_than_the_embedding_is_refused(tmp_path: Path) -> None:
    small = CONFIGS["llama"].with_(vocab_size=280)
    tokenizer = train_bpe(["some words to learn from, again and again"] * 9, vocab_size=290)
    with pytest.raises(UserError, match="280"):
        save_checkpoint(make(small), tokenizer, tmp_path / "model")
    assert not (tmp_path / "model").exists()
    save_checkpoint(make(small), None, tmp_path)
    tokenizer.save(tmp_path)
    with pytest.raises(UserError, match="290 tokens"):
        load_tokenizer(tmp_path)
