"""Schemas that no JSON of finite length satisfies, because they refer to themselves and leave no way out.

A grammar of one would let a model write without end, or fail in the midst of its answer.
"""

from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import unquote

from spoutnik.serve.errors import InvalidRequestError

MOST_PASSES = 64
_UNKNOWN = object()


def check_finite(schema: Mapping[str, Any]) -> None:
    """Raises InvalidRequestError where nothing finite satisfies the schema, as far as its references decide that.

    The references that have a finite instance are the least set that agrees with itself; each pass adds those that what is known allows.
    """
    targets = {reference: _target(schema, reference) for reference in set(_references(schema))}
    finite: set[str] = set()
    for number in range(MOST_PASSES):
        before, order = len(finite), list(targets)
        for reference in order if number % 2 else reversed(order):
            if reference not in finite and _finite(targets[reference], finite):
                finite.add(reference)
        if len(finite) == before:
            break
    if not _finite(schema, finite):
        raise InvalidRequestError("The schema refers to itself without an end, so that no JSON can satisfy it; leave it a way out.")


def _finite(schema: Any, known: set[str]) -> bool:
    """Whether something finite satisfies a schema, if only the `known` references have finite instances."""
    if not isinstance(schema, Mapping) or "const" in schema or "enum" in schema:
        return True
    if isinstance(reference := schema.get("$ref"), str) and reference not in known:
        return False
    if not all(_finite(inner, known) for inner in _list(schema.get("allOf"))):
        return False
    for choice in ("anyOf", "oneOf"):
        if (several := _list(schema.get(choice))) and not any(_finite(inner, known) for inner in several):
            return False
    return _object_ends(schema, known) and _array_ends(schema, known)


def _object_ends(schema: Mapping[str, Any], known: set[str]) -> bool:
    properties = schema.get("properties")
    if schema.get("type", "object") != "object" or not isinstance(properties, Mapping):
        return True
    return all(_finite(properties.get(name), known) for name in _list(schema.get("required")) if isinstance(name, str))


def _array_ends(schema: Mapping[str, Any], known: set[str]) -> bool:
    least = schema.get("minItems", 0)
    if schema.get("type", "array") != "array" or not isinstance(least, int | float) or least < 1:
        return True
    first = _list(schema.get("prefixItems"))[: min(int(least), 1 << 16)]
    return all(_finite(inner, known) for inner in first) and (len(first) >= least or _finite(schema.get("items"), known))


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _references(value: Any) -> Iterator[str]:
    for inner in _inside(value):
        if isinstance(inner, Mapping) and isinstance(reference := inner.get("$ref"), str):
            yield reference


def _inside(value: Any) -> Iterator[Any]:
    """All objects and lists of a JSON value, without recursion."""
    left = [value]
    while left:
        value = left.pop()
        if isinstance(value, Mapping):
            yield value
            left += value.values()
        elif isinstance(value, list):
            left += value


def _target(schema: Any, reference: str) -> Any:
    """What a JSON pointer in a reference leads to; what leads nowhere is llguidance's to refuse."""
    if not reference.startswith("#"):
        return _UNKNOWN
    for part in unquote(reference[1:]).split("/")[1:]:
        part = part.replace("~1", "/").replace("~0", "~")
        if isinstance(schema, list) and part.isdecimal() and int(part) < len(schema):
            schema = schema[int(part)]
        elif isinstance(schema, Mapping):
            schema = schema.get(part, _UNKNOWN)
        else:
            return _UNKNOWN
    return schema
