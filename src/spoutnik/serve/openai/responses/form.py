"""Writes a response, in one piece or as events."""

import secrets
import time
from collections.abc import AsyncIterator
from typing import Any

from spoutnik.serve.answer import End
from spoutnik.serve.backend import Usage
from spoutnik.serve.conversation import Conversation
from spoutnik.serve.costs import cost_body
from spoutnik.serve.errors import ApiError
from spoutnik.serve.openai.responses.items import Items
from spoutnik.serve.openai.responses.reading import namespaced
from spoutnik.serve.openai.responses.schema import ResponsesRequest
from spoutnik.serve.responses import named
from spoutnik.serve.service import Answers, Service

CODES = {400: "invalid_prompt", 429: "rate_limit_exceeded"}
CARRYING = "reasoning.encrypted_content"


class Form:
    """One response."""

    def __init__(self, body: ResponsesRequest, conversation: Conversation, service: Service):
        self._items = Items(service.token_bytes, CARRYING in (body.include or ()), namespaced(body))
        self._currency = service.settings.price.currency
        self._sequence = 0
        self._head = _head(body, conversation, service)

    async def events(self, answers: Answers) -> AsyncIterator[str]:
        """The events of a stream."""
        yield self._named({"type": "response.created", "response": self._body("in_progress")})
        yield self._named({"type": "response.in_progress", "response": self._body("in_progress")})
        async for parts in answers:
            text = ""
            for _, part in parts:
                whole = not isinstance(part, End) or part.finish_reason != "length"
                changes = self._items.close(whole) if isinstance(part, End) else self._items.add(part)
                text += "".join(map(self._named, changes))
                if isinstance(part, End):
                    ended = self._ended(part)
                    text += self._named({"type": f"response.{ended['status']}", "response": ended})
            if text:
                yield text

    async def whole(self, answers: Answers) -> dict[str, Any]:
        """The response in one piece."""
        end = None
        async for parts in answers:
            for _, part in parts:
                self._items.add(part)
                end = part if isinstance(part, End) else end
        assert end is not None
        self._items.close(end.finish_reason != "length")
        return self._ended(end)

    def failed(self, error: ApiError) -> dict[str, Any]:
        """The response where something went wrong on the way."""
        self._items.close(whole=False)
        return self._body("failed", error={"code": CODES.get(error.status, "server_error"), "message": error.message})

    def broken(self, error: ApiError) -> str:
        """The last event of a stream that went wrong."""
        return self._named({"type": "response.failed", "response": self.failed(error)})

    def _named(self, event: dict[str, Any]) -> str:
        numbered = {"type": event["type"], "sequence_number": self._sequence, **event}
        self._sequence += 1
        return named(numbered)

    def _ended(self, end: End) -> dict[str, Any]:
        usage = _usage(end.usage, self._currency)
        if end.finish_reason == "length":
            return self._body("incomplete", incomplete_details={"reason": "max_output_tokens"}, usage=usage)
        return self._body("completed", completed_at=int(time.time()), usage=usage)

    def _body(self, status: str, **changes: Any) -> dict[str, Any]:
        return {**self._head, "status": status, "output": list(self._items.finished), **changes}


def _head(body: ResponsesRequest, conversation: Conversation, service: Service) -> dict[str, Any]:
    """All fields, as they are before anything is known of the answer."""
    settings, choice = service.settings, body.tool_choice
    text = None if body.text is None else body.text.format
    return {
        "id": f"resp_{secrets.token_hex(12)}", "object": "response", "created_at": int(time.time()), "completed_at": None,
        "status": "in_progress", "background": False, "error": None, "incomplete_details": None, "instructions": body.instructions,
        "max_output_tokens": body.max_output_tokens, "max_tool_calls": None, "model": body.model, "output": [],
        "parallel_tool_calls": conversation.parallel_calls, "previous_response_id": None, "prompt_cache_key": None,
        "reasoning": {"effort": body.reasoning and body.reasoning.effort, "summary": None}, "safety_identifier": None,
        "service_tier": "default", "store": False,
        "temperature": settings.temperature if body.temperature is None else body.temperature,
        "text": {"format": {"type": "text"} if text is None else text.model_dump(by_alias=True, exclude_unset=text.type != "json_schema")},
        "tool_choice": "auto" if choice is None else choice if isinstance(choice, str) else choice.model_dump(),
        "tools": [tool.model_dump() for tool in body.tools or []],
        "top_logprobs": body.top_logprobs or 0, "top_p": settings.top_p if body.top_p is None else body.top_p,
        "presence_penalty": 0.0, "frequency_penalty": 0.0, "truncation": "disabled", "usage": None, "metadata": body.metadata or {},
        "system_fingerprint": service.backend.info.fingerprint,
    }  # fmt: skip


def _usage(usage: Usage, currency: str) -> dict[str, Any]:
    return {
        "input_tokens": usage.prompt_tokens,
        "input_tokens_details": {"cached_tokens": usage.cached_tokens, "cache_write_tokens": 0},
        "output_tokens": usage.completion_tokens,
        "output_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
        "cost": cost_body(usage.cost, currency),
    }
