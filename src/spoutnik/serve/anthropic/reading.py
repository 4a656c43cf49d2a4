"""From Anthropic's shapes to those that no dialect owns."""

from collections.abc import Iterator, Sequence
from itertools import groupby

from spoutnik.serve.anthropic.schema import Block, CountRequest, MessageIn, MessagesRequest, ToolIn
from spoutnik.serve.bounds import check_choice, check_effort, check_schema, check_stops, check_tools
from spoutnik.serve.carried import carried
from spoutnik.serve.conversation import Conversation, Message, Sampling, Thinking, Tool, ToolCall
from spoutnik.serve.errors import InvalidRequestError, NotFoundError
from spoutnik.serve.responses import dump
from spoutnik.serve.service import Served, Service
from spoutnik.serve.settings import Settings

PREFIX = "anthropic/"
"""Before a name, for clients that offer only names that begin like this or with "claude"."""
BILLING = "x-anthropic-billing-header:"
"""How a block begins in which Claude Code counts its requests: it says nothing to a model, and would keep all prompts from being cached."""
CHOICES = {"auto": "auto", "any": "required", "tool": "required", "none": "none"}
BETWEEN = "\n\n"
"""Between blocks of text that make one message."""


def read_model(name: str, service: Service) -> Served:
    """Who answers. Anthropic's own model names stand for the base model, as clients use some of them unasked."""
    try:
        served = service.model(name.removeprefix(PREFIX))
    except NotFoundError:
        if not name.startswith("claude"):
            raise
        served = Served(name)
    return Served(name, served.adapter, served.thinking)


def read_sampling(body: MessagesRequest, settings: Settings) -> Sampling:
    """How to answer."""
    stop = check_stops(body.stop_sequences or [], settings, "stop_sequences")
    return Sampling(body.max_tokens, body.temperature, body.top_p, body.top_k or 0, stop)


def read_conversation(body: CountRequest, settings: Settings, served: Served) -> Conversation:
    """What is to be answered. Raises InvalidRequestError for what this server does not do."""
    choice, config = body.tool_choice, body.output_config
    tools = check_tools([_tool(tool, place) for place, tool in enumerate(body.tools or [])], settings, "tools.{}.input_schema")
    name = choice.name if choice is not None and choice.type == "tool" else None
    if choice is not None:
        if choice.type == "tool" and name is None:
            raise InvalidRequestError("tool_choice has the type 'tool' and names none; give its name.", param="tool_choice")
        check_choice(choice.type in ("any", "tool"), name, tools)
    messages = _system(body.system) + [message for role, turns in _turns(body.messages) for message in _turn(role, turns)]
    if not messages:
        raise InvalidRequestError("messages hold no content; say something.", param="messages")
    last = body.messages[-1]
    schema = None if config is None or config.format is None else config.format.schema_
    return Conversation(
        tuple(messages), tools, CHOICES["auto" if choice is None else choice.type], name, _thinking(body, served),  # type: ignore[arg-type]
        last.role == "assistant" and messages[-1].role == "assistant" and not messages[-1].tool_calls,
        schema=None if schema is None else check_schema(schema, settings, "output_config.format.schema"),
        parallel_calls=choice is None or not choice.disable_parallel_tool_use,
    )  # fmt: skip


def _thinking(body: CountRequest, served: Served) -> Thinking:
    """Without a word of it, the model's template decides, as with "adaptive"."""
    enabled, budget = served.thinking, None
    if body.thinking is not None and body.thinking.type in ("enabled", "disabled"):
        enabled, budget = body.thinking.type == "enabled", body.thinking.budget_tokens
    effort = None if body.output_config is None else body.output_config.effort
    return Thinking(enabled, None if effort is None else check_effort(effort, "output_config.effort"), budget)


def _tool(tool: ToolIn, place: int) -> Tool:
    if tool.type not in (None, "custom"):
        raise InvalidRequestError(
            f"The tool {tool.name!r} is of the type {tool.type!r}, which Anthropic's servers run; this server knows tools with an "
            "input_schema, which the client runs.", param=f"tools.{place}",
        )  # fmt: skip
    return Tool(tool.name, tool.description or "", tool.input_schema or {}, bool(tool.strict))


def _system(system: str | Sequence[Block] | None) -> list[Message]:
    if system is None or isinstance(system, str):
        return [Message("system", system)] if system else []
    text = _text([block for block in system if not (block.text or "").startswith(BILLING)], "system")
    return [Message("system", text)] if text else []


def _turns(messages: Sequence[MessageIn]) -> Iterator[tuple[str, list[tuple[int, Block]]]]:
    """Each turn's role and blocks, with the number of the message that holds them; neighbours of one role are one turn."""
    for role, group in groupby(enumerate(messages), lambda entry: entry[1].role):
        blocks = []
        for place, message in group:
            content = message.content
            blocks += [(place, block) for block in ([Block(type="text", text=content)] if isinstance(content, str) else content)]
        yield role, blocks


def _turn(role: str, blocks: Sequence[tuple[int, Block]]) -> list[Message]:
    """A turn as messages: results of tools are messages of their own, before and between what the user says."""
    if role == "assistant":
        return [_assistant(blocks)]
    messages: list[Message] = []
    for results, group in groupby(blocks, lambda entry: entry[1].type == "tool_result"):
        if results:
            messages += [_result(block, place) for place, block in group]
        else:
            texts = list(group)
            content = _text([block for _, block in texts], f"messages.{texts[0][0]}.content")
            messages.append(Message("system" if role == "system" else "user", content))
    return messages


def _assistant(blocks: Sequence[tuple[int, Block]]) -> Message:
    texts: list[Block] = []
    thoughts: list[str] = []
    calls: list[ToolCall] = []
    for place, block in blocks:
        if block.type == "thinking":
            thoughts.append(block.thinking or carried(block.signature or "") or "")
        elif block.type == "tool_use":
            if block.name is None:
                raise InvalidRequestError("A tool_use block must name its tool.", param=f"messages.{place}.content")
            calls.append(ToolCall(block.id or "", block.name, dump(block.input or {})))
        elif block.type != "redacted_thinking":  # it is encrypted, for others
            texts.append(block)
    content = _text(texts, f"messages.{blocks[0][0]}.content" if blocks else "messages")
    return Message("assistant", content, BETWEEN.join(filter(None, thoughts)) or None, tuple(calls))


def _result(block: Block, place: int) -> Message:
    if block.tool_use_id is None:
        raise InvalidRequestError("A tool_result block must say of which tool_use_id.", param=f"messages.{place}.content")
    content = block.content
    text = (content or "") if not isinstance(content, list) else _text(content, f"messages.{place}.content")
    return Message("tool", f"Error: {text}" if block.is_error else text, tool_call_id=block.tool_use_id)


def _text(blocks: Sequence[Block], param: str) -> str:
    for block in blocks:
        if block.type != "text":
            raise InvalidRequestError(f"This model reads text; a block of the type {block.type!r} is more than it can do.", param=param)
    return BETWEEN.join(block.text for block in blocks if block.text)
