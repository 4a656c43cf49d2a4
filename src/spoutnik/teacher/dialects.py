"""The dialects of the network: OpenAI's chat completions, which most servers speak, DeepSeek's and Mistral's forms of it, and Anthropic's
messages.

Replies are checked field by field: a server may say anything. Its counts of tokens are believed if they can be, else they are unknown.
"""

from dataclasses import dataclass
from typing import Any, Protocol

from spoutnik.recipe.teachers import TeacherSpec
from spoutnik.teacher.base import FinishReason, Message, Sampling, Usage

ANTHROPIC_VERSION = "2023-06-01"
FINISHES: dict[object, FinishReason] = {
    "stop": "stop", "end_turn": "stop", "stop_sequence": "stop", "length": "length", "max_tokens": "length",
    "model_context_window_exceeded": "length", "model_length": "length", "content_filter": "refused", "refusal": "refused",
}  # fmt: skip
BROKEN_OFF = ("insufficient_system_resource", "error")
"""Ends that are the server's fault (DeepSeek's, Mistral's): no answer, to be tried again."""


class MalformedError(Exception):
    """A reply that is not one."""


@dataclass(frozen=True)
class Reply:
    """An answer as it came; `usage` is None where the server did not say, or said what cannot be."""

    text: str
    reasoning: str
    finish_reason: FinishReason
    usage: Usage | None
    model: str


class Dialect(Protocol):
    """How one family of servers is spoken to."""

    path: str
    seed_field: str
    """The option that fixes a server's random numbers. "" where there is none. Several answers to one question need several numbers."""

    def headers(self, key: str | None) -> dict[str, str]: ...

    def body(self, spec: TeacherSpec, messages: tuple[Message, ...], sampling: Sampling) -> dict[str, Any]: ...

    def reply(self, content: Any) -> Reply:
        """Reads the JSON of a reply with status 200; raises MalformedError."""
        ...


class OpenAI:
    """POST BASE/chat/completions. Thinking is in `reasoning_content` (llama.cpp) or `reasoning` (vLLM, OpenRouter)."""

    path = "/chat/completions"
    seed_field = "seed"

    def headers(self, key: str | None) -> dict[str, str]:
        return {"authorization": f"Bearer {key}"} if key else {}

    def body(self, spec: TeacherSpec, messages: tuple[Message, ...], sampling: Sampling) -> dict[str, Any]:
        body = {**spec.options, "model": spec.model, "messages": list(messages), spec.max_tokens_field: sampling.max_tokens}
        return body | _temperature(sampling)

    def reply(self, content: Any) -> Reply:
        choices = _table(content, "the reply").get("choices")
        if not isinstance(choices, list) or not choices:
            raise MalformedError("no choices")
        choice = _table(choices[0], "choices[0]")
        message = _table(choice.get("message"), "message")
        refused = isinstance(message.get("refusal"), str) and not message.get("content")
        text, reasoning = self.texts(message)
        usage = self.usage(_part(content, "usage"), bool(text))
        return Reply(text, reasoning, "refused" if refused else _finish(choice.get("finish_reason")), usage, _model(content))

    def texts(self, message: dict[str, Any]) -> tuple[str, str]:
        """(what the user is meant to read, the thinking) of a message."""
        thinking = message.get("reasoning_content") or message.get("reasoning")
        return _text(message.get("content"), "message.content"), _text(thinking, "message.reasoning_content")

    def usage(self, usage: dict[str, Any], wrote: bool) -> Usage | None:
        cached = usage.get("prompt_cache_hit_tokens", _part(usage, "prompt_tokens_details").get("cached_tokens"))
        return _usage(usage.get("prompt_tokens"), usage.get("completion_tokens"), cached, wrote)


class DeepSeek(OpenAI):
    """As OpenAI's, with the thinking in `reasoning_content` and a prompt that was found in the cache, in part, counted apart.

    `options.thinking = { type = "enabled" }`, or "disabled", switches the thinking (api-docs.deepseek.com, thinking mode).
    """

    def texts(self, message: dict[str, Any]) -> tuple[str, str]:
        return _text(message.get("content"), "message.content"), _text(message.get("reasoning_content"), "message.reasoning_content")

    def usage(self, usage: dict[str, Any], wrote: bool) -> Usage | None:
        """Hits and misses must add up to the prompt: they have prices of their own."""
        prompt, hit, miss = (usage.get(f"prompt_{key}tokens", 0) for key in ("", "cache_hit_", "cache_miss_"))
        if not all(map(_is_count, (prompt, hit, miss))) or ((hit or miss) and prompt != hit + miss):
            return None
        return _usage(prompt, usage.get("completion_tokens"), hit, wrote)


class Mistral(OpenAI):
    """As OpenAI's, but a message of a model that thinks is a list of chunks, and the seed is called `random_seed`."""

    seed_field = "random_seed"

    def texts(self, message: dict[str, Any]) -> tuple[str, str]:
        content = message.get("content")
        if not isinstance(content, list):
            return _text(content, "message.content"), ""
        chunks = [_table(chunk, "a chunk") for chunk in content]
        thinking = [part for chunk in chunks if chunk.get("type") == "thinking" for part in _parts(chunk.get("thinking"))]
        return _joined(chunks), _joined(thinking)


class Anthropic:
    """POST BASE/v1/messages. The system's words stand apart from the messages; thinking comes as blocks of its own."""

    path = "/v1/messages"
    seed_field = ""

    def headers(self, key: str | None) -> dict[str, str]:
        return {"anthropic-version": ANTHROPIC_VERSION} | ({"x-api-key": key} if key else {})

    def body(self, spec: TeacherSpec, messages: tuple[Message, ...], sampling: Sampling) -> dict[str, Any]:
        system = "\n\n".join(message["content"] for message in messages if message["role"] == "system")
        turns = [message for message in messages if message["role"] != "system"]
        body = {**spec.options, "model": spec.model, "messages": turns, "max_tokens": sampling.max_tokens}
        return body | ({"system": system} if system else {}) | _temperature(sampling)

    def reply(self, content: Any) -> Reply:
        blocks = _table(content, "the reply").get("content")
        if not isinstance(blocks, list):
            raise MalformedError("no content")
        texts: dict[str, list[str]] = {"text": [], "thinking": []}
        for block in blocks:
            kind = _table(block, "a block").get("type")
            if isinstance(kind, str) and kind in texts:
                texts[kind].append(_text(block.get(kind), f"a block of {kind}"))
        usage = _part(content, "usage")
        parts: list[Any] = [usage.get("input_tokens"), *(usage.get(f"cache_{part}_input_tokens") or 0 for part in ("read", "creation"))]
        prompt = sum(parts) if all(_is_count(part) for part in parts) else None
        text = "".join(texts["text"])
        return Reply(
            text, "".join(texts["thinking"]), _finish(content.get("stop_reason")),
            _usage(prompt, usage.get("output_tokens"), usage.get("cache_read_input_tokens"), bool(text)), _model(content),
        )  # fmt: skip


DIALECTS: dict[str, Dialect] = {"openai": OpenAI(), "anthropic": Anthropic(), "deepseek": DeepSeek(), "mistral": Mistral()}


def _temperature(sampling: Sampling) -> dict[str, float]:
    return {} if sampling.temperature == 1.0 else {"temperature": sampling.temperature}


def _table(value: Any, what: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise MalformedError(f"{what} is no object")
    return value


def _part(table: dict[str, Any], key: str) -> dict[str, Any]:
    """A table within a table; an empty one where there is none."""
    value = table.get(key)
    return value if isinstance(value, dict) else {}


def _text(value: Any, what: str) -> str:
    if value is not None and not isinstance(value, str):
        raise MalformedError(f"{what} is no text")
    return (value or "").encode("utf-8", "replace").decode()  # JSON can hold halves of characters, files cannot


def _parts(value: Any) -> list[dict[str, Any]]:
    """What a chunk of thinking holds: a list of chunks of text, or a text."""
    if isinstance(value, str):
        return [{"type": "text", "text": value}]
    if not isinstance(value, list):
        raise MalformedError("a chunk of thinking holds none")
    return [_table(part, "a part of the thinking") for part in value]


def _joined(chunks: list[dict[str, Any]]) -> str:
    return "".join(_text(chunk.get("text"), "a chunk of text") for chunk in chunks if chunk.get("type") == "text")


def _finish(value: Any) -> FinishReason:
    if value in BROKEN_OFF:
        raise MalformedError(f"the server broke off: {value}")
    if not isinstance(value, str) or value not in FINISHES:
        raise MalformedError(f"it ended for an unknown reason ({str(value)[:40]!r})")
    return FINISHES[value]


def _usage(prompt: Any, completion: Any, cached: Any, wrote: bool) -> Usage | None:
    """None for counts that are absent, no counts, or zero where something was read or written."""
    if not _is_count(prompt) or not _is_count(completion) or not prompt or (wrote and not completion):
        return None
    return Usage(prompt, completion, min(cached, prompt) if _is_count(cached) else 0)


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**40


def _model(content: dict[str, Any]) -> str:
    model = content.get("model")
    return model if isinstance(model, str) else ""
