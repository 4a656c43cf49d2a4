"""What computes for the engine: torch modules everywhere, or the C++ kernels where they can run."""

import logging
from collections.abc import Sequence
from typing import Literal, Protocol, get_args

import torch

from spoutnik.checkpoint.adapter import Adapter
from spoutnik.engine.blocks import Pages
from spoutnik.engine.kernels.build import available, library
from spoutnik.engine.kernels.program import unsupported
from spoutnik.engine.kernels.runner import KernelRunner
from spoutnik.engine.scheduler import Drawn
from spoutnik.engine.scheduler import Sequence as Running
from spoutnik.engine.scoring import Given, Scored
from spoutnik.engine.store import Store
from spoutnik.engine.torch_runner import TorchRunner
from spoutnik.errors import UserError
from spoutnik.model.transformer import CausalLM

Quantization = Literal["int8", "int4"]
Lower = Literal["bfloat16"] | Quantization
PRECISIONS = {torch.float32: "float32", torch.bfloat16: "bfloat16"}


class Runner(Protocol):
    """Computes for sequences that the scheduler has let in; the order of `running` is that of the batch."""

    most_tokens: int
    """What the memory holds of one sequence."""
    exact: bool
    """Whether `score` gives the log-probabilities that `step` reported of the same tokens to the bit, not only up to rounding."""

    @property
    def pages(self) -> Pages:
        """Of the memory, where there are any; may be asked from any thread."""
        ...

    def wake(self) -> None:
        """Work begins after idleness: the model's weights may have changed."""
        ...

    def refresh(self) -> None:
        """The model's weights have changed; nothing runs."""
        ...

    def score(self, given: Sequence[Given], temperature: float, top_logprobs: int) -> list[Scored]:
        """Log-probabilities of each sequence's tokens after its prompt, each given all before it, and the likeliest ones of each place."""
        ...

    def add_adapter(self, name: str, adapter: Adapter) -> None:
        """Requests may name this adapter from now on. Raises UserError where the runner cannot serve it."""
        ...

    def remove_adapter(self, name: str) -> None:
        """No request names this adapter any more."""
        ...

    def admits(self, sequence: Running) -> bool:
        """Takes the memory that the sequence may ever need, or says that it must wait."""
        ...

    def step(self, running: Sequence[Running]) -> list[Drawn]:
        """Feeds sequences what is not cached of them; returns the next tokens of those that are wholly fed.

        A sequence with tokens is given one or more at every step, perhaps beyond its end; a prompt may take several steps, however many
        run beside it.
        """
        ...

    def release(self, ended: Sequence[Running]) -> None:
        """These sequences ended; some may never have been admitted."""
        ...

    def changed(self, running: Sequence[Running], moves: Sequence[tuple[int, int]]) -> None:
        """The batch shrank, and `moves` (from row, to row) closed its gaps."""
        ...

    def rest(self) -> None:
        """Nothing runs and nothing waits."""
        ...

    def reset(self) -> None:
        """Forgets all sequences, also after a failure."""
        ...


def choose_runner(
    model: CausalLM, max_batch: int, max_length: int, lower: Lower | None = None, cache_bytes: int | None = None,
    store: Store | None = None, speculate: bool = True,
) -> Runner:  # fmt: skip
    """The kernels for float32 and bfloat16 on a CPU, where a compiler built them and they know the model; else the torch modules.

    `lower` is a precision below that of the weights. Quantised ones exist only in the kernels: where these cannot run, UserError says why;
    instead of bfloat16 the modules compute as they are. See `KernelRunner` for `cache_bytes`,
    `store` and `speculate`; the torch modules keep nothing between requests, and say so where a store is given.
    """
    precision = lower or PRECISIONS.get(model.lm_head.weight.dtype)
    obstacle = unsupported(model, precision or "float32")
    if lower in get_args(Quantization):
        library()
        if obstacle is not None:
            raise UserError(f"This model cannot be run in {lower}: {obstacle}. Load it without quantize.")
    on_cpu = model.lm_head.weight.device.type == "cpu"
    if precision is None or not on_cpu or obstacle is not None or not available():
        if store is not None:
            logging.getLogger(__name__).warning("Nothing is cached in %s: only the C++ kernels do that, and they cannot run.", store.folder)
        return TorchRunner(model, max_batch, max_length)
    return KernelRunner(model, precision, max_batch, max_length, cache_bytes, store, speculate)
