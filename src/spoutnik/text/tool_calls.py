"""Function calls in what a model writes: each family has its own way, and its chat template tells which.

| format | what a call looks like | families |
| --- | --- | --- |
| `hermes` | `<tool_call>{"name": ..., "arguments": {...}}</tool_call>` | Hermes, Qwen2.5, Qwen3; templates that know no tools |
| `deepseek` | `<｜tool▁call▁begin｜>name<｜tool▁sep｜>{...}<｜tool▁call▁end｜>` between `calls▁begin` and `calls▁end` | DeepSeek-V3.1 |
| `deepseek-r1` | the same with `function<｜tool▁sep｜>name` and the arguments in a code block | DeepSeek-V3, DeepSeek-R1 |
| `mistral` | `[TOOL_CALLS][{"name": ..., "arguments": {...}}, ...]` | Mistral |
| `qwen-coder` | `<tool_call><function=name><parameter=key>value</parameter></function></tool_call>`, values as they are | Qwen3-Coder |
| `dsml` | `<｜DSML｜tool_calls><｜DSML｜invoke name="name"><｜DSML｜parameter name="key" string="true">value</...` | DeepSeek-V4 |
| `dsml-v3.2` | the same between `<｜DSML｜function_calls>` and its end | DeepSeek-V3.2 |
| `llama` | the whole answer is `{"name": ..., "parameters": {...}}` | Llama 3.1 and later |

Text around calls is content; white space next to a call is not. What begins like a call and is none is content, too, as far as no call was
reported.
"""  # noqa: RUF002

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from spoutnik.text.markup_call import DSML, DSML_MARKUP, QWEN_MARKUP, MarkupCalls, Schemas
from spoutnik.text.tool_parsers import (
    HERMES,
    HERMES_END,
    MISTRAL,
    SECTION,
    SECTION_END,
    Bracketed,
    FencedSection,
    List,
    Section,
    Single,
    ToolParser,
    Whole,
)  # fmt: skip

DSML_BLOCKS = {"dsml": f"{DSML}tool_calls", "dsml-v3.2": f"{DSML}function_calls"}
"""What the calls of an answer stand in, in both versions of DeepSeek's markup."""


@dataclass(frozen=True)
class ToolFormat:
    """How a family writes calls."""

    name: str
    text_arguments: bool = False
    """Whether the template wants the arguments of earlier calls as JSON text, rather than as an object."""
    described: bool = False
    """Whether the template knows no tools, so that a system message has to describe them."""
    schemas: Schemas = field(default_factory=dict)
    """Of the parameters of the functions there are, for formats that do not tell strings from other values."""

    def parser(self) -> ToolParser:
        """A parser for one answer."""
        if self.name == "llama":
            return Whole()
        if self.name == "mistral":
            return Bracketed(MISTRAL, "", List)
        if self.name == "deepseek":
            return Bracketed(SECTION, SECTION_END, Section)
        if self.name == "deepseek-r1":
            return Bracketed(SECTION, SECTION_END, FencedSection)
        if self.name == "qwen-coder":
            return Bracketed(HERMES, HERMES_END, partial(MarkupCalls, QWEN_MARKUP, self.schemas))
        if self.name in DSML_BLOCKS:
            block = DSML_BLOCKS[self.name]
            return Bracketed(f"<{block}>", f"</{block}>", partial(MarkupCalls, DSML_MARKUP, self.schemas))
        return Bracketed(HERMES, HERMES_END, Single)


def choose(template: str) -> ToolFormat:
    """The format that a chat template writes earlier calls in; one that knows no tools gets them described in Hermes' format."""
    if SECTION in template:
        fenced = "```json" in template
        return ToolFormat("deepseek-r1" if fenced else "deepseek", text_arguments=True)
    for name, block in DSML_BLOCKS.items():
        if f"<{block}>" in template:
            return ToolFormat(name)
    if MISTRAL in template:
        return ToolFormat("mistral")
    if HERMES in template and "<function=" in template:
        return ToolFormat("qwen-coder")
    if HERMES in template:
        return ToolFormat("hermes")
    if "tools" in template and "parameters" in template and "<|start_header_id|>" in template:
        return ToolFormat("llama")
    return ToolFormat("hermes", described="tools" not in template)


def describe(tools: Sequence[Mapping[str, Any]]) -> str:
    """What a model is told of its functions where its template has no words for them."""
    listed = "\n".join(json.dumps(tool["function"], ensure_ascii=False) for tool in tools)
    return (
        "You may call functions. Each line describes one, with a JSON schema of its parameters:\n"
        f"{listed}\n"
        "To call one, write its name and arguments as a JSON object between tags, and nothing after it:\n"
        f'{HERMES}\n{{"name": "the function", "arguments": {{"a parameter": "its value"}}}}\n{HERMES_END}'
    )


def written(name: str, arguments: str) -> str:
    """An earlier call as `describe` asks for it."""
    return f'{HERMES}\n{{"name": {json.dumps(name, ensure_ascii=False)}, "arguments": {arguments or "{}"}}}\n{HERMES_END}'
