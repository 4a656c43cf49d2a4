"""Bounds that hold for requests in every dialect. Each check raises InvalidRequestError."""

from collections.abc import Mapping, Sequence
from typing import Any

from spoutnik.serve.conversation import Tool
from spoutnik.serve.errors import InvalidRequestError
from spoutnik.serve.responses import dump
from spoutnik.serve.settings import EFFORTS, Effort, Settings


def check_stops(strings: Sequence[str], settings: Settings, param: str) -> tuple[str, ...]:
    """The strings at which an answer ends."""
    if len(strings) > settings.most_stops:
        raise InvalidRequestError(
            f"{param} holds {len(strings)} strings; this server looks for at most {settings.most_stops}.", param=param
        )
    if not all(strings):
        raise InvalidRequestError(f"{param} holds an empty string, which would end every answer at once; leave it out.", param=param)
    return tuple(strings)


def check_likeliest(count: int | None, settings: Settings, param: str) -> int | None:
    """How many of the likeliest tokens are told."""
    if (count or 0) > settings.most_logprobs:
        raise InvalidRequestError(
            f"{count} likeliest tokens are asked for; this server tells at most {settings.most_logprobs}.", param=param
        )
    return count


def check_tools(tools: Sequence[Tool], settings: Settings, schema_param: str) -> tuple[Tool, ...]:
    """The functions; `schema_param` names a schema's field, with {} for its tool's number."""
    if len(tools) > settings.most_tools:
        raise InvalidRequestError(f"There are {len(tools)} tools; this server takes at most {settings.most_tools}.", param="tools")
    for place, tool in enumerate(tools):
        check_schema(tool.parameters, settings, schema_param.format(place))
    if len({tool.name for tool in tools}) < len(tools):
        raise InvalidRequestError("Two tools have the same name.", param="tools")
    return tuple(tools)


def check_choice(must_call: bool, name: str | None, tools: Sequence[Tool]) -> None:
    """A call that must be made, perhaps of the function `name`, needs a function."""
    if name is not None and name not in {tool.name for tool in tools}:
        raise InvalidRequestError(f"tool_choice names {name!r}, which is not among the tools.", param="tool_choice")
    if must_call and not tools:
        raise InvalidRequestError("tool_choice asks for a call, but there are no tools.", param="tool_choice")


def check_schema(schema: Mapping[str, Any], settings: Settings, param: str) -> Mapping[str, Any]:
    """A schema that is neither too deep nor too large."""
    level: list[Any] = [schema]
    for _ in range(settings.most_schema_depth):
        level = [
            inner for value in level if isinstance(value, dict | list) for inner in (value.values() if isinstance(value, dict) else value)
        ]
    if level:
        raise InvalidRequestError(f"The schema is nested deeper than the {settings.most_schema_depth} levels allowed here.", param=param)
    size = len(dump(schema))
    if size > settings.most_schema_bytes:
        raise InvalidRequestError(f"The schema has {size} bytes; this server reads at most {settings.most_schema_bytes}.", param=param)
    return schema


def check_effort(name: str, param: str) -> Effort:
    """How much to think, by any of the names that clients use."""
    effort = EFFORTS.get(name)
    if effort is None:
        raise InvalidRequestError(f"{param} is {name!r}; it must be one of {', '.join(['none', *EFFORTS])}.", param=param)
    return effort
