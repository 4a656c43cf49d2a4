"""POST /chat/completions."""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from fastapi import APIRouter, Request, Response

from spoutnik.serve.answer import End, Likelihood, Part, Reasoning, Text, ToolArguments, ToolStart
from spoutnik.serve.backend import Usage, total
from spoutnik.serve.dialect import caller_of, service_of
from spoutnik.serve.document import streamed
from spoutnik.serve.once import OnceRoute
from spoutnik.serve.openai.errors import error_body
from spoutnik.serve.openai.head import Head
from spoutnik.serve.openai.logprobs import chat_logprobs
from spoutnik.serve.openai.reading import read_conversation, read_sampling
from spoutnik.serve.openai.schema import ChatRequest
from spoutnik.serve.openai.usage import usage_body
from spoutnik.serve.responses import DONE, Patient, Streamed, data
from spoutnik.serve.service import Answers
from spoutnik.text.token_bytes import TokenBytes


def router() -> APIRouter:
    """The route."""
    routes = APIRouter(route_class=OnceRoute)

    @routes.post("/chat/completions", response_model=None, responses=streamed("chat.completion.chunk"))
    async def chat(body: ChatRequest, request: Request) -> Response:
        """Answers a conversation."""
        service, settings = service_of(request), service_of(request).settings
        served = service.model(body.model)
        conversation = read_conversation(body, settings, served)
        logprobs = (body.top_logprobs or 0) if body.logprobs else None
        sampling = read_sampling(body, settings, body.max_completion_tokens or body.max_tokens, logprobs)
        answers = await service.converse(conversation, sampling, served, caller_of(request, body.user_id))
        head = Head.of("chatcmpl", service, served)
        request_id, form = caller_of(request).request_id, Form(head, sampling.n, service.token_bytes)
        if body.stream:
            with_usage = bool(body.stream_options and body.stream_options.include_usage)
            events = form.chunks(answers, with_usage)
            return Streamed(events, answers, settings.keep_alive_s, lambda error: data(error_body(error, request_id)))
        return Patient(lambda: form.whole(answers), answers, settings.keep_alive_s, lambda error: error_body(error, request_id))

    return routes


@dataclass(frozen=True)
class Form:
    """Writes `n` answers, in one piece or in chunks."""

    head: Head
    n: int
    token_bytes: TokenBytes

    async def chunks(self, answers: Answers, with_usage: bool) -> AsyncIterator[str]:
        """The events of a stream: of every step a chunk for each part of each answer."""
        usages: list[Usage] = []
        for index in range(self.n):
            yield self._chunk(index, {"role": "assistant", "content": ""}, with_usage)
        async for parts in answers:
            text = ""
            likelihoods: dict[int, list[Likelihood]] = {}
            for index, part in parts:
                if isinstance(part, Likelihood):
                    likelihoods.setdefault(index, []).append(part)
                elif isinstance(part, End):
                    usages.append(part.usage)
                    if left := likelihoods.pop(index, None):
                        text += self._chunk(index, {"content": ""}, with_usage, left)
                    ended = not with_usage and len(usages) == self.n
                    text += self._chunk(index, {}, with_usage, (), part.finish_reason, self._usage(usages) if ended else None)
                else:
                    text += self._chunk(index, _delta(part), with_usage, likelihoods.pop(index, ()))
            for index, left in likelihoods.items():
                text += self._chunk(index, {"content": ""}, with_usage, left)
            if text:
                yield text
        if with_usage:
            yield data(self.head.body("chat.completion.chunk", [], usage=self._usage(usages)))
        yield DONE

    async def whole(self, answers: Answers) -> dict[str, Any]:
        """One response."""
        choices = [Choice() for _ in range(self.n)]
        async for parts in answers:
            for index, part in parts:
                choices[index].add(part)
        bodies = [choice.body(index, self.token_bytes) for index, choice in enumerate(choices)]
        return self.head.body("chat.completion", bodies, usage=self._usage([choice.end.usage for choice in choices if choice.end]))

    def _usage(self, usages: list[Usage]) -> dict[str, Any]:
        return usage_body(total(usages, self.n), self.head.currency)

    def _chunk(
        self, index: int, delta: dict[str, Any], usage_follows: bool, likelihoods: Sequence[Likelihood] = (),
        reason: str | None = None, usage: dict[str, Any] | None = None,
    ) -> str:  # fmt: skip
        """One event. Where usage has a chunk of its own at the end, all others say that they have none."""
        logprobs = chat_logprobs(likelihoods, self.token_bytes) if likelihoods else None
        choice = {"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": reason}
        return data(self.head.body("chat.completion.chunk", [choice], **({"usage": usage} if usage or usage_follows else {})))


def _delta(part: Reasoning | Text | ToolStart | ToolArguments) -> dict[str, Any]:
    if isinstance(part, Reasoning):
        return {"reasoning_content": part.text, "content": None}
    if isinstance(part, Text):
        return {"content": part.text}
    if isinstance(part, ToolStart):
        function = {"name": part.name, "arguments": ""}
        return {"tool_calls": [{"index": part.index, "id": part.id, "type": "function", "function": function}]}
    return {"tool_calls": [{"index": part.index, "function": {"arguments": part.text}}]}


@dataclass
class Choice:
    """One answer as it is put together."""

    reasoning: str = ""
    text: str = ""
    calls: list[dict[str, Any]] = field(default_factory=list)
    likelihoods: list[Likelihood] = field(default_factory=list)
    end: End | None = None

    def add(self, part: Part) -> None:
        """Takes a part."""
        if isinstance(part, Reasoning):
            self.reasoning += part.text
        elif isinstance(part, Text):
            self.text += part.text
        elif isinstance(part, ToolStart):
            self.calls.append({"id": part.id, "type": "function", "function": {"name": part.name, "arguments": ""}})
        elif isinstance(part, ToolArguments):
            self.calls[part.index]["function"]["arguments"] += part.text
        elif isinstance(part, Likelihood):
            self.likelihoods.append(part)
        else:
            self.end = part

    def body(self, index: int, token_bytes: TokenBytes) -> dict[str, Any]:
        """As it is sent."""
        assert self.end is not None
        message: dict[str, Any] = {"role": "assistant", "content": None if self.calls and not self.text else self.text}
        if self.reasoning:
            message["reasoning_content"] = self.reasoning
        if self.calls:
            message["tool_calls"] = self.calls
        logprobs = chat_logprobs(self.likelihoods, token_bytes) if self.likelihoods else None
        return {"index": index, "message": message, "logprobs": logprobs, "finish_reason": self.end.finish_reason}
