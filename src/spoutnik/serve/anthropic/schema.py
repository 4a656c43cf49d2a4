"""What clients of Anthropic's dialect send. Unknown fields are ignored; a known one of a wrong type is a 400."""

from typing import Annotated, Any, Literal

from pydantic import Field

from spoutnik.serve.exact import Strict, Whole

Number = Annotated[float, Field(allow_inf_nan=False)]


class Block(Strict):
    """A block of content; which fields it has, its type says."""

    type: str
    text: str | None = None
    thinking: str | None = None
    signature: str | None = None
    id: str | None = None
    name: str | None = None
    input: dict[str, Any] | None = None
    tool_use_id: str | None = None
    content: "str | list[Block] | None" = None
    is_error: bool | None = None


class MessageIn(Strict):
    """One turn."""

    role: Literal["user", "assistant", "system"]
    content: str | list[Block]


class ToolIn(Strict):
    """A tool: a function of the client's, unless its type says that it runs on Anthropic's servers."""

    type: str | None = None
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]{1,128}$")]
    description: str | None = None
    input_schema: dict[str, Any] | None = None
    strict: bool | None = None


class ToolChoice(Strict):
    """Whether a tool is to be used."""

    type: Literal["auto", "any", "tool", "none"] = "auto"
    name: str | None = None
    disable_parallel_tool_use: bool | None = None


class ThinkingConfig(Strict):
    """Whether to think, how much, and whether to tell."""

    type: Literal["enabled", "disabled", "adaptive", "between_tools"]
    budget_tokens: Annotated[int, Field(ge=0), Whole] | None = None
    display: Literal["summarized", "omitted"] | None = None


class OutputFormat(Strict):
    """A schema for the answer."""

    type: Literal["json_schema"]
    schema_: Annotated[dict[str, Any], Field(alias="schema")]


class OutputConfig(Strict):
    """How much effort to make, and what shape the answer is to have."""

    effort: str | None = None
    format: OutputFormat | None = None


class Metadata(Strict):
    """About the request."""

    user_id: Annotated[str, Field(max_length=512)] | None = None


class CountRequest(Strict):
    """POST /v1/messages/count_tokens."""

    model: str
    messages: Annotated[list[MessageIn], Field(min_length=1)]
    system: str | list[Block] | None = None
    tools: list[ToolIn] | None = None
    tool_choice: ToolChoice | None = None
    thinking: ThinkingConfig | None = None
    output_config: OutputConfig | None = None


class MessagesRequest(CountRequest):
    """POST /v1/messages."""

    max_tokens: Annotated[int, Field(ge=1), Whole]
    stop_sequences: list[str] | None = None
    stream: bool | None = False
    temperature: Annotated[Number, Field(ge=0, le=2)] | None = None
    top_p: Annotated[Number, Field(gt=0, le=1)] | None = None
    top_k: Annotated[int, Field(ge=0), Whole] | None = None
    metadata: Metadata | None = None
