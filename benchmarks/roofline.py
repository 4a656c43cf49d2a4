"""How far each figure is from what the machine allows: the time that its weights and its cache need to be read, or its products to be made.

A limit is the larger of the two times, each by itself: reading may overlap with computing, and nothing else is counted (norms, softmax,
rounding of activations, sampling, Python). Of a mixture a step reads the experts that its tokens are expected to meet under an even load.
"""

import json
import math
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from contestants.job import Job

from spoutnik.model.config import ModelConfig
from spoutnik.model.flops import forward_flops, parameters

BITS = {
    "float32": (32, 32, 32), "bfloat16": (16, 16, 16), "int8": (8, 8, 16), "int4": (5, 8, 16),
    "BF16": (16, 16, 16), "Q8_0": (8.5, 8.5, 16), "Q4_1": (5, 8.5, 16),
}  # fmt: skip
"""Bits a number takes in each format, scales of groups included: a weight, one of the head, one of the cache."""
PRODUCTS = {"int8": 2, "int4": 2}
"""Byte products for one of a weight, where it is not one: these weights of ours meet activations of two bytes."""


@dataclass(frozen=True)
class Limit:
    """What one decoding step, or one prefill, takes at least. `operations` are the model's, whatever products they are made of."""

    bytes: float
    operations: float
    read_s: float
    multiply_s: float

    @property
    def seconds(self) -> float:
        return max(self.read_s, self.multiply_s)


def machine(threads: int) -> dict[str, Any]:
    """Compiles and runs limits.c: bytes read and operations a second."""
    compiler = next((name for name in ("cc", "gcc", "clang") if shutil.which(name)), "cc")
    with tempfile.TemporaryDirectory() as folder:
        program = Path(folder) / "limits"
        source = Path(__file__).with_name("limits.c")
        subprocess.run([compiler, "-O3", "-march=native", "-pthread", str(source), "-o", str(program)], check=True)
        return json.loads(subprocess.run([program, str(threads)], check=True, capture_output=True, text=True).stdout)


def limit(config: ModelConfig, file_format: str, job: Job, measured: dict[str, Any]) -> Limit:
    """Of a job's prefill where it asks for one new token, else of a decoding step in the middle of the answer."""
    weight_bits, head_bits, cache_bits = BITS[file_format]
    head = config.vocab_size * config.hidden_size
    if job.new == 1:
        tokens, context = job.prompts * job.length, (job.length + 1) / 2
        operations = forward_flops(config, tokens, context) - 2.0 * head * (tokens - job.prompts)
        cached = 0.0
    else:
        tokens, context = job.prompts, job.length + job.new / 2
        operations, cached = forward_flops(config, tokens, context), tokens * context * _cache_width(config)
    matrices = _matrices(config, tokens)
    read = (matrices * weight_bits + head * head_bits + cached * cache_bits) / 8
    peak = measured[_unit(file_format, measured)]
    return Limit(read, operations, read / measured["read"], operations * PRODUCTS.get(file_format, 1) / peak)


def _unit(file_format: str, measured: dict[str, Any]) -> str:
    """The number type whose products a format's can be at best on this machine."""
    kind = {"float32": "float32", "bfloat16": "bfloat16", "BF16": "bfloat16"}.get(file_format, "int8")
    return kind if measured[kind] else "float32"


def _matrices(config: ModelConfig, tokens: int) -> float:
    """Weights that so many tokens together need, without embedding and head."""
    count = parameters(config)
    outside = config.vocab_size * config.hidden_size * (1 if config.tie_word_embeddings else 2)
    if not config.n_routed_experts:
        return count.total - outside
    layers = sum(config.layer_has_experts(layer) for layer in range(config.num_hidden_layers))
    expert = 3 * config.hidden_size * config.moe_intermediate_size
    missed = math.pow(1 - config.num_experts_per_tok / config.n_routed_experts, tokens)
    return count.total - outside - layers * config.n_routed_experts * expert * missed


def _cache_width(config: ModelConfig) -> int:
    """Numbers that a token leaves in the cache."""
    if config.is_latent:
        return config.num_hidden_layers * (config.kv_lora_rank + config.qk_rope_head_dim)
    return config.num_hidden_layers * 2 * config.num_key_value_heads * config.head_dim
