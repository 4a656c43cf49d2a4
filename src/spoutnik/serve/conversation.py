"""A request for an answer in no dialect, and the prompt that the model's own chat template makes of it."""

import json
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from spoutnik.engine.request import Request
from spoutnik.engine.sampler import derive_seed
from spoutnik.errors import UserError
from spoutnik.serve.errors import ContextTooLongError, InvalidRequestError
from spoutnik.serve.settings import Effort, Settings
from spoutnik.text import tool_calls
from spoutnik.text.reasoning import CLOSE, OPEN, starts_thinking
from spoutnik.text.tokenizer import Tokenizer
from spoutnik.text.tool_calls import ToolFormat

Role = Literal["system", "user", "assistant", "tool"]


@dataclass(frozen=True)
class ToolCall:
    """A call that an assistant made; `arguments` is JSON text."""

    id: str
    name: str
    arguments: str


@dataclass(frozen=True)
class Message:
    """One turn, or the result of a tool (`tool_call_id` says of which call)."""

    role: Role
    content: str
    reasoning: str | None = None
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str | None = None


@dataclass(frozen=True)
class Tool:
    """A function that the model may call; `parameters` is a JSON schema."""

    name: str
    description: str = ""
    parameters: Mapping[str, Any] = field(default_factory=dict)

    def as_openai(self) -> dict[str, Any]:
        """What chat templates expect."""
        return {"type": "function", "function": {"name": self.name, "description": self.description, "parameters": dict(self.parameters)}}


@dataclass(frozen=True)
class Thinking:
    """Whether to think, and how much. `budget`, in tokens, goes before what `effort` stands for."""

    enabled: bool | None = None
    """None: as the template has it."""
    effort: Effort | None = None
    budget: int | None = None


@dataclass(frozen=True)
class Conversation:
    """What is to be answered."""

    messages: tuple[Message, ...]
    tools: tuple[Tool, ...] = ()
    tool_choice: Literal["auto", "none", "required"] = "auto"
    tool_name: str | None = None
    """The one function that must be called; `tool_choice` is then "required"."""
    thinking: Thinking = field(default_factory=Thinking)
    continue_last: bool = False
    """The last message is the beginning of the answer, which goes on from there."""
    template_variables: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Sampling:
    """How to answer; None leaves it to the server. See `engine.request.Request`."""

    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int = 0
    stop: tuple[str, ...] = ()
    min_p: float = 0.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    repetition_penalty: float = 1.0
    logit_bias: Mapping[int, float] = field(default_factory=dict)
    seed: int | None = None
    n: int = 1
    logprobs: int | None = None
    """Tells every token's probability, and so many of the likeliest ones; None tells nothing."""

    def requests(self, prompt_ids: Sequence[int], **others: Any) -> list[Request]:
        """`n` requests of one prompt, each with a seed of its own."""
        seed = secrets.randbits(63) if self.seed is None else self.seed
        one = Request(
            tuple(prompt_ids), self.max_tokens or 1, 1.0 if self.temperature is None else self.temperature,
            1.0 if self.top_p is None else self.top_p, self.top_k, self.stop, stream=True, min_p=self.min_p,
            presence_penalty=self.presence_penalty, frequency_penalty=self.frequency_penalty,
            repetition_penalty=self.repetition_penalty, logit_bias=self.logit_bias, top_logprobs=self.logprobs or 0, **others,
        )  # fmt: skip
        return [replace(one, seed=derive_seed(seed, index)) for index in range(self.n)]


@dataclass(frozen=True)
class Prompt:
    """A conversation as the model reads it, and how its answer is to be read."""

    text: str
    token_ids: tuple[int, ...]
    thinking: bool
    """Whether it leaves a `<think>` open."""
    tools: ToolFormat | None
    """How calls are written, where calls are wanted."""


def render(conversation: Conversation, tokenizer: Tokenizer, settings: Settings, context: int) -> Prompt:
    """The prompt. Raises InvalidRequestError where the template refuses the messages, and ContextTooLongError."""
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
        text = tokenizer.render(messages, tools=tools, **{**variables, **conversation.template_variables})
    except UserError as error:
        raise InvalidRequestError(str(error), param="messages") from error
    text = _begin(text, begun, enabled, CLOSE in template)
    token_ids = tuple(tokenizer.encode(text))
    if len(token_ids) >= context:
        raise ContextTooLongError(len(token_ids), context)
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
