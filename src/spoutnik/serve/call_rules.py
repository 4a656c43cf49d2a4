"""Grammars of function calls, in every family's way of writing them (see `text/tool_calls.py`)."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from spoutnik.serve.conversation import Tool
from spoutnik.serve.lark import Lark, as_json
from spoutnik.text.markup_call import DSML, is_string
from spoutnik.text.tool_calls import DSML_BLOCKS
from spoutnik.text.tool_parsers import CALL, CALL_END, FENCE, HERMES, HERMES_END, MISTRAL, SECTION, SECTION_END, SEPARATOR

NAME = "/[A-Za-z0-9_.-]{1,128}/"


@dataclass(frozen=True)
class Family:
    """What stands around calls."""

    mark: str
    """Tells that calls begin; nothing where an answer is a call from its first character on, or none."""
    rest: str
    """What follows the mark."""
    end: str
    between: str
    each: bool = False
    """Whether every call has mark and end for itself."""


FAMILIES: Mapping[str, Family] = {
    "hermes": Family(HERMES, "\n", HERMES_END, "\n", each=True),
    "qwen-coder": Family(HERMES, "\n", HERMES_END, "\n", each=True),
    "mistral": Family(MISTRAL, "[", "]", ", "),
    "deepseek": Family(SECTION, "", SECTION_END, ""),
    "deepseek-r1": Family(SECTION, "", SECTION_END, ""),
    "llama": Family("", "", "", "; "),
    **{name: Family(f"<{block}>", "\n", f"</{block}>", "") for name, block in DSML_BLOCKS.items()},
}


def rules_of_calls(tools: Sequence[Tool], family: str, several: bool, lark: Lark) -> list[str]:
    """The rules `calls`, all from the first mark on, and `after`, the same behind the first mark. They need `TEXT`."""
    marks = FAMILIES[family]
    opening, end, between = lark.literal(marks.mark, marks.rest), lark.literal(marks.end), lark.literal(marks.between)
    behind, one = lark.literal(marks.rest), f"{opening} call {end}" if marks.each else "call"
    more = f"({between} {one})*" if several else ""
    first = f"call {end} {more}" if marks.each else f"call {more} {end}"
    rules = [f"calls: {opening} {first}", f"after: {behind} {first}"]
    rules.append("call: " + " | ".join(f"call_{place}" for place in range(len(tools))))
    for place, tool in enumerate(tools):
        rules += _call(tool, f"_{place}", family, lark)
    return rules


def _call(tool: Tool, suffix: str, family: str, lark: Lark) -> list[str]:
    """The rule `call` + suffix, and those that it needs."""
    if family == "qwen-coder":
        head, tail = f"<function={tool.name}>\n", "</function>\n"
        return _marked_up(tool, suffix, lark, head, tail, "<parameter={}>\n", "</parameter>", typed=False)
    if family in DSML_BLOCKS:
        head, tail = f'<{DSML}invoke name="{tool.name}">\n', f"</{DSML}invoke>\n"
        return _marked_up(tool, suffix, lark, head, tail, f'<{DSML}parameter name="{{}}"', f"</{DSML}parameter>", typed=True)
    name, key = json.dumps(tool.name), "parameters" if family == "llama" else "arguments"
    head, tail = f'{{"name": {name}, "{key}": ', "}\n" if family == "hermes" else "}"
    if family == "deepseek":
        head, tail = f"{CALL}{tool.name}{SEPARATOR}", CALL_END
    elif family == "deepseek-r1":
        head, tail = f"{CALL}function{SEPARATOR}{tool.name}\n{FENCE}", f"\n```{CALL_END}"
    arguments = as_json({"type": "object", **tool.parameters})
    return [f"call{suffix}: {lark.literal(head)} arguments{suffix} {lark.literal(tail)}", f"arguments{suffix}: {arguments}"]


def _marked_up(tool: Tool, suffix: str, lark: Lark, head: str, tail: str, opening: str, closing: str, typed: bool) -> list[str]:
    """A call whose parameters have tags of their own: those of the schema, in its order. `typed` tags say what is a string.

    Of strings only `enum` and `const` are held to. Where the schema names no parameters, any may come.
    """
    schema = _resolved(tool.parameters)
    properties = schema.get("properties")
    rules: list[str] = []
    if not isinstance(properties, Mapping) or not properties:
        parts = []
        if schema.get("additionalProperties") is not False:
            before, after = opening.split("{}")
            shown = f'{after} string="true">' if typed else after
            parts = [f"({lark.literal(before)} {NAME} {lark.literal(shown)} value{suffix} {_newline(lark)})*"]
            rules = lark.until(f"value{suffix}", closing)
    else:
        parts, required = [], schema.get("required")
        for place, (name, wanted) in enumerate(properties.items()):
            value = f"value{suffix}_{place}"
            string = is_string(wanted)
            shown = opening.format(name) + (f' string="{json.dumps(string)}">' if typed else "")
            part = f"{lark.literal(shown)} {value} {_newline(lark)}"
            parts.append(part if isinstance(required, list) and name in required else f"({part})?")
            rules += _value(value, wanted, string, schema, "" if typed else "\n", closing, lark)
    return [f"call{suffix}: {lark.literal(head)} {' '.join(parts)} {lark.literal(tail)}", *rules]


def _value(rule: str, wanted: Any, string: bool, root: Mapping[str, Any], line: str, closing: str, lark: Lark) -> list[str]:
    """A parameter's value with its closing tag; `line` stands between them."""
    end = lark.literal(line, closing)
    if string and ("enum" in wanted or "const" in wanted):
        choices = wanted.get("enum", [wanted.get("const")])
        return [f"{rule}: ({' | '.join(lark.literal(choice) for choice in choices)}) {end}"]
    if string:
        return lark.until(rule, closing)
    definitions = {key: root[key] for key in ("$defs", "definitions") if key in root}
    return [f"{rule}: {rule}_json {end}", f"{rule}_json: {as_json({**definitions, **wanted} if isinstance(wanted, Mapping) else {})}"]


def _resolved(schema: Mapping[str, Any]) -> Mapping[str, Any]:
    """The schema, or what it refers to, with its definitions."""
    reference = schema.get("$ref")
    if not isinstance(reference, str):
        return schema
    place: Any = schema
    for key in reference.removeprefix("#/").split("/"):
        place = place.get(key) if isinstance(place, Mapping) else None
    definitions = {key: schema[key] for key in ("$defs", "definitions") if key in schema}
    return {**definitions, **place} if isinstance(place, Mapping) else schema


def _newline(lark: Lark) -> str:
    return lark.literal("\n")
