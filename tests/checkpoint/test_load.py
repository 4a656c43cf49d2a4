import json
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from spoutnik.checkpoint.gguf_layout import our_name, unpermute
from spoutnik.checkpoint.gguf_model import load_gguf
from spoutnik.checkpoint.hf import save_checkpoint
from spoutnik.checkpoint.load import open_model
from spoutnik.errors import UserError
from spoutnik.model.config import ModelConfig
from spoutnik.model.init import initialise
from spoutnik.model.rope import frequencies
from spoutnik.model.transformer import CausalLM
from spoutnik.text.tokenizer import Tokenizer, train_bpe

gguf = pytest.importorskip("gguf")

LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}
SIZES = {
    "vocab_size": 300, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "rms_norm_eps": 1e-5, "rope_theta": 5000.0, "max_position_embeddings": 512,
    "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 2,
}  # fmt: skip
CONFIGS = {
    "llama": ModelConfig("llama", **SIZES),
    "llama-tied": ModelConfig("llama", **SIZES, tie_word_embeddings=True),
    "llama-3.1": ModelConfig("llama", **SIZES | {"rope_theta": 500000.0}, head_dim=32, rope_scaling=LLAMA3),
    "qwen2": ModelConfig("qwen2", **SIZES, attention_bias=True, tie_word_embeddings=True),
}
IDS_BT = torch.arange(40).view(2, 20) * 7 % 300
NAMES = {
    "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down", "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm", "model.layers.": "blk.", "model.embed_tokens": "token_embd", "model.norm": "output_norm",
    "lm_head": "output",
}  # fmt: skip


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train_bpe(["some words to learn from, again and again"] * 9, vocab_size=290)


def make(config: ModelConfig) -> CausalLM:
    model = CausalLM(config)
    initialise(model, 0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("bias"):
                parameter.copy_(torch.linspace(-1, 1, len(parameter)))
    return model


def permute(rows: torch.Tensor, heads: int) -> torch.Tensor:
    """What the converter does to Llama's queries and keys, row by row: halves become neighbours."""
    size = len(rows) // heads
    order = [head * size + half * size // 2 + pair for head in range(heads) for pair in range(size // 2) for half in (0, 1)]
    return rows[order]


def tensors_of(model: CausalLM) -> Iterator[tuple[str, np.ndarray]]:
    """Names and layouts of the converter."""
    config, state = model.config, model.state_dict()
    if config.tie_word_embeddings:
        del state["lm_head.weight"]
    for name, tensor in state.items():
        if config.model_type == "llama" and (".q_proj" in name or ".k_proj" in name):
            tensor = permute(tensor, config.num_attention_heads if ".q_proj" in name else config.num_key_value_heads)
        for ours, theirs in NAMES.items():
            name = name.replace(ours, theirs)
        yield name, tensor.numpy()
    if config.rope_scaling:
        yield "rope_freqs.weight", (frequencies(config.with_(rope_scaling=None)) / frequencies(config)).numpy()


def write(path: Path, model: CausalLM, tokenizer: Tokenizer, extra: dict[str, np.ndarray] | None = None, **metadata: Any) -> Path:
    config, content = model.config, json.loads(tokenizer.backend.to_str())
    writer = gguf.GGUFWriter(path, metadata.pop("architecture", config.model_type))
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_block_count(metadata.pop("block_count", config.num_hidden_layers))
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(config.head_dim)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(config.rope_theta)
    tokens = sorted(tokenizer.backend.get_vocab(), key=tokenizer.backend.get_vocab().__getitem__)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("deepseek-v3")
    writer.add_token_list(tokens)
    special = {token["content"] for token in content["added_tokens"]}
    writer.add_token_types([3 if token in special else 1 for token in tokens])
    writer.add_token_merges([" ".join(pair) for pair in content["model"]["merges"]])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(1)
    writer.add_pad_token_id(2)
    for key, value in metadata.items():
        writer.add_key_value(key, value, gguf.GGUFValueType.STRING if isinstance(value, str) else gguf.GGUFValueType.UINT32)
    for name, array in (dict(tensors_of(model)) | (extra or {})).items():
        if array.size:
            writer.add_tensor(name, array)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_a_gguf_opens_as_the_model_that_was_converted(config: ModelConfig, tokenizer: Tokenizer, tmp_path: Path) -> None:
    original = make(config)
    model, again = open_model(write(tmp_path / "x.gguf", original, tokenizer))
    assert model.config == config.with_(rms_norm_eps=model.config.rms_norm_eps)
    assert model.config.rms_norm_eps == pytest.approx(1e-5)
    assert again.encode("some words <think>") == tokenizer.encode("some words <think>")
    for name, tensor in original.state_dict().items():
        assert torch.equal(model.state_dict()[name], tensor), name
    with torch.no_grad():
        torch.testing.assert_close(model(IDS_BT), original(IDS_BT), atol=1e-5, rtol=0)


def test_unpermuted_rows_turned_by_halves_score_as_permuted_ones_turned_by_neighbours() -> None:
    """The meaning of the permutation, without trusting either side's formula: attention scores must not change."""
    torch.manual_seed(0)
    heads, size = 2, 8
    rows_q, rows_k = torch.randn(2, heads * size, 5)
    angles = torch.rand(2, size // 2)

    def scores(turn: Callable[[torch.Tensor, torch.Tensor], torch.Tensor], query: torch.Tensor, key: torch.Tensor) -> torch.Tensor:
        vectors = [rows.sum(-1).view(heads, size) for rows in (query, key)]
        turned = [turn(vector, angle) for vector, angle in zip(vectors, angles, strict=True)]
        return (turned[0] * turned[1]).sum(-1)

    def neighbours(x: torch.Tensor, angle: torch.Tensor) -> torch.Tensor:
        return torch.view_as_real(torch.view_as_complex(x.unflatten(-1, (-1, 2))) * torch.polar(torch.ones_like(angle), angle)).flatten(-2)

    def halves(x: torch.Tensor, angle: torch.Tensor) -> torch.Tensor:
        turned = torch.complex(*x.chunk(2, dim=-1)) * torch.polar(torch.ones_like(angle), angle)
        return torch.cat((turned.real, turned.imag), dim=-1)

    ours = scores(halves, unpermute(rows_q, heads), unpermute(rows_k, heads))
    torch.testing.assert_close(ours, scores(neighbours, rows_q, rows_k))


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Small matrices on a busy machine: threads would only wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.usefixtures("one_thread")
def test_smollm2_answers_in_transformers_as_in_ours() -> None:
    """The real file, opened by us, saved, and read back by transformers: same logits, and greedily the right capital."""
    transformers = pytest.importorskip("transformers")
    model, tokenizer = open_model("smollm2")
    prompt = tokenizer.encode(tokenizer.render([{"role": "user", "content": "What is the capital of France?"}]))
    answer = tokenizer.encode("The capital of France is Paris.<|im_end|>")
    with TemporaryDirectory() as directory:  # half a gigabyte that pytest would keep
        save_checkpoint(model, tokenizer, directory)
        oracle, info = transformers.AutoModelForCausalLM.from_pretrained(directory, output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    ids_BT = torch.tensor([prompt + answer])
    with torch.no_grad():
        logits_BTV = model(ids_BT)
        torch.testing.assert_close(logits_BTV, oracle(ids_BT).logits, atol=2e-4, rtol=1e-4)
    assert logits_BTV[0, len(prompt) - 1 : -1].argmax(-1).tolist() == answer


def test_names_of_known_roles_are_translated() -> None:
    assert our_name("blk.12.attn_q.bias") == "model.layers.12.self_attn.q_proj.bias"
    assert our_name("output_norm.weight") == "model.norm.weight"
    assert [our_name(name) for name in ("blk.x.attn_q.weight", "blk.1.ssm_a.weight", "attn_q.weight", "x", "")] == [None] * 5


NOTHING = np.zeros(0, np.float32)
WRONG = {
    "architecture": ({"architecture": "mamba"}, {}, "'mamba'.*llama"),
    "biases of another family": ({"architecture": "qwen2"}, {}, "k_proj.bias"),
    "unknown tensor": ({}, {"blk.0.ssm_a.weight": np.ones(32, np.float32)}, "ssm_a"),
    "missing tensor": ({}, {"blk.1.ffn_up.weight": NOTHING}, r"layers\.1\.mlp\.up_proj.*None: absent"),
    "misshapen tensor": ({}, {"blk.1.ffn_up.weight": np.ones((96, 32), np.float32)}, r"\(96, 32\)"),
    "odd query rows": ({}, {"blk.1.attn_q.weight": np.ones((62, 64), np.float32)}, "62 rows"),
    "not finite": ({}, {"output_norm.weight": np.full(64, np.nan, np.float32)}, "NaN"),
    "no embedding": ({}, {"token_embd.weight": NOTHING}, "token_embd"),
    "other rope factors": ({}, {"rope_freqs.weight": np.linspace(1, 9, 8, dtype=np.float32)}, "not Llama 3's"),
    "far too many layers": ({"block_count": 2**31}, {}, "num_hidden_layers 2147483648"),
    "yarn": ({"llama.rope.scaling.type": "yarn"}, {}, "yarn"),
    "tokenizer too large": ({}, {"token_embd.weight": np.ones((200, 64), np.float32)}, "290 tokens"),
    "layers beyond": ({}, {"blk.2.attn_norm.weight": np.ones(64, np.float32)}, r"layers\.2"),
}


@pytest.mark.parametrize(("metadata", "extra", "complaint"), WRONG.values(), ids=WRONG)
def test_a_gguf_that_is_not_the_model_it_announces_is_refused(
    tokenizer: Tokenizer, tmp_path: Path, metadata: dict[str, Any], extra: dict[str, np.ndarray], complaint: str
) -> None:
    path = write(tmp_path / "x.gguf", make(CONFIGS["llama"]), tokenizer, extra, **metadata)
    with pytest.raises(UserError, match=complaint):
        open_model(path)


def test_parameters_come_in_the_dtype_asked_for(tokenizer: Tokenizer, tmp_path: Path) -> None:
    parameters = load_gguf(write(tmp_path / "x.gguf", make(CONFIGS["llama"]), tokenizer), torch.bfloat16)[1]
    assert {tensor.dtype for tensor in parameters.values()} == {torch.bfloat16}


@pytest.fixture(scope="module")
def tiny(tokenizer: Tokenizer, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    small = {"hidden_size": 16, "intermediate_size": 16, "num_attention_heads": 2, "num_key_value_heads": 1, "num_hidden_layers": 1}
    return write(tmp_path_factory.mktemp("tiny") / "x.gguf", make(CONFIGS["llama"].with_(**small, head_dim=8)), tokenizer).read_bytes()


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=150)
@given(data=st.data())
def test_a_damaged_gguf_gives_an_error_of_ours_or_a_model(tiny: bytes, tmp_path: Path, data: st.DataObject) -> None:
    content = bytearray(tiny)
    head = tiny.index(b"blk.0.ffn_up") + 400  # most of the rest is weights, where damage only changes numbers
    for _ in range(data.draw(st.integers(0, 3))):
        content[data.draw(st.integers(0, head))] = data.draw(st.integers(0, 255))
    path = tmp_path / "x.gguf"
    path.write_bytes(content[: data.draw(st.one_of(st.just(len(content)), st.integers(0, len(content))))])
    try:
        model, tokenizer = open_model(path)
        assert tokenizer.vocab_size <= model.config.vocab_size
    except UserError:
        pass


def test_a_directory_opens_with_its_tokenizer(tokenizer: Tokenizer, tmp_path: Path) -> None:
    model = make(CONFIGS["llama"])
    save_checkpoint(model, tokenizer, tmp_path)
    again, same = open_model(str(tmp_path))
    assert torch.equal(again(IDS_BT), model(IDS_BT))
    assert same.fingerprint() == tokenizer.fingerprint()
