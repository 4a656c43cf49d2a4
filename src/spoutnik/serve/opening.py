"""From a model's name to a backend that serves it."""

import hashlib
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch

from spoutnik.checkpoint.adapter import read_adapter
from spoutnik.checkpoint.load import open_model
from spoutnik.engine.generator import Engine
from spoutnik.engine.runner import Quantization, choose_runner
from spoutnik.engine.store import Store
from spoutnik.recipe.tables import Price
from spoutnik.serve.backend import Info
from spoutnik.serve.worker import Worker


@dataclass(frozen=True)
class Opening:
    """A model and how to run it."""

    model: str
    """A folder, a GGUF file or a name, as everywhere."""
    name: str = ""
    """What clients call it; "": the end of `model`."""
    dtype: torch.dtype = torch.float32
    quantize: Quantization | None = None
    adapters: Mapping[str, str] = field(default_factory=dict)
    """LoRA adapters' folders by the names that they answer under."""
    speculate: bool = True
    max_batch: int = 64
    """Requests that run at a time."""
    max_queue: int = 256
    """Requests that may wait; more are told to come back later."""
    context: int | None = None
    """Most tokens of a prompt and its answer, if fewer than the model's context."""
    cache_dir: str | None = None
    """Where prompts are kept on disk."""


def served_name(opening: Opening) -> str:
    """What clients call the model: of a path its last part, of `hf:org/name` what comes after the colon."""
    if opening.name or not Path(opening.model).exists():
        return opening.name or opening.model.removeprefix("hf:")
    return Path(opening.model).resolve().name


def open_backend(opening: Opening, price: Price, say: Callable[[str], None]) -> Worker:
    """Loads everything, which may take a while; `say` is told what comes next. Raises UserError where something is not as it should be."""
    store = None if opening.cache_dir is None else Store(opening.cache_dir)
    say("reading weights")
    model, tokenizer = open_model(opening.model, opening.dtype)
    model.eval()
    context = min(opening.context or model.config.max_position_embeddings, model.config.max_position_embeddings)
    say("packing weights")
    runner = choose_runner(model, opening.max_batch, context, opening.quantize, store=store, speculate=opening.speculate)
    engine = Engine(model, tokenizer, opening.max_batch, context, runner, opening.max_queue)
    for name, folder in opening.adapters.items():
        say(f"reading the adapter {name}")
        engine.add_adapter(name, read_adapter(folder, model))
    parts = [tokenizer.fingerprint(), str(opening.dtype), str(opening.quantize), *_sampled(model)]
    fingerprint = f"fp_{hashlib.sha256('/'.join(parts).encode()).hexdigest()[:12]}"
    return Worker(engine, Info(served_name(opening), context, int(time.time()), fingerprint, tuple(opening.adapters)), price)


def _sampled(model: torch.nn.Module) -> list[str]:
    """A few values of every parameter: enough to tell one checkpoint from another."""
    return [str(parameter.detach().flatten()[:: max(1, parameter.numel() // 4)].tolist()) for parameter in model.parameters()]
