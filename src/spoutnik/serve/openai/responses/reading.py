"""From the Responses API's shapes to those that no dialect owns."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from spoutnik.serve.bounds import check_choice, check_effort, check_likeliest, check_schema, check_tools
from spoutnik.serve.carried import carried
from spoutnik.serve.conversation import Conversation, Message, Sampling, Thinking, Tool, ToolCall
from spoutnik.serve.errors import InvalidRequestError
from spoutnik.serve.openai.reading import read_content
from spoutnik.serve.openai.responses.schema import (
    AllowedChoice,
    CountRequest,
    Item,
    NamedChoice,
    Namespace,
    OtherTool,
    ResponsesRequest,
)
from spoutnik.serve.service import Served
from spoutnik.serve.settings import Settings

LOGPROBS = "message.output_text.logprobs"
KEPT = {
    "previous_response_id": "send the earlier items in input",
    "conversation": "send its items in input",
    "prompt": "send its text",
    "background": "stream the response, or wait for it",
    "store": "leave it out, or send false",
}
"""Fields of which OpenAI's servers keep something, and what to do here."""


def read_sampling(body: ResponsesRequest, settings: Settings) -> Sampling:
    """How to answer."""
    wanted = LOGPROBS in (body.include or ()) or body.top_logprobs
    logprobs = check_likeliest(body.top_logprobs or 0, settings, "top_logprobs") if wanted else None
    return Sampling(body.max_output_tokens, body.temperature, body.top_p, seed=body.seed, logprobs=logprobs)


def read_conversation(body: CountRequest, settings: Settings, served: Served) -> Conversation:
    """What is to be answered. Raises InvalidRequestError for what this server does not do."""
    for field, instead in KEPT.items():
        if getattr(body, field, None):
            raise InvalidRequestError(
                f"{field}: nothing is kept here between requests; {instead}.", param=field, code="unsupported_parameter"
            )
    choice = body.tool_choice or "auto"
    tools = check_tools(_tools(body), settings, "tools.{}.parameters")
    name = choice.name if isinstance(choice, NamedChoice) else None
    allowed = [one.name for one in choice.tools] if isinstance(choice, AllowedChoice) else [tool.name for tool in tools]
    for wanted in (*allowed, name):
        check_choice(False, wanted, tools)
    tools = tuple(tool for tool in tools if tool.name in allowed)
    mode = choice.mode if isinstance(choice, AllowedChoice) else choice if isinstance(choice, str) else "required"
    check_choice(mode == "required", None, tools)
    return Conversation(
        tuple(_messages(body)), tools, mode, name, _thinking(body, served), schema=_schema(body, settings),
        parallel_calls=body.parallel_tool_calls is not False,
    )  # fmt: skip


def _thinking(body: CountRequest, served: Served) -> Thinking:
    effort = None if body.reasoning is None else body.reasoning.effort
    if effort == "none":
        return Thinking(False)
    return Thinking(served.thinking, None if effort is None else check_effort(effort, "reasoning.effort"))


def _schema(body: CountRequest, settings: Settings) -> Mapping[str, Any] | None:
    wanted = None if body.text is None else body.text.format
    if wanted is None or wanted.type == "text":
        return None
    if wanted.type == "json_object":
        return {"type": "object"}
    if wanted.schema_ is None:
        raise InvalidRequestError("text.format asks for a schema and holds none; give text.format.schema.", param="text.format")
    return check_schema(wanted.schema_, settings, "text.format.schema")


def namespaced(body: CountRequest) -> dict[str, tuple[str, str]]:
    """The functions of namespaces, as (namespace, name), by the names under which the model knows them."""
    spaces = [tool for tool in body.tools or [] if isinstance(tool, Namespace)]
    return {_joint(space.name, tool.name): (space.name, tool.name) for space in spaces for tool in space.tools}


def _joint(namespace: str | None, name: str) -> str:
    return f"{namespace}.{name}" if namespace else name


def _tools(body: CountRequest) -> list[Tool]:
    tools = []
    for place, tool in enumerate(body.tools or []):
        if isinstance(tool, OtherTool):
            raise InvalidRequestError(
                f"A tool is of the type {tool.type!r}; this server knows functions, which the client runs.", param=f"tools.{place}"
            )
        namespace, functions = (tool.name, tool.tools) if isinstance(tool, Namespace) else (None, [tool])
        for one in functions:
            tools.append(Tool(_joint(namespace, one.name), one.description or "", one.parameters or {}, bool(one.strict)))
    return tools


def _messages(body: CountRequest) -> list[Message]:
    """Neighbouring items of the assistant (thinking, text, calls) are one message."""
    messages = [] if not body.instructions else [Message("system", body.instructions)]
    if isinstance(body.input, str):
        return [*messages, Message("user", body.input)]
    for place, item in enumerate(body.input):
        message = _message(item, f"input.{place}")
        if message.role == "assistant" and messages and messages[-1].role == "assistant":
            messages[-1] = _joined(messages[-1], message)
        else:
            messages.append(message)
    return messages


def _joined(before: Message, after: Message) -> Message:
    def text(*parts: str | None) -> str:
        return "\n\n".join(filter(None, parts))

    reasoning = text(before.reasoning, after.reasoning) or None
    return replace(
        before, content=text(before.content, after.content), reasoning=reasoning, tool_calls=before.tool_calls + after.tool_calls
    )


def _message(item: Item, param: str) -> Message:
    if item.type == "message" and item.role is not None:
        role = "system" if item.role == "developer" else item.role
        return Message(role, read_content(item.content, f"{param}.content"))
    if item.type == "reasoning":
        told = _text(item.content) or carried(item.encrypted_content or "") or _text(item.summary)
        return Message("assistant", "", told or None)
    if item.type == "function_call" and item.name is not None and item.call_id is not None:
        return Message("assistant", "", None, (ToolCall(item.call_id, _joint(item.namespace, item.name), item.arguments or "{}"),))
    if item.type == "function_call_output" and item.call_id is not None:
        return Message("tool", read_content(item.output, f"{param}.output"), tool_call_id=item.call_id)
    if item.type in ("message", "function_call", "function_call_output"):
        raise InvalidRequestError(f"An item of the type {item.type!r} lacks its role, name or call_id.", param=param)
    if item.type == "item_reference":
        raise InvalidRequestError("item_reference: nothing is kept here between requests; send the item itself.", param=param)
    raise InvalidRequestError(f"An item of the type {item.type!r} is more than this server can do.", param=param)


def _text(parts: Any) -> str:
    return "".join(part.text or "" for part in parts or ()) if not isinstance(parts, str) else parts
