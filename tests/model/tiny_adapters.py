"""Adapters as PEFT writes them, with random weights, and the models that they amount to: shared by tests."""

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from spoutnik.checkpoint.adapter import Adapter
from spoutnik.model.transformer import CausalLM

CONFIG: dict[str, Any] = {
    "peft_type": "LORA", "task_type": "CAUSAL_LM", "base_model_name_or_path": "some/base", "r": 3, "lora_alpha": 6, "lora_dropout": 0.1,
    "bias": "none", "target_modules": "all-linear", "use_rslora": False, "use_dora": False, "modules_to_save": None,
    "init_lora_weights": True, "rank_pattern": {}, "alpha_pattern": {}, "fan_in_fan_out": False, "megatron_core": "megatron.core",
    "loftq_config": {}, "qalora_group_size": 16,
}  # fmt: skip


def adaptable(model: CausalLM) -> dict[str, nn.Linear]:
    """Linear layers within the model's layers, but for those of multi-token prediction."""
    layers = model.model.layers[: model.config.num_hidden_layers]
    return {name: module for name, module in layers.named_modules(prefix="model.layers") if isinstance(module, nn.Linear)}


def matrices(
    model: CausalLM, chosen: Callable[[str], bool] = lambda name: True, rank: int = 3, seed: int = 0, std: float = 0.15
) -> dict[str, Tensor]:
    """A and B of every chosen module under PEFT's names."""
    generator, tensors = torch.Generator().manual_seed(seed), {}
    for name, module in adaptable(model).items():
        shapes = {"A": (rank, module.in_features), "B": (module.out_features, rank)}
        for letter, shape in shapes.items():
            values = torch.randn(shape, generator=generator) * std
            if chosen(name):
                tensors[f"base_model.model.{name}.lora_{letter}.weight"] = values
    return tensors


def write_adapter(folder: Path, tensors: dict[str, Tensor], **changes: Any) -> Path:
    """A folder as PEFT's save_pretrained leaves it."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "adapter_config.json").write_text(json.dumps(CONFIG | changes))
    save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    return folder


def merged(model: CausalLM, adapter: Adapter) -> CausalLM:
    """The model with the adapter's changes in its weights."""
    model = copy.deepcopy(model)
    modules = adaptable(model)
    with torch.no_grad():
        for name, change in adapter.modules.items():
            modules[name].weight += change.scale * (change.up.float() @ change.down.float())
    return model
