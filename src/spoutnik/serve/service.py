"""What every dialect calls: a conversation or prompts in, answers in parts out, counted and bounded on the way."""

import asyncio
import sys
import time
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self, TypeVar

from spoutnik.engine.request import Request
from spoutnik.engine.scoring import Given, Scored
from spoutnik.serve.account import Account
from spoutnik.serve.answer import AnswerReader, End, Part, Reader, TextReader
from spoutnik.serve.auth import Authenticator, Caller
from spoutnik.serve.backend import Backend, Cost, Generation, Shape, Usage
from spoutnik.serve.conversation import Conversation, Sampling, Thinking
from spoutnik.serve.errors import ContextTooLongError, InvalidRequestError, NotFoundError
from spoutnik.serve.metrics import Metrics
from spoutnik.serve.rendering import Prompt, render
from spoutnik.serve.settings import Settings
from spoutnik.serve.shapes import shape_of
from spoutnik.text.reasoning import CLOSE
from spoutnik.text.template_process import TemplateProcess
from spoutnik.text.token_bytes import TokenBytes

T = TypeVar("T")
THINKS, ANSWERS = "deepseek-reasoner", "deepseek-chat"
DEEPSEEK = ("deepseek-flash", "deepseek-v4-flash", "deepseek-v4-pro", THINKS, ANSWERS)
"""DeepSeek's model names, old and new: clients that know no others are served. The last two switch the thinking on and off."""

R1_THINKING = 32_768
"""Most tokens of thinking where `max_tokens` does not count them, as in R1's API."""


@dataclass(frozen=True)
class Served:
    """A model as a request named it."""

    name: str
    """What answers say: the name that was asked for."""
    adapter: str = ""
    thinking: bool | None = None
    """Where the name decides it."""


class Service:
    """One per app. `settings` and `backend` are open to dialects; requests go through `converse` and `continue_`."""

    def __init__(self, backend: Backend, settings: Settings, authenticator: Authenticator):
        self.backend, self.settings, self.authenticator = backend, settings, authenticator
        self.metrics = Metrics(backend)
        self.token_bytes = TokenBytes(backend.tokenizer)
        self.templates = TemplateProcess(settings.template_s)
        self.draining = False
        """Set when the server is to stop: nothing new is taken."""
        self.active = 0
        """HTTP requests under way."""

    def models(self) -> list[str]:
        """The names that a client may list: the model's, and those of its adapters."""
        return [self.backend.info.model, *self.backend.info.adapters]

    def model(self, name: str) -> Served:
        """Who answers under a name. Raises NotFoundError."""
        info = self.backend.info
        if name in info.adapters:
            return Served(name, name)
        if name in (info.model, *self.settings.aliases, *DEEPSEEK):
            return Served(name, thinking={THINKS: True, ANSWERS: False}.get(name))
        raise NotFoundError(f"There is no model {name!r} here; there is {', '.join(self.models())}.", param="model", code="model_not_found")

    async def prompt(self, conversation: Conversation, bounded: bool = True) -> Prompt:
        """The conversation as the model reads it. Templates and tokenizers run beside the event loop.

        Raises ContextTooLongError, unless it need not be `bounded`.
        """
        context = self.backend.info.context if bounded else sys.maxsize
        return await asyncio.to_thread(render, conversation, self.backend.tokenizer, self.settings, context, self.templates.render)

    async def converse(self, conversation: Conversation, sampling: Sampling, served: Served, caller: Caller) -> "Answers":
        """Answers to a conversation, `sampling.n` of them, accepted by the backend. Close what is returned."""
        if len(conversation.messages) > (most := self.settings.most_messages):
            raise InvalidRequestError(
                f"There are {len(conversation.messages)} messages; this server takes at most {most}.", param="messages"
            )
        self._check(sampling)
        prompt = await self.prompt(conversation)
        sampling = replace(
            sampling,
            max_tokens=self.settings.max_tokens if sampling.max_tokens is None else sampling.max_tokens,
            temperature=self.settings.temperature if sampling.temperature is None else sampling.temperature,
            top_p=self.settings.top_p if sampling.top_p is None else sampling.top_p,
        )
        others: dict[str, Any] = {"owner": caller.owner, "adapter": served.adapter}
        thinks = conversation.thinking.enabled is not False and CLOSE in (self.backend.tokenizer.chat_template or "")
        if thinks and (budget := self._budget(conversation.thinking)) is not None:
            end = tuple(self.backend.tokenizer.encode(f"\n{CLOSE}\n\n"))
            others |= {"thinking_budget": budget, "thinking_end": end}
            if self.settings.max_tokens_count == "answer" and sampling.max_tokens is not None:
                others["max_answer_tokens"] = sampling.max_tokens
                sampling = replace(sampling, max_tokens=sampling.max_tokens + budget + len(end))
        requests = sampling.requests(prompt.token_ids, **others)
        logprobs = sampling.logprobs is not None
        shape = shape_of(conversation, prompt, self.backend.tokenizer)
        return await self._begin(
            requests, [AnswerReader(prompt.thinking, prompt.tools, logprobs) for _ in requests], sampling.n, caller, shape
        )

    async def continue_(self, prompts: Sequence[Sequence[int]], sampling: Sampling, served: Served, caller: Caller) -> "Answers":
        """`sampling.n` continuations of each of several texts; in these think tags are text. Close what is returned."""
        self._check(sampling)
        sampling = replace(sampling, max_tokens=self.settings.max_tokens if sampling.max_tokens is None else sampling.max_tokens)
        for prompt in prompts:
            if len(prompt) >= self.backend.info.context:
                raise ContextTooLongError(len(prompt), self.backend.info.context, "prompt")
        requests = [
            request
            for prompt in prompts
            for request in sampling.requests(prompt, owner=caller.owner, adapter=served.adapter)
        ]  # fmt: skip
        return await self._begin(requests, [TextReader(sampling.logprobs is not None) for _ in requests], sampling.n, caller)

    async def score(
        self, prompts: Sequence[Sequence[int]], top_logprobs: int, served: Served, caller: Caller
    ) -> tuple[list[Scored], Usage]:
        """What the model says of each text's tokens after the first."""
        given = [Given(prompt, 1, caller.owner, served.adapter) for prompt in prompts]
        return await self._counted(prompts, caller, self.backend.score(given, top_logprobs))

    async def embed(self, prompts: Sequence[Sequence[int]], caller: Caller) -> tuple[list[list[float]], Usage]:
        """Each text's mean of last hidden states."""
        return await self._counted(prompts, caller, self.backend.embed(prompts))

    async def _counted(
        self, prompts: Sequence[Sequence[int]], caller: Caller, work: Coroutine[Any, Any, tuple[list[T], Cost]]
    ) -> tuple[list[T], Usage]:
        """Work that draws no tokens, on the caller's account."""
        usage = Usage(prompt_tokens=sum(map(len, prompts)))
        try:
            await self.authenticator.admit(caller.principal, usage.prompt_tokens, 0)
        except BaseException:
            work.close()
            raise
        try:
            found, cost = await work
            usage = replace(usage, cost=cost)
            self.metrics.count(usage, ())
        finally:
            self.authenticator.charge(caller.principal, usage)
        return found, usage

    def _check(self, sampling: Sampling) -> None:
        """Raises InvalidRequestError for what would cost every step too much, whatever dialect asked for it."""
        settings = self.settings
        if any(len(string) > settings.most_stop_chars for string in sampling.stop):
            raise InvalidRequestError(f"stop holds a string of more than {settings.most_stop_chars} characters.", param="stop")
        if len(sampling.logit_bias) > settings.most_biases:
            raise InvalidRequestError(f"logit_bias names more than {settings.most_biases} tokens.", param="logit_bias")

    def _budget(self, thinking: Thinking) -> int | None:
        """Most tokens of thinking, None for no bound of its own."""
        budget = thinking.budget
        if budget is None and thinking.effort is not None:
            budget = self.settings.budgets[thinking.effort]
        return R1_THINKING if budget is None and self.settings.max_tokens_count == "answer" else budget

    async def _begin(
        self, requests: Sequence[Request], readers: Sequence[Reader], n: int, caller: Caller, shape: Shape | None = None
    ) -> "Answers":  # fmt: skip
        began = time.monotonic()
        prompts = sum(len(request.prompt_ids) for request in requests[::n])
        await self.authenticator.admit(caller.principal, prompts, sum(request.max_new_tokens for request in requests))
        usages = [Usage(prompt_tokens=len(request.prompt_ids)) for request in requests]
        account = Account(self.metrics, self.authenticator, caller, usages, n, began)
        try:
            return Answers(await self.backend.generate(requests, shape), readers, account, prompts)
        except BaseException:
            account.close(accepted=False)
            raise


class Answers:
    """Answers under way: lists of (which answer, a part of it), one list a step, each answer's last part an `End`."""

    def __init__(self, generation: Generation, readers: Sequence[Reader], account: Account, prompt_tokens: int):
        self._generation, self._readers, self._account = generation, readers, account
        self.prompt_tokens = prompt_tokens
        """Known before the first part."""

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> list[tuple[int, Part]]:
        parts: list[tuple[int, Part]] = []
        for news in await anext(self._generation):
            if news.event.tokens:
                self._account.drawn(news.index, len(news.event.tokens), news.cost)
            for part in self._readers[news.index].read(news.event, news.cost):
                parts.append((news.index, part))
                if isinstance(part, End):
                    self._account.ended(news.index, part)
        return parts

    async def aclose(self) -> None:
        """Cancels what has not ended, and settles the account."""
        self._account.close()
        await self._generation.aclose()
