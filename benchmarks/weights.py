"""The same weights in every form that an engine reads: a Hugging Face directory in bfloat16, and GGUF files made from it."""

import subprocess
import sys
from pathlib import Path

import torch

import spoutnik
from spoutnik.checkpoint.load import open_model
from spoutnik.library import Model
from spoutnik.model.config import ModelConfig
from spoutnik.model.init import initialise
from spoutnik.model.transformer import CausalLM

RANDOM_V3 = "v3-128m"
SEED = 0


def prepare(name: str, folder: Path) -> ModelConfig:
    """Writes the model to `folder`/hf and `folder`/f16.gguf. Raises RuntimeError if the latter fails; the former is there then."""
    hf, gguf = folder / "hf", folder / "f16.gguf"
    model = random_v3() if name == RANDOM_V3 else spoutnik.load(name, dtype="bfloat16")
    model.save(hf)
    command = [sys.executable, "-m", "spoutnik", "export", str(hf), "--gguf", str(gguf), "--type", "f16", "--force"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode:
        raise RuntimeError(f"no GGUF file: {(result.stderr.strip().splitlines() or ['spoutnik export failed'])[-1]}")
    return model.config


def random_v3() -> Model:
    """DeepSeek-V3's architecture at 128 M parameters, 46 M of them active, with random weights and SmolLM2's tokenizer.

    The latent is as wide as V3's, for vLLM runs no other on a CPU.
    """
    _, tokenizer = open_model("smollm2")
    config = ModelConfig(
        "deepseek_v3", vocab_size=tokenizer.vocab_size, hidden_size=384, intermediate_size=1024, num_hidden_layers=11,
        num_attention_heads=6, num_key_value_heads=6, q_lora_rank=192, kv_lora_rank=512, qk_nope_head_dim=64, qk_rope_head_dim=64,
        v_head_dim=64, n_routed_experts=32, n_shared_experts=1, num_experts_per_tok=4, moe_intermediate_size=256,
        first_k_dense_replace=1, n_group=4, topk_group=2, routed_scaling_factor=2.5, tie_word_embeddings=True,
        max_position_embeddings=2048, bos_token_id=tokenizer.bos_token_id, eos_token_id=sorted(tokenizer.eos_token_ids),
    )  # fmt: skip
    model = CausalLM(config)
    initialise(model, SEED)
    return Model(model.to(torch.bfloat16), tokenizer)
