"""Grammars of JSON answers and of calls that must be made, in llguidance's dialect of Lark."""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from spoutnik.serve.backend import Shape
from spoutnik.serve.conversation import Conversation, Tool
from spoutnik.serve.endless import check_finite
from spoutnik.serve.rendering import Prompt
from spoutnik.text.tokenizer import Tokenizer
from spoutnik.text.tool_calls import ToolFormat
from spoutnik.text.tool_parsers import CALL, CALL_END, FENCE, HERMES, HERMES_END, MISTRAL, SECTION, SECTION_END, SEPARATOR

COMPACT = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}
"""One way of writing JSON: a small model that may write white space anywhere may write nothing else."""


def shape_of(conversation: Conversation, prompt: Prompt, tokenizer: Tokenizer) -> Shape | None:
    """What the answer must be: JSON, or a call, or (None) anything."""
    wanted = conversation.tools if prompt.tools is not None else ()
    must_call = bool(wanted) and conversation.tool_choice == "required"
    if not must_call and conversation.schema is None:
        return None
    choices, rules = [], ["gap: /[ \\n]{0,2}/"]
    if wanted:
        assert prompt.tools is not None
        chosen = [tool for tool in wanted if conversation.tool_name in (None, tool.name)]
        rules += _calls(chosen, prompt.tools, conversation.parallel_calls and conversation.tool_name is None, tokenizer)
        choices.append("calls")
    if not must_call:
        assert conversation.schema is not None
        rules.append(f"shaped: {_json(conversation.schema)}")
        choices.append("shaped")
    between = "gap " if prompt.thinking else ""  # the thinking and what follows
    return Shape("\n".join([f"start: {between}({' | '.join(choices)})", *rules]), prompt.thinking)


def _calls(tools: Sequence[Tool], form: ToolFormat, several: bool, tokenizer: Tokenizer) -> list[str]:
    """Rules for one call or more, as the family writes them."""

    def text(*parts: str) -> str:
        return " ".join(_literal(part, tokenizer) for part in parts)

    between, before, after = "\n", "", ""
    rules = []
    for place, tool in enumerate(tools):
        name, arguments = json.dumps(tool.name), f"parameters_{place}"
        key = "parameters" if form.name == "llama" else "arguments"
        head, tail = text(f'{{"name": {name}, "{key}": '), text("}")
        if form.name == "hermes":
            head, tail = text(HERMES, f'\n{{"name": {name}, "arguments": '), text("}\n", HERMES_END)
        elif form.name == "mistral":
            before, between, after = text(MISTRAL, "["), ", ", text("]")
        elif form.name == "llama":
            between = "; "
        elif form.name == "deepseek":
            before, between, after = text(SECTION), "", text(SECTION_END)
            head, tail = text(CALL, tool.name, SEPARATOR), text(CALL_END)
        else:
            before, after = text(SECTION), text(SECTION_END)
            head, tail = text(CALL, "function", SEPARATOR, f"{tool.name}\n{FENCE}"), text("\n```", CALL_END)
        rules.append(f"call_{place}: {head} {arguments} {tail}")
        rules.append(f"{arguments}: {_json({'type': 'object', **tool.parameters})}")
    more = f"({text(between)} call)*" if several else ""
    choice = " | ".join(f"call_{place}" for place in range(len(tools)))
    return [f"calls: {before} call {more} {after}", f"call: {choice}", *rules]


def _json(schema: Mapping[str, Any]) -> str:
    """Raises InvalidRequestError where nothing satisfies the schema."""
    check_finite(schema)
    return f"%json {json.dumps({**schema, 'x-guidance': COMPACT})}"


def _literal(text: str, tokenizer: Tokenizer) -> str:
    """The text as a grammar writes it: tokens that the tokenizer never cuts by their numbers, the rest in quotes."""
    added = {token.content: number for number, token in tokenizer.backend.get_added_tokens_decoder().items()}
    if not added:
        return json.dumps(text, ensure_ascii=False) if text else ""
    parts = re.split("(" + "|".join(re.escape(token) for token in sorted(added, key=len, reverse=True)) + ")", text)
    written = [f"<[{added[part]}]>" if part in added else json.dumps(part, ensure_ascii=False) for part in parts if part]
    return " ".join(written)
