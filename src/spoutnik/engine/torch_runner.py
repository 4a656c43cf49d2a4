"""Runs sequences on the very modules that training uses, in any dtype and on any device. Also the reference for every faster runner."""

from collections.abc import Sequence
from contextlib import nullcontext

import torch
from torch import Tensor

from spoutnik.checkpoint.adapter import Adapter
from spoutnik.engine.adapted import AdaptedModules
from spoutnik.engine.blocks import Pages
from spoutnik.engine.cache import SlotCache
from spoutnik.engine.prepacked import MOST_ROWS, PackedLinears
from spoutnik.engine.request import Top
from spoutnik.engine.sampler import SamplingParameters, sample
from spoutnik.engine.scheduler import Drawn, prefill_groups
from spoutnik.engine.scheduler import Sequence as Running
from spoutnik.engine.scoring import Given, Scored, score_with_modules
from spoutnik.engine.steering import likeliest
from spoutnik.model.transformer import CausalLM

PREFILL_TOKENS = 4096  # most token cells of one prefill call, which bounds its memory; longer prompts are cached piece by piece


class TorchRunner:
    """A cache row per running sequence. An idle runner holds no cache: weights, dtype and device of the model may change between calls.

    In bfloat16 on a CPU it holds a second copy of the weights, packed for small batches.
    """

    exact = False
    pages = Pages()

    def __init__(self, model: CausalLM, max_batch: int, max_length: int):
        self.model = model
        self.most_tokens = max_length
        self._cache = SlotCache(max_batch, max_length)
        self._adapted = AdaptedModules(model)
        self._packed = PackedLinears(model)
        self._parameters: SamplingParameters | None = None

    def wake(self) -> None:
        """Packs the weights where that gains and they changed; else the modules are read as they are."""
        self._packed.follow()

    def refresh(self) -> None:
        """Packs the weights where that gains; else the modules are read as they are."""
        self._packed.pack()

    def score(self, given: Sequence[Given], temperature: float, top_logprobs: int) -> list[Scored]:
        """Log-probabilities by one pass without a cache for each adapter."""
        found = [Scored([], []) for _ in given]
        for adapter in {each.adapter: None for each in given}:
            own = [index for index, each in enumerate(given) if each.adapter == adapter]
            with self._adapted.all_rows(adapter):
                scored = score_with_modules(self.model, [given[index] for index in own], temperature, top_logprobs)
            for index, one in zip(own, scored, strict=True):
                found[index] = one
        return found

    def add_adapter(self, name: str, adapter: Adapter) -> None:
        """The modules' outputs are added to."""
        self._adapted.add(name, adapter)

    def remove_adapter(self, name: str) -> None:
        """The adapter is forgotten."""
        self._adapted.remove(name)

    def admits(self, sequence: Running) -> bool:
        """Every row that the scheduler has may be used."""
        return True

    def step(self, running: Sequence[Running]) -> list[Drawn]:
        """Caches new prompts but for their last token, then feeds every sequence's newest token and draws the next."""
        self._prefill(running)
        positions = [sequence.last_position for sequence in running]
        ids_B1 = torch.tensor([sequence.last_token for sequence in running], device=self._device)[:, None]
        positions_B1 = torch.tensor(positions, device=self._device)[:, None]
        self._cache.place(range(len(running)), positions_B1)
        packed = self._packed if len(running) <= MOST_ROWS else nullcontext()
        with packed, self._adapted.rows([sequence.request.adapter for sequence in running]):
            logits_BV = self.model.head(self.model.hidden(ids_B1, positions_B1, self._cache)[:, -1])
        if self._parameters is None:
            self._parameters = SamplingParameters.of([sequence.request for sequence in running], self._device)
        places = [position + 1 for position in positions]
        if any(sequence.steering is not None for sequence in running):
            return self._draw_steered(running, logits_BV, self._parameters, places)
        tokens, logprobs = sample(logits_BV, self._parameters, places)
        return [(*drawn, None) for drawn in zip(running, tokens, logprobs, strict=True)]

    def _draw_steered(
        self, running: Sequence[Running], logits_BV: Tensor, parameters: SamplingParameters, places: Sequence[int]
    ) -> list[Drawn]:
        """As `sample`, for a batch in which some rows are drawn from other logits than the model's own, which are what is reported."""
        edited_BV, own = logits_BV.clone(), {}
        for row, sequence in enumerate(running):
            if sequence.steering is not None:
                own[row] = logits_BV[row].cpu().numpy()
                edited_BV[row] = torch.from_numpy(sequence.steering.edit(own[row]))
        tokens, logprobs = sample(edited_BV, parameters, places)
        tops: list[Top | None] = [None] * len(running)
        for row, logits_V in own.items():
            request, steering = running[row].request, running[row].steering
            if steering is not None and steering.forced is not None:
                tokens[row] = steering.forced
            logprobs_V = (logits_BV[row] / (request.temperature or 1.0)).log_softmax(-1).cpu().numpy()
            logprobs[row] = float(logprobs_V[tokens[row]])
            if request.top_logprobs:
                tops[row] = likeliest(logits_V, logprobs_V, request.top_logprobs)
        return list(zip(running, tokens, logprobs, tops, strict=True))

    def changed(self, running: Sequence[Running], moves: Sequence[tuple[int, int]]) -> None:
        """Rows ended; `moves` (from row, to row) close the gaps."""
        self._parameters = None
        if moves:
            length = max(running[target].last_position for _, target in moves)
            if length:
                self._cache.copy_rows([source for source, _ in moves], [target for _, target in moves], length)

    def release(self, ended: Sequence[Running]) -> None:
        """A row is free as soon as another may write it."""

    def rest(self) -> None:
        """Gives the cache's memory back."""
        self._cache.clear()

    def reset(self) -> None:
        """Gives the cache's memory back."""
        self._cache.clear()

    def _prefill(self, running: Sequence[Running]) -> None:
        """Of rows with the same prompt, owner and adapter, one is computed."""
        if all(sequence.token_ids for sequence in running):
            return
        self._parameters = None
        row_of_prompt: dict[tuple[str, str, tuple[int, ...]], int] = {}
        computed: list[int] = []
        copied: list[tuple[int, int]] = []
        for row, sequence in enumerate(running):
            source = row_of_prompt.setdefault((sequence.request.owner, sequence.request.adapter, sequence.prompt_ids), row)
            if not sequence.token_ids and len(sequence.prompt_ids) > 1:
                if source == row:
                    computed.append(row)
                else:
                    copied.append((source, row))
        lengths = [len(running[row].prompt_ids) - 1 for row in computed]
        for row, length in zip(computed, lengths, strict=True):
            running[row].computed_tokens = length
        for group in prefill_groups(lengths, PREFILL_TOKENS):
            rows = [computed[index] for index in group]
            with self._adapted.rows([running[row].request.adapter for row in rows]):
                self._prefill_together([running[row].prompt_ids[:-1] for row in rows], rows, lengths[group[0]])
        if copied:
            length = max(len(running[row].prompt_ids) - 1 for _, row in copied)
            self._cache.copy_rows([source for source, _ in copied], [target for _, target in copied], length)

    def _prefill_together(self, prompts: Sequence[tuple[int, ...]], rows: Sequence[int], length: int) -> None:
        """One group, padded on the right to `length` tokens. Padding lands in cells that are overwritten before they are read."""
        ids_BT = torch.tensor([[*prompt, *[0] * (length - len(prompt))] for prompt in prompts], device=self._device)
        positions_BT = torch.arange(length, device=self._device).expand(len(rows), -1)
        for start in range(0, length, PREFILL_TOKENS):
            piece = slice(start, start + PREFILL_TOKENS)
            self._cache.place(rows, positions_BT[:, piece])
            self.model.hidden(ids_BT[:, piece], positions_BT[:, piece], self._cache)

    @property
    def _device(self) -> torch.device:
        return self.model.model.embed_tokens.weight.device
