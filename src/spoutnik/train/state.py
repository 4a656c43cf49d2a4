"""Everything that the next training step depends on: weights, optimiser, step counter. Random draws are functions of (seed, step)."""

import hashlib
import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from spoutnik.model.transformer import CausalLM
from spoutnik.train.curriculum import PassRates
from spoutnik.train.optim import Optimizer


@dataclass
class TrainState:
    """The state of a stage that trains one model; `reference` is the frozen model of a KL term, `bad_steps` the run of skipped steps."""

    model: CausalLM
    optimizer: Optimizer
    step: int = 0
    bad_steps: int = 0
    reference: CausalLM | None = field(default=None)
    pass_rates: PassRates | None = None
    """Of a curriculum's problems."""
    disputed: list[float] = field(default_factory=list)
    """What the monitor of reward hacking looks back at."""

    @property
    def device(self) -> torch.device:
        """Where the model is, and its batches must be."""
        return self.model.lm_head.weight.device


def save_state(state: TrainState, folder: Path) -> None:
    """Writes weights, moments and counters into `folder`. Tensors are safetensors; nothing is pickled."""
    tensors = {f"model.{name}": tensor for name, tensor in _tensors(state.model).items()}
    if state.reference is not None:
        tensors |= {f"reference.{name}": tensor for name, tensor in _tensors(state.reference).items()}
    for name, parameter in state.model.named_parameters():
        for kind, tensor in state.optimizer.state_of(parameter).items():
            tensors[f"optimizer.{kind}.{name}"] = tensor
    save_file({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, folder / "state.safetensors")
    counters: dict[str, Any] = {"step": state.step, "bad_steps": state.bad_steps, "disputed": state.disputed}
    if state.pass_rates is not None:
        counters["pass_rates"] = asdict(state.pass_rates)
    (folder / "state.json").write_text(json.dumps(counters), encoding="utf-8")


def load_state(state: TrainState, folder: Path) -> TrainState:
    """Fills a freshly started state with what `save_state` wrote."""
    tensors = load_file(folder / "state.safetensors")
    _fill(state.model, tensors, "model.")
    if state.reference is not None:
        _fill(state.reference, tensors, "reference.")
    for name, parameter in state.model.named_parameters():
        kinds = {
            key.split(".")[1]: tensor for key, tensor in tensors.items() if key.startswith("optimizer.") and key.split(".", 2)[2] == name
        }
        if kinds:
            state.optimizer.restore(parameter, kinds)
    counters = json.loads((folder / "state.json").read_text(encoding="utf-8"))
    state.step, state.bad_steps, state.disputed = counters["step"], counters["bad_steps"], counters["disputed"]
    state.pass_rates = PassRates(**counters["pass_rates"]) if "pass_rates" in counters else None
    return state


def _tensors(model: nn.Module) -> dict[str, torch.Tensor]:
    """Parameters, once each where they are tied, and buffers."""
    return dict(model.named_parameters()) | dict(model.named_buffers())


@torch.no_grad()
def _fill(model: nn.Module, tensors: dict[str, torch.Tensor], prefix: str) -> None:
    for name, tensor in _tensors(model).items():
        tensor.copy_(tensors[prefix + name])


def stream_seed(seed: int, *place: int | str) -> int:
    """A 63-bit seed for one place (step, prompt, sample...) of a run: equal arguments give equal draws, others independent ones."""
    digest = hashlib.blake2b("/".join(map(str, (seed, *place))).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1
