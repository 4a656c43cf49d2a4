"""What clients of OpenAI's dialect send. Unknown fields are ignored; a known one of a wrong type is a 400."""

from typing import Annotated, Any, Literal

from pydantic import Field
from pydantic import Strict as Exactly

from spoutnik.serve.exact import Integer, Strict, Whole

Stop = str | list[str] | None
Prompts = str | list[str] | list[Integer] | list[list[Integer]]
"""One text or several, or their tokens."""
UserId = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,512}$")]
TokenId = Annotated[int, Exactly(False), Field(json_schema_extra={"pattern": "^[0-9]{1,9}$"})]
"""As a key of an object it is text."""
Number = Annotated[float, Field(allow_inf_nan=False)]
Biases = Annotated[dict[TokenId, Annotated[Number, Field(ge=-100, le=100)]], Field(json_schema_extra={"additionalProperties": False})]


class ContentPart(Strict):
    """A part of a message. This server reads text alone."""

    type: str
    text: str | None = None
    refusal: str | None = None


class FunctionCall(Strict):
    """A call that the assistant made: its arguments are JSON text."""

    name: str
    arguments: str = "{}"


class ToolCallIn(Strict):
    """A tool call in an assistant's message."""

    id: str = ""
    type: str = "function"
    function: FunctionCall


class ChatMessage(Strict):
    """One message."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | list[ContentPart] | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    tool_calls: list[ToolCallIn] | None = None
    tool_call_id: str | None = None
    prefix: bool | None = False


class FunctionDefinition(Strict):
    """A function that the model may call."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]{1,128}$")]
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class ToolDefinition(Strict):
    """A tool; functions are the only kind here."""

    type: Literal["function"] = "function"
    function: FunctionDefinition


class NamedFunction(Strict):
    """A function's name."""

    name: str


class NamedTool(Strict):
    """The one function that must be called."""

    type: Literal["function"] = "function"
    function: NamedFunction


class StreamOptions(Strict):
    """What else a stream tells."""

    include_usage: bool | None = False


class ThinkingSwitch(Strict):
    """DeepSeek's switch."""

    type: Literal["enabled", "disabled", "adaptive"] = "enabled"
    budget_tokens: Annotated[int, Field(ge=0), Whole] | None = None


class JsonSchema(Strict):
    """A schema for the answer."""

    name: str = ""
    schema_: Annotated[dict[str, Any] | None, Field(alias="schema")] = None
    strict: bool | None = None


class ResponseFormat(Strict):
    """What shape the answer is to have."""

    type: Literal["text", "json_object", "json_schema"] = "text"
    json_schema: JsonSchema | None = None


class SamplingFields(Strict):
    """What chat and completions share."""

    model: str
    max_tokens: Annotated[int, Field(ge=0), Whole] | None = None
    temperature: Annotated[Number, Field(ge=0, le=2)] | None = None
    top_p: Annotated[Number, Field(gt=0, le=1)] | None = None
    top_k: Annotated[int, Field(ge=-1), Whole] | None = None
    min_p: Annotated[Number, Field(ge=0, le=1)] | None = None
    presence_penalty: Annotated[Number, Field(ge=-2, le=2)] | None = None
    frequency_penalty: Annotated[Number, Field(ge=-2, le=2)] | None = None
    repetition_penalty: Annotated[Number, Field(gt=0)] | None = None
    logit_bias: Biases | None = None
    n: Annotated[int, Field(ge=1), Whole] | None = None
    stop: Stop = None
    seed: Integer | None = None
    stream: bool | None = False
    stream_options: StreamOptions | None = None
    user_id: UserId | None = None


class ChatRequest(SamplingFields):
    """POST /chat/completions."""

    messages: Annotated[list[ChatMessage], Field(min_length=1)]
    max_tokens: Annotated[int, Field(ge=1), Whole] | None = None
    max_completion_tokens: Annotated[int, Field(ge=1), Whole] | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0), Whole] | None = None
    tools: list[ToolDefinition] | None = None
    tool_choice: Literal["none", "auto", "required"] | NamedTool | None = None
    parallel_tool_calls: bool | None = None
    response_format: ResponseFormat | None = None
    thinking: ThinkingSwitch | None = None
    reasoning_effort: str | None = None
    chat_template_kwargs: dict[str, Any] | None = None


class CompletionRequest(SamplingFields):
    """POST /completions."""

    prompt: Prompts
    suffix: str | None = None
    echo: bool | None = False
    logprobs: Annotated[int, Field(ge=0), Whole] | None = None


class EmbeddingRequest(Strict):
    """POST /embeddings."""

    model: str
    input: Prompts
    encoding_format: Literal["float", "base64"] | None = "float"
    dimensions: Annotated[int, Field(ge=1), Whole] | None = None
    user_id: UserId | None = None
