"""From OpenAI's shapes to those that no dialect owns."""

from collections.abc import Mapping, Sequence
from typing import Any

from spoutnik.serve.bounds import check_choice, check_effort, check_likeliest, check_schema, check_stops, check_tools
from spoutnik.serve.conversation import Conversation, Message, Sampling, Thinking, Tool, ToolCall
from spoutnik.serve.errors import InvalidRequestError
from spoutnik.serve.openai.schema import ChatMessage, ChatRequest, ContentPart, NamedTool, ResponseFormat, SamplingFields, Stop
from spoutnik.serve.service import Served
from spoutnik.serve.settings import Settings

PROTECTED = frozenset({"messages", "tools", "documents", "add_generation_prompt", "bos_token", "eos_token", "pad_token", "keep_reasoning"})
"""Template variables that a request may not set by way of `chat_template_kwargs`."""

TEXTS = frozenset({"text", "refusal", "input_text", "output_text"})
"""Types of parts that hold text."""


def read_sampling(body: SamplingFields, settings: Settings, max_tokens: int | None, logprobs: int | None) -> Sampling:
    """How to answer. Raises InvalidRequestError for what is beyond the server's bounds."""
    check_likeliest(logprobs, settings, "logprobs")
    n = 1 if body.n is None else body.n
    if n > settings.most_choices:
        raise InvalidRequestError(f"n is {n}; this server makes at most {settings.most_choices} answers of one request.", param="n")
    return Sampling(
        max_tokens=max_tokens, temperature=body.temperature, top_p=body.top_p, top_k=max(body.top_k or 0, 0),
        stop=_stop(body.stop, settings), min_p=body.min_p or 0.0, presence_penalty=body.presence_penalty or 0.0,
        frequency_penalty=body.frequency_penalty or 0.0, repetition_penalty=body.repetition_penalty or 1.0,
        logit_bias=body.logit_bias or {}, seed=body.seed, n=n, logprobs=logprobs,
    )  # fmt: skip


def _stop(stop: Stop, settings: Settings) -> tuple[str, ...]:
    return check_stops([stop] if isinstance(stop, str) else stop or [], settings, "stop")


def read_conversation(body: ChatRequest, settings: Settings, served: Served) -> Conversation:
    """What is to be answered. Raises InvalidRequestError for what this server does not do."""
    tools = _tools(body, settings)
    choice = body.tool_choice or "auto"
    name = choice.function.name if isinstance(choice, NamedTool) else None
    check_choice(name is not None or choice == "required", name, tools)
    prefixes = [place for place, message in enumerate(body.messages) if message.prefix]
    last = len(body.messages) - 1
    if prefixes and (prefixes != [last] or body.messages[last].role != "assistant"):
        raise InvalidRequestError(
            "prefix: true is for the last message, and that must be the assistant's.", param=f"messages.{prefixes[0]}"
        )
    variables = body.chat_template_kwargs or {}
    if wrong := PROTECTED & variables.keys():
        raise InvalidRequestError(f"chat_template_kwargs may not set {sorted(wrong)[0]}.", param="chat_template_kwargs")
    return Conversation(
        tuple(_message(message, place) for place, message in enumerate(body.messages)), tools,
        "required" if name is not None else choice if isinstance(choice, str) else "auto", name,
        _thinking(body, served), bool(prefixes), variables, _schema(body.response_format, settings),
        body.parallel_tool_calls is not False,
    )  # fmt: skip


def _thinking(body: ChatRequest, served: Served) -> Thinking:
    enabled, effort = served.thinking, None
    if body.reasoning_effort == "none":
        enabled = False
    elif body.reasoning_effort is not None:
        effort = check_effort(body.reasoning_effort, "reasoning_effort")
    if body.thinking is not None and body.thinking.type != "adaptive":
        enabled = body.thinking.type == "enabled"
    return Thinking(enabled, effort, None if body.thinking is None else body.thinking.budget_tokens)


def _tools(body: ChatRequest, settings: Settings) -> tuple[Tool, ...]:
    given = [entry.function for entry in body.tools or []]
    tools = [Tool(tool.name, tool.description or "", tool.parameters or {}, bool(tool.strict)) for tool in given]
    return check_tools(tools, settings, "tools.{}.function.parameters")


def _schema(wanted: ResponseFormat | None, settings: Settings) -> Mapping[str, Any] | None:
    if wanted is None or wanted.type == "text":
        return None
    if wanted.type == "json_object":
        return {"type": "object"}
    if wanted.json_schema is None or wanted.json_schema.schema_ is None:
        raise InvalidRequestError("response_format asks for a schema and holds none; give json_schema.schema.", param="response_format")
    return check_schema(wanted.json_schema.schema_, settings, "response_format.json_schema.schema")


def _message(message: ChatMessage, place: int) -> Message:
    calls = tuple(ToolCall(call.id, call.function.name, call.function.arguments) for call in message.tool_calls or ())
    role = "system" if message.role == "developer" else message.role
    if calls and role != "assistant":
        raise InvalidRequestError("Only an assistant's message may hold tool_calls.", param=f"messages.{place}.tool_calls")
    reasoning = message.reasoning if message.reasoning_content is None else message.reasoning_content
    content = read_content(message.content, f"messages.{place}.content")
    return Message(role, content, reasoning if role == "assistant" else None, calls, message.tool_call_id)


def read_content(content: str | Sequence[ContentPart] | None, param: str) -> str:
    """The text of a message. Raises InvalidRequestError for parts that are none."""
    if content is None or isinstance(content, str):
        return content or ""
    for part in content:
        if part.type not in TEXTS:
            raise InvalidRequestError(f"This model reads text; a part of the type {part.type!r} is more than it can do.", param=param)
    return "".join(part.text or part.refusal or "" for part in content)
