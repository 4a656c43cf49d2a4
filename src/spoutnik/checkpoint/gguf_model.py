"""A GGUF file as a model: its metadata become a `ModelConfig` (gguf_config.py), its tensors our parameters."""

from pathlib import Path

import torch
from torch import Tensor

from spoutnik.checkpoint.gguf import GGUF, Fields
from spoutnik.checkpoint.gguf_config import sizes_of
from spoutnik.checkpoint.gguf_layout import our_name, turned_heads, unite, unpermute
from spoutnik.checkpoint.gguf_rope import ROPE_FACTORS, read_scaling
from spoutnik.checkpoint.layout import ROUTER_BIAS
from spoutnik.errors import UserError
from spoutnik.model.config import ModelConfig


def load_gguf(path: str | Path, dtype: torch.dtype = torch.float32) -> tuple[ModelConfig, dict[str, Tensor]]:
    """The configuration in a GGUF file and its parameters in `dtype`, under our names and in Hugging Face's layout."""
    return read_gguf(GGUF(path), dtype)


def read_gguf(file: GGUF, dtype: torch.dtype) -> tuple[ModelConfig, dict[str, Tensor]]:
    """As `load_gguf`, for a file that is open. Raises UserError for an architecture, tensor or context extension that is not known."""
    config = config_of(file)
    parts: dict[str, dict[str, Tensor]] = {}
    for name in file.tensors:
        if name == ROPE_FACTORS:
            continue
        ours = our_name(name)
        if ours is None:
            raise UserError(f"{file.path} holds the tensor {name}, which no {config.model_type} model has; Spoutnik cannot run this model")
        tensor = file.read(name, torch.float32 if ours.endswith(ROUTER_BIAS) else dtype)
        heads = turned_heads(name, config)
        parts.setdefault(ours, {})[name] = unpermute(tensor, heads) if heads else tensor
    return config, {ours: unite(ours, parts.pop(ours)) for ours in list(parts)}


def config_of(file: GGUF) -> ModelConfig:
    """The configuration that the metadata describe."""
    config = sizes_of(file)
    return config.with_(rope_scaling=read_scaling(file, Fields(file, file.metadata["general.architecture"]), config))
