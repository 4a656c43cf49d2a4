"""LoRA adapters (arXiv 2106.09685) in PEFT's directory format: adapter_config.json and adapter_model.safetensors.

The tensors say which modules are adapted, so `target_modules` (names, a regular expression, "all-linear") is not needed; the configuration
gives the scales. Its patterns are regular expressions, which are not run, for whoever made the file chose them: a module's name or its end
is understood, anything else refused. So is every setting that is not known to leave the function alone.
"""

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from spoutnik.checkpoint.shards import State, read_header, read_json
from spoutnik.errors import UserError
from spoutnik.model.transformer import CausalLM

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
UNDERSTOOD = {
    "peft_type", "r", "lora_alpha", "use_rslora", "rank_pattern", "alpha_pattern", "bias", "init_lora_weights",
    # where it came from and which modules it has, which the tensors say
    "task_type", "auto_mapping", "peft_version", "base_model_name_or_path", "revision", "inference_mode", "target_modules",
    "exclude_modules", "layers_to_transform", "layers_pattern",
    # for training alone, or for layers and methods that are refused by other signs
    "lora_dropout", "fan_in_fan_out", "megatron_core", "loftq_config", "eva_config", "qalora_group_size", "runtime_config",
}  # fmt: skip
"""Settings of a configuration that may have any value, or are looked at. All others must be off."""
STARTS = (True, False, None, "gaussian", "orthogonal", "eva")
"""Values of `init_lora_weights` that leave the base model as it is; others (PiSSA, OLoRA, CorDA, LoftQ) change its weights, too."""


@dataclass(frozen=True)
class LowRank:
    """A change of one matrix: scale * up @ down, both float32 or bfloat16."""

    down: Tensor
    """[rank, inputs]"""
    up: Tensor
    """[outputs, rank]"""
    scale: float


@dataclass(frozen=True)
class Adapter:
    """Changes by the name of the module, and 32 bytes that tell this adapter from any other, whatever its folder is called."""

    modules: dict[str, LowRank]
    fingerprint: bytes


def read_adapter(folder: str | Path, model: CausalLM) -> Adapter:
    """The adapter in a folder, known to fit the model. UserError says what is not supported, damaged, or of another base model."""
    folder = Path(folder).expanduser()
    if not (folder / CONFIG).is_file():
        raise UserError(f"{folder} holds no {CONFIG}, so it is no LoRA adapter in PEFT's format; check the path.")
    config = _Config(folder / CONFIG)
    if not (folder / WEIGHTS).is_file():
        pickled = " (a pickle file is never opened, for it can run code: convert it)" if list(folder.glob("*.bin")) else ""
        raise UserError(f"{folder} holds no {WEIGHTS}{pickled}, so the adapter has no weights; copy it again.")
    state = State(read_header(folder / WEIGHTS))
    linears = _linears(model)
    modules = {name: _low_rank(folder / WEIGHTS, name, down, up, config, linears) for name, down, up in _pairs(folder / WEIGHTS, state)}
    config.check_patterns(list(modules))
    return Adapter(modules, _fingerprint(modules))


def _linears(model: CausalLM) -> dict[str, nn.Linear]:
    """What may be adapted: projections of attention, of dense networks and of shared experts."""
    layers = model.model.layers[: model.config.num_hidden_layers]
    return {name: module for name, module in layers.named_modules(prefix="model.layers") if isinstance(module, nn.Linear)}


def _pairs(file: Path, state: State) -> Iterator[tuple[str, Tensor, Tensor]]:
    """(module, A, B) of every module in the file."""
    found: dict[str, dict[str, str]] = {}
    for tensor in state:
        parts = re.fullmatch(r"base_model\.model\.(.+)\.lora_(A|B)\.weight", tensor)
        if parts is None:
            raise UserError(f"{file} holds {tensor}, which is no A or B of a linear layer; train an adapter of linear layers alone.")
        found.setdefault(parts[1], {})[parts[2]] = tensor
    if not found:
        raise UserError(f"{file} holds no tensors, so there is nothing to add to the model; save the adapter again.")
    for module, names in sorted(found.items()):
        if len(names) != 2:
            raise UserError(f"{file} holds only {names.popitem()[1]} of {module}, which needs A and B; save the adapter again.")
        yield module, state[names["A"]], state[names["B"]]


def _low_rank(file: Path, name: str, down_RI: Tensor, up_OR: Tensor, config: "_Config", linears: dict[str, nn.Linear]) -> LowRank:
    """One module's change, known to fit it."""
    if name not in linears:
        raise UserError(
            f"{file} adapts {name}, which is none of this model's projections of attention, dense networks and shared experts (routed "
            "experts, embeddings and the head cannot be adapted); take the adapter of this model, trained on these."
        )
    base, rank = linears[name], config.rank(name)
    if down_RI.shape != (rank, base.in_features) or up_OR.shape != (base.out_features, rank):
        raise UserError(
            f"{file} gives {name} an A of {list(down_RI.shape)} and a B of {list(up_OR.shape)}, but with rank {rank} this model needs "
            f"{[rank, base.in_features]} and {[base.out_features, rank]}; take the adapter that belongs to this model."
        )
    for matrix in (down_RI, up_OR):
        if not matrix.is_floating_point() or matrix.itemsize < 2:
            raise UserError(f"{file} holds {name} as {matrix.dtype}, expected float32, bfloat16 or float16; convert the adapter.")
        if not bool(matrix.isfinite().all()):
            raise UserError(f"{file} holds NaN or infinity in {name}; take an adapter whose training did not fail.")
    down_RI, up_OR = (matrix if matrix.dtype == torch.bfloat16 else matrix.float() for matrix in (down_RI, up_OR))
    return LowRank(down_RI, up_OR, config.scale(name, rank))


class _Config:
    """An adapter_config.json that says nothing that we do not do."""

    def __init__(self, file: Path):
        raw = read_json(file)
        self._file = file
        kind, bias, start = raw.get("peft_type"), raw.get("bias", "none"), raw.get("init_lora_weights", True)
        if kind != "LORA":
            raise UserError(f"{file} describes an adapter of type {kind!r}; only LORA is supported.")
        if bias != "none":
            raise UserError(f"{file} has bias = {bias!r}, so biases were trained, too; only bias = 'none' is supported.")
        if start not in STARTS:
            raise UserError(f"{file} has init_lora_weights = {start!r}, which changes the base model's weights; convert it to plain LoRA.")
        for key, value in raw.items():
            if key not in UNDERSTOOD and value:
                raise UserError(f"{file} has {key} = {str(value)[:60]!r}, which is not supported; only plain LoRA is.")
        self._rslora = raw.get("use_rslora") is True
        self._rank, self._alpha = self._number(raw, "r"), self._number(raw, "lora_alpha")
        self._ranks, self._alphas = self._pattern(raw, "rank_pattern"), self._pattern(raw, "alpha_pattern")

    def rank(self, module: str) -> int | float:
        """The rank of a module's change."""
        return next((rank for key, rank in self._ranks.items() if _names(key, module)), self._rank)

    def scale(self, module: str, rank: int | float) -> float:
        """alpha / rank, or alpha / sqrt(rank) (rsLoRA, arXiv 2312.03732)."""
        alpha = next((alpha for key, alpha in self._alphas.items() if _names(key, module)), self._alpha)
        return alpha / (math.sqrt(rank) if self._rslora else rank)

    def check_patterns(self, modules: list[str]) -> None:
        """A pattern that names no module is one that was misunderstood."""
        for key in (*self._ranks, *self._alphas):
            if not any(_names(key, module) for module in modules):
                raise UserError(
                    f"{self._file} has a pattern {key!r}, which is no name of an adapted module or its end; write whole names instead."
                )

    def _pattern(self, raw: dict[str, Any], key: str) -> dict[str, int | float]:
        pattern = raw.get(key) or {}
        if not isinstance(pattern, dict):
            raise UserError(f"{self._file} has {key} = {pattern!r}, expected numbers by module; save the adapter again.")
        return {name: self._number(pattern, name) for name in pattern}

    def _number(self, numbers: dict[str, Any], key: str) -> int | float:
        value = numbers.get(key)
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 2**31:
            raise UserError(f"{self._file} has {key} = {value!r}, expected a positive number; save the adapter again.")
        return value


def _names(key: str, module: str) -> bool:
    """Whether a pattern's key is the module's name or the end of it; with ^ only the whole name."""
    return module == key.removeprefix("^") or module.endswith(f".{key}")


def _fingerprint(modules: dict[str, LowRank]) -> bytes:
    digest = blake2b(digest_size=32)
    for name, change in sorted(modules.items()):
        digest.update(f"{name} {change.scale!r}\n".encode())
        for matrix in (change.down, change.up):
            digest.update(f"{matrix.dtype} {tuple(matrix.shape)}\n".encode())
            digest.update(matrix.contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.digest()
