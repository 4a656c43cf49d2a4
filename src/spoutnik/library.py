"""A model as an object: what `spoutnik.load` returns."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import get_args

import torch
from torch import Tensor

from spoutnik.checkpoint.adapter import read_adapter
from spoutnik.checkpoint.hf import save_checkpoint
from spoutnik.checkpoint.load import open_model
from spoutnik.device import computing_device
from spoutnik.engine.generator import Engine
from spoutnik.engine.request import Completion, Request
from spoutnik.engine.runner import Quantization, choose_runner
from spoutnik.engine.sampler import derive_seed
from spoutnik.engine.store import Store
from spoutnik.engine.stream import Piece, Reader, apart, plain, stream
from spoutnik.errors import UserError
from spoutnik.model.config import ModelConfig
from spoutnik.model.transformer import CausalLM
from spoutnik.text.reasoning import starts_thinking
from spoutnik.text.tokenizer import Message, Tokenizer

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def load(
    name_or_path: str | Path, dtype: str = "float32", quantize: Quantization | None = None, cache_dir: str | Path | None = None,
    adapters: Mapping[str, str | Path] | None = None, speculate: bool = True,
) -> "Model":  # fmt: skip
    """Opens a Hugging Face directory, a GGUF file, or a name such as `smollm2` or `hf:org/name`.

    `dtype` is what the weights are computed in: float32, bfloat16 or float16. `quantize` ("int8", or "int4" in groups of 32) makes
    smaller weights for `generate` and `chat`, which then need the C++ kernels; `logits` stays with `dtype`. With a `cache_dir`, what
    the kernels computed of prompts stays there for later processes (see `engine.store`). `adapters` are folders by name, see
    `Model.add_adapter`. With `speculate`, a model that has a multi-token prediction layer guesses ahead where that is faster; answers
    stay the same. The model is where `spoutnik.device` says, but on the CPU with `quantize` or `cache_dir`, which are the kernels'.
    Raises UserError if nothing is found under the name, if the files are damaged or of an unknown architecture, or if
    nothing can be kept in `cache_dir`.
    """
    if dtype not in DTYPES:
        raise UserError(f"dtype is {dtype!r}; it must be one of {', '.join(DTYPES)}.")
    if quantize not in (None, *get_args(Quantization)):
        raise UserError(f"quantize is {quantize!r}; it must be one of {', '.join(get_args(Quantization))}, or None.")
    store = None if cache_dir is None else Store(cache_dir)
    device = computing_device() if quantize is None and store is None else None
    model = Model(*open_model(name_or_path, DTYPES[dtype], device), quantize=quantize, store=store, speculate=speculate)
    for name, folder in (adapters or {}).items():
        model.add_adapter(name, folder)
    return model


class Model:
    """A language model and its tokenizer."""

    def __init__(
        self, model: CausalLM, tokenizer: Tokenizer, max_batch: int = 64, quantize: Quantization | None = None,
        store: Store | None = None, speculate: bool = True,
    ):  # fmt: skip
        """`max_batch` prompts at most run at the same time; more wait their turn. A `store` keeps pages of prompts on disk; `speculate`
        lets the model guess ahead.
        """
        self.model = model.eval()
        """The torch module, in eval mode."""
        self.tokenizer = tokenizer
        self._max_batch, self._quantize, self._store, self._speculate = max_batch, quantize, store, speculate

    @cached_property
    def _engine(self) -> Engine:
        """Made when something is generated: it packs the weights once more in its own order."""
        length = self.config.max_position_embeddings
        runner = choose_runner(self.model, self._max_batch, length, self._quantize, store=self._store, speculate=self._speculate)
        return Engine(self.model, self.tokenizer, self._max_batch, length, runner)

    def add_adapter(self, name: str, folder: str | Path) -> None:
        """Loads a LoRA adapter (PEFT's directory format) beside the base model, for `generate`, `chat` and `stream` to name.

        Raises UserError if it is damaged, of another model, or uses what is not supported, and for a name that is taken.
        """
        adapter = read_adapter(folder, self.model)
        self._engine.add_adapter(name, adapter)

    def remove_adapter(self, name: str) -> None:
        """Forgets an adapter. Raises UserError if there is none of that name, or an answer that is being streamed uses it."""
        self._engine.remove_adapter(name)

    @property
    def config(self) -> ModelConfig:
        """Sizes and switches, with Hugging Face's names."""
        return self.model.config

    @torch.no_grad()
    def logits(self, token_ids: Tensor | Sequence[Sequence[int]]) -> Tensor:
        """Logits [B, T, vocab_size], float32, for token ids [B, T]: row b, place t tells what follows the first t + 1 tokens."""
        try:
            ids_BT = torch.as_tensor(token_ids, dtype=torch.int64, device=self.model.lm_head.weight.device)
        except ValueError as error:
            raise UserError(f"token_ids is not a table of numbers ({error}); it must be rows of equal length, [B, T].") from error
        if ids_BT.ndim != 2 or ids_BT.numel() == 0:
            raise UserError(f"token_ids has the shape {tuple(ids_BT.shape)}; it must be rows of equal length, [B, T], and not empty.")
        if ids_BT.shape[1] > self.config.max_position_embeddings:
            raise UserError(f"token_ids has rows of {ids_BT.shape[1]} tokens, but the context holds {self.config.max_position_embeddings}.")
        least, most = int(ids_BT.min()), int(ids_BT.max())
        if not 0 <= least <= most < self.config.vocab_size:
            raise UserError(f"token_ids holds {least} to {most}, but the vocabulary has {self.config.vocab_size} tokens from 0.")
        return self.model(ids_BT)

    def generate(
        self,
        prompts: Sequence[str],
        max_new_tokens: int = 256,
        temperature: float = 1.0,
        top_p: float = 1.0,
        top_k: int = 0,
        stop: Sequence[str] = (),
        seed: int = 0,
        progress: Callable[[int, int], None] | None = None,
        adapter: str = "",
    ) -> list[Completion]:
        """Continues each prompt as plain text (for conversations see `chat`) and returns completions in the same order.

        The i-th prompt draws from a stream of its own that depends on `seed` and i, so equal prompts get different answers and a call
        can be repeated. See `Request` for the settings, with `adapter`, and `Engine.generate` for `progress`.
        """
        if isinstance(prompts, str):
            raise UserError("generate() takes a list of prompts and was given one string; write [prompt].")
        encoded = [self.tokenizer.encode(prompt, add_special_tokens=True) for prompt in prompts]
        requests = [
            Request(prompt_ids, max_new_tokens, temperature, top_p, top_k, tuple(stop), derive_seed(seed, index), adapter=adapter)
            for index, prompt_ids in enumerate(encoded)
        ]
        return self._engine.generate(requests, progress)

    def chat(
        self,
        messages: Sequence[Message],
        max_new_tokens: int = 1024,
        temperature: float = 0.6,
        top_p: float = 0.95,
        seed: int = 0,
        adapter: str = "",
    ) -> Completion:
        """The model's answer to a conversation ({"role", "content"} each), written in its own chat template.

        `.text` is the answer and `.reasoning` the thinking before it, None if there was none. `adapter` names the one that answers. The
        sampling defaults are those that DeepSeek-R1 recommends.
        """
        prompt = self.tokenizer.render(messages)
        request = Request(self.tokenizer.encode(prompt), max_new_tokens, temperature, top_p, seed=derive_seed(seed, 0), adapter=adapter)
        return apart(self._engine.generate([request])[0], starts_thinking(prompt))

    def stream(
        self,
        messages: Sequence[Message] | str,
        max_new_tokens: int = 1024,
        temperature: float = 0.6,
        top_p: float = 0.95,
        seed: int = 0,
        cancelled: Callable[[], bool] = lambda: False,
        adapter: str = "",
    ) -> Iterator[Piece]:
        """What `chat` answers, as it is made: one piece a token, and the whole completion in the last.

        A string instead of messages is continued as plain text, as `generate` does, and its think tags are text. To end an answer, leave
        the loop, or let `cancelled` (asked after every step) say so: then a last piece tells what was made until then. One answer is
        streamed at a time.
        """
        if isinstance(messages, str):
            prompt_ids = self.tokenizer.encode(messages, add_special_tokens=True)
            read = plain
        else:
            prompt = self.tokenizer.render(messages)
            prompt_ids = self.tokenizer.encode(prompt)
            read = Reader(starts_thinking(prompt)).read
        request = Request(prompt_ids, max_new_tokens, temperature, top_p, seed=derive_seed(seed, 0), adapter=adapter)
        return stream(self._engine, request, read, cancelled)

    def save(self, directory: str | Path) -> None:
        """Writes a Hugging Face directory that `transformers` and `load` open; an older checkpoint there stays whole until it is done."""
        save_checkpoint(self.model, self.tokenizer, directory)
