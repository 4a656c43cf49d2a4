"""The engine: continuous batching over one model.

A step feeds each running request what its cache lacks: the token drawn before, or the prompt, which may take several steps. Whatever is
wholly fed gets its next token. So there is one place where tokens are made, and a long prompt keeps nobody waiting for long. A runner
(`runner.py`) does the computing; the engine knows requests, order and text.
"""

from collections.abc import Callable, Sequence
from functools import partial

import torch

from spoutnik.checkpoint.adapter import Adapter
from spoutnik.engine.blocks import Pages
from spoutnik.engine.detokenizer import Detokenizer
from spoutnik.engine.request import MOST_TOP_LOGPROBS, Completion, Event, Request, Top
from spoutnik.engine.runner import Runner, choose_runner
from spoutnik.engine.scheduler import Scheduler
from spoutnik.engine.scheduler import Sequence as Running
from spoutnik.engine.scoring import Given, Scored, check_given
from spoutnik.engine.steering import Steering
from spoutnik.errors import UserError
from spoutnik.model.transformer import CausalLM
from spoutnik.text.tokenizer import Tokenizer


class Engine:
    """Generates for many requests at once. Not thread-safe.

    `max_batch` rows run together, each up to `max_length` tokens (default: the model's context). The model runs in eval mode and keeps
    no gradient. `runner` is the best that the model's dtype and this machine allow unless given; `choose_runner` says what `speculate`
    does. The model's weights may change while the engine is idle: the next request follows them. At most `max_queue` requests wait for a
    row or for memory (None: no bound).
    """

    def __init__(
        self, model: CausalLM, tokenizer: Tokenizer, max_batch: int = 64, max_length: int | None = None, runner: Runner | None = None,
        max_queue: int | None = None, speculate: bool = True,
    ):  # fmt: skip
        self.model, self.tokenizer = model, tokenizer
        context = model.config.max_position_embeddings
        max_length = context if max_length is None else min(max_length, context)
        self.runner = runner or choose_runner(model, max_batch, max_length, speculate=speculate)
        self._scheduler = Scheduler(max_batch, max_length, max_queue, self.runner.most_tokens)
        self._texts: dict[int, Detokenizer] = {}  # only of requests whose text matters before their end
        self._adapters = {""}
        self.tokens_generated = 0
        self.computed: dict[int, int] = {}
        """By request, the tokens that the last step computed: of its prompt, and drawn."""

    @property
    def busy(self) -> bool:
        """Whether another `step` has work to do."""
        return self._scheduler.busy

    @property
    def load(self) -> tuple[int, int]:
        """How many requests run and how many wait; may be asked from any thread."""
        return len(self._scheduler.running), len(self._scheduler.waiting)

    @property
    def pages(self) -> Pages:
        """Of the cache; none with the torch modules. May be asked from any thread."""
        return self.runner.pages

    def add(self, request: Request) -> int:
        """Queues a request and returns its id.

        Raises UserError for unknown tokens, an unknown adapter, a prompt as long as the context, or more tokens than the cache holds, and
        QueueFullError when too many requests wait.
        """
        vocab_size = self.model.config.vocab_size
        for name, ids in (("prompt_ids", request.prompt_ids), ("begun", request.begun.token_ids or (0,))):
            least, most = min(ids), max(ids)
            if not 0 <= least <= most < vocab_size:
                raise UserError(f"{name} holds {least} to {most}, but the model has {vocab_size} tokens from 0; use its own tokenizer.")
        self._check_adapter(request.adapter)
        steering = self._steering(request) if request.steered else None
        if not self.busy:
            self.runner.wake()
        request_id = self._scheduler.add(request, steering)
        if request.stop or request.stream:
            self._texts[request_id] = following = Detokenizer(self.tokenizer.decode, request.stop)
            for token in request.begun.token_ids:
                following.feed(token)
        return request_id

    def cancel(self, request_id: int) -> bool:
        """Ends a request; the next step reports it with what it has so far and reuses its row. False if it has ended already."""
        return self._scheduler.cancel(request_id)

    @torch.inference_mode()
    def step(self) -> list[Event]:
        """Admits what fits, gives a token to every running request whose prompt is cached, and reports streamed text and ended requests.

        A step that raises leaves an idle engine: every request is forgotten.
        """
        if self.model.training:  # setting the mode walks through all modules, which costs more than a small model's step
            self.model.eval()
        self.computed = {}
        try:
            events = self._retire()
            self._scheduler.admit(self.runner.admits)
            if self._scheduler.running:
                events += self._advance()
            events += self._retire()
        except BaseException:
            self.reset()
            raise
        if not self.busy:
            self.runner.rest()
        return events

    def generate(self, requests: Sequence[Request], progress: Callable[[int, int], None] | None = None) -> list[Completion]:
        """Runs requests to their end and returns completions in the same order. `progress(ended, tokens)` is called after each step.

        Needs an engine with nothing else under way, and leaves it so however it ends. All requests join the line at once, so a bound on
        the line is one on their number.
        """
        if self.busy:
            raise RuntimeError("generate() needs an idle engine; finish or cancel the requests that were added before")
        training, completions, tokens_before = self.model.training, dict[int, Completion](), self.tokens_generated
        try:
            ids = [self.add(request) for request in requests]
            while self.busy:
                for event in self.step():
                    if event.completion is not None:
                        completions[event.request_id] = event.completion
                if progress is not None:
                    progress(len(completions), self.tokens_generated - tokens_before)
            return [completions[request_id] for request_id in ids]
        finally:
            if self.busy:
                self.reset()
            self.model.train(training)

    def score(self, given: Sequence[Given], temperature: float = 1.0) -> list[list[float]]:
        """Natural logarithm of the probability of each sequence's tokens after its prompt, at `temperature` (at 1 when it is 0).

        Where `exact`, these are to the bit what a `Completion` of the same tokens holds, whatever is scored together, running or cached.
        Sequences that begin with the same prompt share its pages. Nothing to score gives an empty list; a sequence beyond the context,
        unknown tokens, and logits that are not finite raise UserError.
        """
        return [scored.logprobs for scored in self.score_tops(given, temperature, 0)]

    def score_tops(self, given: Sequence[Given], temperature: float = 1.0, top_logprobs: int = 1) -> list[Scored]:
        """As `score`, with the `top_logprobs` likeliest tokens of each place, 20 at most."""
        check_given(given, temperature, self._scheduler.max_length, self.model.config.vocab_size)
        if not 0 <= top_logprobs <= MOST_TOP_LOGPROBS:
            raise UserError(f"top_logprobs is {top_logprobs!r}; it must be 0 to {MOST_TOP_LOGPROBS}.")
        for one in given:
            self._check_adapter(one.adapter)
        if not self.busy:
            self.runner.wake()
        training = self.model.training
        self.model.eval()
        try:
            with torch.inference_mode():
                return self.runner.score(given, temperature, top_logprobs)
        finally:
            self.model.train(training)

    @property
    def exact(self) -> bool:
        """Whether `score` agrees with what was sampled to the bit, rather than up to rounding; so with the kernels."""
        return self.runner.exact

    def add_adapter(self, name: str, adapter: Adapter) -> None:
        """Loads an adapter beside the base model, at any time: requests that name it are answered with it, in one batch with all others.

        Raises UserError for a name that is taken or empty, and for an adapter that the runner cannot serve.
        """
        if name in self._adapters:
            raise UserError(
                f"An adapter cannot be called {name!r}: " + ("remove the one of that name first." if name else "give it a name.")
            )
        self.runner.add_adapter(name, adapter)
        self._adapters.add(name)

    def remove_adapter(self, name: str) -> None:
        """Forgets an adapter. Raises UserError if there is none of that name, and while a request uses it."""
        if not name:
            raise UserError("The base model cannot be removed; name an adapter.")
        self._check_adapter(name)
        users = sum(sequence.request.adapter == name for sequence in (*self._scheduler.running, *self._scheduler.waiting))
        if users:
            raise UserError(f"The adapter {name!r} is used by {users} requests that have not ended; wait for them or cancel them.")
        self.runner.remove_adapter(name)
        self._adapters.remove(name)

    def _steering(self, request: Request) -> Steering:
        vocab_size = self.model.config.vocab_size
        for name, tokens in (("logit_bias", request.logit_bias), ("thinking_end", request.thinking_end)):
            wrong = next((token for token in tokens if not 0 <= token < vocab_size), None)
            if wrong is not None:
                raise UserError(f"{name} names token {wrong}, but the model has {vocab_size} tokens from 0; use its own tokenizer.")
        return Steering(request, vocab_size, self.tokenizer.decode)

    def _check_adapter(self, name: str) -> None:
        if name not in self._adapters:
            loaded = ", ".join(sorted(self._adapters - {""})) or "none"
            raise UserError(f"There is no adapter {name!r} (loaded: {loaded}); add it first.")

    def refresh(self) -> None:
        """Reads the model's weights again, into the same memory. Needs an idle engine.

        Whoever changes weights in place calls it: without, the next request finds out by itself, but looks at a sample of the values only
        where torch does not count the change (fused optimisers, `.data`).
        """
        if self.busy:
            raise RuntimeError("refresh() needs an idle engine: what runs began under the old weights")
        self.runner.refresh()

    def reset(self) -> None:
        """Forgets every request and gives the memory back that they held."""
        self._scheduler.clear()
        self.runner.reset()
        self._texts.clear()

    def _advance(self) -> list[Event]:
        """One step of the runner, and what it drew."""
        events, running = [], list(self._scheduler.running)
        before = [sequence.computed_tokens + len(sequence.token_ids) for sequence in running]
        for sequence in running:
            if sequence.steering is not None:
                _guarded(sequence, sequence.steering.prepare)
        for sequence, token, logprob, top in self.runner.step(running):
            if sequence.finish_reason is not None:
                continue  # it ended with the token before
            self.tokens_generated += 1
            text = self._take(sequence, token, logprob, top)
            if sequence.request.stream:
                events.append(Event(sequence.id, text, None, [token], [logprob], [] if top is None else [top]))
        for sequence, known in zip(running, before, strict=True):
            self.computed[sequence.id] = sequence.computed_tokens + len(sequence.token_ids) - known
        return events

    def _take(self, sequence: Running, token: int, logprob: float, top: Top | None) -> str:
        """Gives a row its token and ends it where it must end; returns the text that became certain, for rows that follow it."""
        sequence.append(token, logprob, top)
        if token in self.tokenizer.eos_token_ids:
            sequence.finish_reason = "stop"
            return ""
        if sequence.room == 0:
            sequence.finish_reason = "length"
        if sequence.steering is not None:
            if not _guarded(sequence, partial(sequence.steering.take, token)):
                return ""
            if sequence.steering.spent:
                sequence.finish_reason = "length"
            if sequence.steering.finished:
                sequence.finish_reason = "stop"
        if not self._texts or (following := self._texts.get(sequence.id)) is None:
            return ""
        text = following.feed(token)
        if following.stopped:
            sequence.finish_reason = "stop"
        return text

    def _retire(self) -> list[Event]:
        """Reports ended requests and closes the gaps that they leave."""
        ended, moves = self._scheduler.sweep()
        if ended:
            self.runner.release(ended)
            self.runner.changed(self._scheduler.running, moves)
        return [self._last_event(sequence) for sequence in ended]

    def _last_event(self, sequence: Running) -> Event:
        following, request, begun = self._texts.pop(sequence.id, None), sequence.request, sequence.request.begun
        token_ids = [*begun.token_ids, *sequence.token_ids]
        if following is not None:
            tail = following.close()
            text = following.text
        else:
            ended_by_eos = not self.tokenizer.eos_token_ids.isdisjoint(token_ids[-1:])
            tail, text = "", self.tokenizer.decode(token_ids[: len(token_ids) - ended_by_eos])
        assert sequence.finish_reason is not None
        completion = Completion(
            text, token_ids, [*begun.logprobs, *sequence.logprobs], sequence.finish_reason,
            prompt_tokens=len(request.prompt_ids), cached_tokens=min(sequence.cached_tokens, len(request.prompt_ids)),
            drafted_tokens=sequence.drafted_tokens, accepted_tokens=sequence.accepted_tokens,
            top_logprobs=[*begun.top_logprobs, *sequence.top_logprobs],
            stop_string=None if following is None else following.stop_string, error=sequence.error,
        )  # fmt: skip
        return Event(sequence.id, tail, completion)


def _guarded(sequence: Running, ask: Callable[[], None]) -> bool:
    """Whether it went well; a constraint that fails ends its own request only."""
    try:
        ask()
    except UserError as error:
        sequence.finish_reason, sequence.error = "error", str(error)
    return sequence.error is None
