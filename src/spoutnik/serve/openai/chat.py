"""POST /chat/completions."""

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

from fastapi import APIRouter, Request, Response

from spoutnik.serve.answer import End, Part, Reasoning, Text, ToolStart, Usage
from spoutnik.serve.dialect import principal_of, request_id_of, service_of
from spoutnik.serve.openai.errors import error_body
from spoutnik.serve.openai.head import Head
from spoutnik.serve.openai.reading import read_conversation, read_sampling
from spoutnik.serve.openai.schema import ChatRequest
from spoutnik.serve.openai.usage import total, usage_body
from spoutnik.serve.responses import DONE, Patient, Streamed, data
from spoutnik.serve.service import Answers


def router() -> APIRouter:
    """The route."""
    routes = APIRouter()

    @routes.post("/chat/completions", response_model=None)
    async def chat(body: ChatRequest, request: Request) -> Response:
        """Answers a conversation."""
        service, settings = service_of(request), service_of(request).settings
        served = service.model(body.model)
        conversation = read_conversation(body, settings, served)
        sampling = read_sampling(body, settings, body.max_completion_tokens or body.max_tokens)
        answers = await service.converse(conversation, sampling, served, principal_of(request))
        head = Head.of("chatcmpl", service, served)
        request_id = request_id_of(request)
        if body.stream:
            with_usage = bool(body.stream_options and body.stream_options.include_usage)
            events = _chunks(answers, head, sampling.n, with_usage)
            return Streamed(events, answers, settings.keep_alive_s, lambda error: data(error_body(error, request_id)))
        return Patient(
            lambda: _whole(answers, head, sampling.n), answers, settings.keep_alive_s, lambda error: error_body(error, request_id)
        )

    return routes


async def _chunks(answers: Answers, head: Head, n: int, with_usage: bool) -> AsyncIterator[str]:
    """The events of a stream: of every step one chunk for each answer that got something."""
    usages: list[Usage] = []
    others = {"usage": None} if with_usage else {}

    def chunk(index: int, delta: dict[str, Any], reason: str | None = None, **more: Any) -> str:
        choice = {"index": index, "delta": delta, "logprobs": None, "finish_reason": reason}
        return data(head.body("chat.completion.chunk", [choice], **(others | more)))

    for index in range(n):
        yield chunk(index, {"role": "assistant", "content": ""})
    async for parts in answers:
        text = ""
        for index, part in parts:
            if isinstance(part, End):
                usages.append(part.usage)
                last = len(usages) == n and not with_usage
                text += chunk(index, {}, part.finish_reason, **({"usage": usage_body(total(usages, n), head.currency)} if last else {}))
            else:
                text += chunk(index, _delta(part))
        if text:
            yield text
    if with_usage:
        yield data(head.body("chat.completion.chunk", [], usage=usage_body(total(usages, n), head.currency)))
    yield DONE


def _delta(part: Part) -> dict[str, Any]:
    if isinstance(part, Reasoning):
        return {"reasoning_content": part.text, "content": None}
    if isinstance(part, Text):
        return {"content": part.text}
    if isinstance(part, ToolStart):
        function = {"name": part.name, "arguments": ""}
        return {"tool_calls": [{"index": part.index, "id": part.id, "type": "function", "function": function}]}
    assert not isinstance(part, End)
    return {"tool_calls": [{"index": part.index, "function": {"arguments": part.text}}]}


@dataclass
class Choice:
    """One answer as it is put together."""

    reasoning: str = ""
    text: str = ""
    calls: list[dict[str, Any]] = field(default_factory=list)
    end: End | None = None

    def add(self, part: Part) -> None:
        """Takes a part."""
        if isinstance(part, Reasoning):
            self.reasoning += part.text
        elif isinstance(part, Text):
            self.text += part.text
        elif isinstance(part, ToolStart):
            self.calls.append({"id": part.id, "type": "function", "function": {"name": part.name, "arguments": ""}})
        elif isinstance(part, End):
            self.end = part
        else:
            self.calls[part.index]["function"]["arguments"] += part.text

    def body(self, index: int) -> dict[str, Any]:
        """As it is sent."""
        assert self.end is not None
        message: dict[str, Any] = {"role": "assistant", "content": None if self.calls and not self.text else self.text}
        if self.reasoning:
            message["reasoning_content"] = self.reasoning
        if self.calls:
            message["tool_calls"] = self.calls
        return {"index": index, "message": message, "logprobs": None, "finish_reason": self.end.finish_reason}


async def _whole(answers: Answers, head: Head, n: int) -> dict[str, Any]:
    choices = [Choice() for _ in range(n)]
    async for parts in answers:
        for index, part in parts:
            choices[index].add(part)
    usages = [choice.end.usage for choice in choices if choice.end is not None]
    bodies = [choice.body(index) for index, choice in enumerate(choices)]
    return head.body("chat.completion", bodies, usage=usage_body(total(usages, n), head.currency))
