"""POST /v1/messages and /v1/messages/count_tokens."""

import secrets
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

from fastapi import APIRouter, Request, Response

from spoutnik.serve.answer import End
from spoutnik.serve.anthropic.blocks import Blocks
from spoutnik.serve.anthropic.errors import error_body
from spoutnik.serve.anthropic.reading import read_conversation, read_model, read_sampling
from spoutnik.serve.anthropic.schema import CountRequest, MessagesRequest
from spoutnik.serve.anthropic.usage import counts, usage_body
from spoutnik.serve.dialect import caller_of, service_of
from spoutnik.serve.document import streamed
from spoutnik.serve.once import OnceRoute
from spoutnik.serve.responses import Patient, Streamed, named
from spoutnik.serve.service import Answers

PING = named({"type": "ping"})


def router() -> APIRouter:
    """The routes."""
    routes = APIRouter(route_class=OnceRoute)

    @routes.post("/v1/messages", response_model=None, responses=streamed("message"))
    async def messages(body: MessagesRequest, request: Request) -> Response:
        """Answers a conversation."""
        service, settings = service_of(request), service_of(request).settings
        served = read_model(body.model, service)
        conversation = read_conversation(body, settings, served)
        caller = caller_of(request, None if body.metadata is None else body.metadata.user_id)
        answers = await service.converse(conversation, read_sampling(body, settings), served, caller)
        omit = body.thinking is not None and body.thinking.display == "omitted"
        form = Form(f"msg_{secrets.token_hex(12)}", served.name, settings.price.currency, service.backend.info.context, omit)
        request_id, keep_alive_s = caller.request_id, settings.keep_alive_s
        if body.stream:
            return Streamed(form.events(answers), answers, keep_alive_s, lambda error: named(error_body(error, request_id)), PING)
        return Patient(lambda: form.whole(answers), answers, keep_alive_s, lambda error: error_body(error, request_id))

    @routes.post("/v1/messages/count_tokens")
    async def count_tokens(body: CountRequest, request: Request) -> dict[str, int]:
        """How many tokens a conversation is to the model."""
        service = service_of(request)
        conversation = read_conversation(body, service.settings, read_model(body.model, service))
        return {"input_tokens": len((await service.prompt(conversation, bounded=False)).token_ids)}

    return routes


@dataclass(frozen=True)
class Form:
    """Writes one answer, in one piece or as events."""

    id: str
    model: str
    currency: str
    context: int
    omit: bool
    """Whether the thinking is not told."""

    async def events(self, answers: Answers) -> AsyncIterator[str]:
        """The events of a stream. What was found in the cache is known at the end, and told there."""
        blocks = Blocks(self.omit)
        yield named({"type": "message_start", "message": self._message([], None, None, counts(answers.prompt_tokens, 0, 0))})
        async for parts in answers:
            text = ""
            for _, part in parts:
                if isinstance(part, End):
                    text += "".join(map(named, blocks.close()))
                    reason, sequence = self._stop(part)
                    delta = {"stop_reason": reason, "stop_sequence": sequence, "stop_details": None}
                    text += named({"type": "message_delta", "delta": delta, "usage": usage_body(part.usage, self.currency)})
                else:
                    text += "".join(map(named, blocks.add(part)))
            if text:
                yield text
        yield named({"type": "message_stop"})

    async def whole(self, answers: Answers) -> dict[str, Any]:
        """One response."""
        blocks, end = Blocks(self.omit), None
        async for parts in answers:
            for _, part in parts:
                blocks.add(part)
                end = part if isinstance(part, End) else end
        assert end is not None
        blocks.close()
        return self._message(blocks.finished, *self._stop(end), usage_body(end.usage, self.currency))

    def _message(
        self, content: list[dict[str, Any]], reason: str | None, sequence: str | None, usage: dict[str, Any]
    ) -> dict[str, Any]:  # fmt: skip
        return {
            "id": self.id, "type": "message", "role": "assistant", "model": self.model, "content": content,
            "stop_reason": reason, "stop_sequence": sequence, "stop_details": None, "usage": usage,
        }  # fmt: skip

    def _stop(self, end: End) -> tuple[str, str | None]:
        """`stop_reason` and `stop_sequence`."""
        if end.finish_reason == "tool_calls":
            return "tool_use", None
        if end.finish_reason == "length":
            full = end.usage.prompt_tokens + end.usage.completion_tokens >= self.context
            return "model_context_window_exceeded" if full else "max_tokens", None
        return ("end_turn" if end.stop_string is None else "stop_sequence"), end.stop_string
