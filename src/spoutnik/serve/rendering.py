"""The prompt that the model's own chat template makes of a conversation."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from spoutnik.errors import UserError
from spoutnik.serve.conversation import Conversation, Message, ToolCall
from spoutnik.serve.errors import ContextTooLongError, InvalidRequestError
from spoutnik.serve.settings import Settings
from spoutnik.text import tool_calls
from spoutnik.text.reasoning import CLOSE, OPEN, starts_thinking
from spoutnik.text.template import render as write_template
from spoutnik.text.tokenizer import Tokenizer
from spoutnik.text.tool_calls import ToolFormat


@dataclass(frozen=True)
class Prompt:
    """A conversation as the model reads it, and how its answer is to be read."""

    text: str
    token_ids: tuple[int, ...]
    thinking: bool
    """Whether it leaves a `<think>` open."""
    tools: ToolFormat | None
    """How calls are written, where calls are wanted."""


def render(
    conversation: Conversation, tokenizer: Tokenizer, settings: Settings, context: int, write: Callable[..., str] = write_template
) -> Prompt:
    """The prompt; `write` renders templates.

    Raises InvalidRequestError where the template refuses the messages, and ContextTooLongError.
    """
    template = tokenizer.chat_template
    if template is None:
        raise InvalidRequestError("This model has no chat template, so it holds no conversations; ask for a completion of plain text.")
    wanted = bool(conversation.tools) and conversation.tool_choice != "none"
    form = tool_calls.choose(template)
    tools = [tool.as_openai() for tool in conversation.tools] if wanted else None
    history = _remembered(conversation.messages, settings)
    begun = history.pop() if conversation.continue_last else None
    messages = _messages(history, template, form)
    if tools and form.described:
        messages, tools = _with_description(messages, tool_calls.describe(tools)), None
    enabled = conversation.thinking.enabled
    variables: dict[str, Any] = {} if enabled is None else {"enable_thinking": enabled, "thinking": enabled}
    if any(message.reasoning is not None for message in history):
        variables["keep_reasoning"] = True
    try:
        text = write(
            template, messages, **{**tokenizer.template_variables(), "tools": tools, **variables, **conversation.template_variables}
        )
    except UserError as error:
        raise InvalidRequestError(str(error), param="messages") from error
    text = _begin(text, begun, enabled, CLOSE in template)
    token_ids = tuple(tokenizer.encode(text))
    if len(token_ids) >= context:
        raise ContextTooLongError(len(token_ids), context)
    form = replace(form, schemas={tool.name: tool.parameters for tool in conversation.tools})
    return Prompt(text, token_ids, starts_thinking(text), form if wanted else None)


def _begin(prompt: str, begun: Message | None, enabled: bool | None, thinks: bool) -> str:
    """The prompt with what is already there of the answer: its thinking opened or closed as wanted, and text to go on from.

    A beginning with reasoning and no content goes on thinking.
    """
    open_now = starts_thinking(prompt)
    if begun is not None and begun.reasoning is not None and thinks:
        thoughts = begun.reasoning if open_now else f"{OPEN}\n{begun.reasoning}"
        return prompt + (f"{thoughts}\n{CLOSE}\n\n{begun.content}" if begun.content else thoughts)
    if open_now and (enabled is False or begun is not None):
        prompt += f"\n{CLOSE}\n\n"
    elif enabled and not open_now and thinks and begun is None:
        prompt += f"{OPEN}\n"
    return prompt + (begun.content if begun is not None else "")


def _remembered(messages: Sequence[Message], settings: Settings) -> list[Message]:
    """The messages with the reasoning that the server's rule keeps of them."""
    rule = settings.reasoning_input
    if rule == "r1":
        if any(message.reasoning is not None for message in messages):
            raise InvalidRequestError("reasoning_content is not part of the input: send an assistant's content only.", param="messages")
        return list(messages)
    last_user = max((place for place, message in enumerate(messages) if message.role == "user"), default=-1)
    kept = []
    for place, message in enumerate(messages):
        in_loop = bool(message.tool_calls)
        if rule == "v4-strict" and in_loop and message.reasoning is None:
            raise InvalidRequestError(
                f"messages[{place}] calls tools, so its reasoning_content must be passed back with it.", param=f"messages.{place}"
            )
        keep = in_loop or place > last_user
        kept.append(message if keep else replace(message, reasoning=None))
    return kept


def _messages(messages: Sequence[Message], template: str, form: ToolFormat) -> list[dict[str, Any]]:
    """In the shape that Hugging Face's chat templates expect."""
    has_field, has_tags = "reasoning_content" in template, CLOSE in template
    shaped = []
    for message in messages:
        content, shape = message.content, dict[str, Any](role=message.role)
        if message.reasoning is not None:
            if has_field:
                shape["reasoning_content"] = message.reasoning
            elif has_tags:
                content = f"{OPEN}\n{message.reasoning}\n{CLOSE}\n\n{content}"
        if form.described:
            content = "\n".join([*filter(None, [content]), *(tool_calls.written(call.name, call.arguments) for call in message.tool_calls)])
            if message.role == "tool":
                shape["role"], content = "user", f"<tool_response>\n{content}\n</tool_response>"
        elif message.tool_calls:
            shape["tool_calls"] = [_call(call, form.text_arguments) for call in message.tool_calls]
        if message.tool_call_id is not None and not form.described:
            shape["tool_call_id"] = message.tool_call_id
        shape["content"] = content
        shaped.append(shape)
    return shaped


def _call(call: ToolCall, as_text: bool) -> dict[str, Any]:
    arguments: Any = call.arguments
    if not as_text:
        try:
            arguments = json.loads(call.arguments or "{}")
        except (ValueError, RecursionError):
            arguments = {}
    return {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": arguments}}


def _with_description(messages: list[dict[str, Any]], description: str) -> list[dict[str, Any]]:
    """The tools told in the system message, one more if there is none."""
    if messages and messages[0]["role"] == "system":
        first = messages[0] | {"content": f"{messages[0]['content']}\n\n{description}"}
        return [first, *messages[1:]]
    return [{"role": "system", "content": description}, *messages]
