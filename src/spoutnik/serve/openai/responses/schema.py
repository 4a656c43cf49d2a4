"""What clients of the Responses API send. Unknown fields are ignored; a known one of a wrong type is a 400."""

from typing import Annotated, Any, Literal

from pydantic import Field

from spoutnik.serve.exact import Integer, Strict, Whole
from spoutnik.serve.openai.schema import ContentPart, FunctionDefinition, Number, UserId


class Item(Strict):
    """A part of the conversation; which fields it has, its type says. One without a type is a message."""

    type: str = "message"
    role: Literal["system", "developer", "user", "assistant"] | None = None
    content: str | list[ContentPart] | None = None
    call_id: str | None = None
    name: str | None = None
    namespace: str | None = None
    arguments: str | None = None
    output: str | list[ContentPart] | None = None
    summary: list[ContentPart] | None = None
    encrypted_content: str | None = None


class FunctionTool(FunctionDefinition):
    """A function that the model may call."""

    type: Literal["function"]


class Namespace(Strict):
    """Functions that have a name together, as Codex sends them."""

    type: Literal["namespace"]
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")]
    description: str | None = None
    tools: list[FunctionTool]


class OtherTool(Strict):
    """A tool that OpenAI's servers run."""

    type: str


class NamedChoice(Strict):
    """The one function that must be called."""

    type: Literal["function"]
    name: str


class AllowedChoice(Strict):
    """The functions that may, or must, be called."""

    type: Literal["allowed_tools"]
    mode: Literal["auto", "required"]
    tools: list[NamedChoice]


class TextFormat(Strict):
    """What shape the answer is to have."""

    type: Literal["text", "json_object", "json_schema"] = "text"
    name: str | None = None
    description: str | None = None
    strict: bool | None = None
    schema_: Annotated[dict[str, Any] | None, Field(alias="schema")] = None


class TextConfig(Strict):
    """About the answer's text."""

    format: TextFormat | None = None


class ReasoningConfig(Strict):
    """How much to think."""

    effort: str | None = None


class CountRequest(Strict):
    """POST /responses/input_tokens."""

    model: str
    input: Annotated[list[Item], Field(min_length=1)] | str
    instructions: str | None = None
    tools: list[FunctionTool | Namespace | OtherTool] | None = None
    tool_choice: Literal["none", "auto", "required"] | NamedChoice | AllowedChoice | None = None
    parallel_tool_calls: bool | None = None
    text: TextConfig | None = None
    reasoning: ReasoningConfig | None = None
    previous_response_id: str | None = None
    conversation: Any = None
    prompt: Any = None


class ResponsesRequest(CountRequest):
    """POST /responses."""

    stream: bool | None = False
    store: bool | None = None
    background: bool | None = None
    max_output_tokens: Annotated[int, Field(ge=1), Whole] | None = None
    temperature: Annotated[Number, Field(ge=0, le=2)] | None = None
    top_p: Annotated[Number, Field(gt=0, le=1)] | None = None
    top_logprobs: Annotated[int, Field(ge=0), Whole] | None = None
    include: list[str] | None = None
    metadata: dict[str, str] | None = None
    seed: Integer | None = None
    user_id: UserId | None = None
