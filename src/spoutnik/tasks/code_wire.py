"""The sides of the judging of code, as text for two sandboxed programs that talk over descriptor 3. Imports the standard library only.

The tests run in one process and the answer in another. So an answer cannot read what is expected of it, replace `assert` or `==`, or end
the tests with a friendly exit status: it can only return values. Values cross as JSON with marks for types, never as pickles.
"""

import ast
import builtins
import json
import math
import os
import random
import sys
from collections.abc import Callable, Iterator
from typing import Any

_CHANNEL, _LENGTH_BYTES, _LONGEST = 3, 4, 1 << 26
_CALLS, _VARIANTS, _LEAST = 12, 4, 4
AGREES, DIFFERS, UNSURE = 0, 3, 4


def encode(value: Any) -> Any:
    """A value as JSON: numbers, texts, bytes, lists, tuples, sets and dicts, nested; raises TypeError for any other type."""
    if value is None:
        return None
    plain: type[Any]
    for plain in (bool, int, float, str):
        if isinstance(value, plain):
            return plain(value)
    if isinstance(value, complex):
        return ["complex", value.real, value.imag]
    if isinstance(value, bytes | bytearray):
        return [type(value).__name__, value.hex()]
    if isinstance(value, dict):
        return ["dict", [[encode(key), encode(item)] for key, item in value.items()]]
    for kind in (list, tuple, set, frozenset):
        if isinstance(value, kind):
            return [kind.__name__, [encode(item) for item in value]]
    raise TypeError(f"a value of type {type(value).__name__} cannot be passed between an answer and its tests")


def decode(data: Any) -> Any:
    """The inverse of `encode`; what is not its result raises an exception."""
    if not isinstance(data, list):
        return data
    kind, *parts = data
    if kind == "complex":
        return complex(*parts)
    if kind == "bytes":
        return bytes.fromhex(parts[0])
    if kind == "bytearray":
        return bytearray.fromhex(parts[0])
    if kind == "dict":
        return {decode(key): decode(item) for key, item in parts[0]}
    return {"list": list, "tuple": tuple, "set": set, "frozenset": frozenset}[kind](decode(item) for item in parts[0])


def send(message: Any) -> None:
    data = json.dumps(message).encode()
    data = len(data).to_bytes(_LENGTH_BYTES, "big") + data
    while data:
        data = data[os.write(_CHANNEL, data) :]


def receive() -> Any:
    """The next message; raises EOFError when the other side is gone."""
    length = int.from_bytes(_exactly(_LENGTH_BYTES), "big")
    if length > _LONGEST:
        raise ValueError(f"a message of {length} bytes")
    return json.loads(_exactly(length))


def _exactly(size: int) -> bytes:
    data = bytearray()
    while len(data) < size:
        part = os.read(_CHANNEL, size - len(data))
        if not part:
            raise EOFError("the answer's process ended")
        data += part
    return bytes(data)


def serve(prompt: str, answer: str, entry_point: str) -> None:
    """The answer's side: makes the function, then calls it as it is told. An answer without the function continues the prompt."""
    sys.set_int_max_str_digits(0)
    names: dict[str, Any] = {"__name__": "answer"}
    try:
        if _defines(answer, entry_point):
            _try(prompt, names)
            exec(compile(answer, "answer.py", "exec"), names)
        else:
            exec(compile(prompt + answer, "answer.py", "exec"), names)
        function = names[entry_point]
    except Exception as error:
        send({"error": [type(error).__name__, str(error)]})
        raise
    while True:
        positional, named = receive()
        try:
            reply = {"value": encode(function(*decode(positional), **decode(named)))}
        except Exception as error:
            reply = {"error": [type(error).__name__, str(error)]}
        send(reply)


def _defines(source: str, name: str) -> bool:
    try:
        body = ast.parse(source).body
    except SyntaxError:
        return False
    targets = [target for node in body if isinstance(node, ast.Assign) for target in node.targets]
    return any(getattr(node, "name", None) == name for node in body) or any(getattr(target, "id", None) == name for target in targets)


def _try(prompt: str, names: dict[str, Any]) -> None:
    """The prompt's imports and helpers, if it is whole by itself: a function may end after its description."""
    try:
        code = compile(prompt, "prompt.py", "exec")
    except SyntaxError:
        return
    exec(code, names)


def judge() -> None:
    """The tests' side, told by its input: ends with status 0 only if every test passes."""
    sys.set_int_max_str_digits(0)
    _test(json.loads(sys.stdin.read()), _ask)


def _test(task: dict[str, Any], function: Callable[..., Any]) -> None:
    names: dict[str, Any] = {"__name__": "tests"}
    _try(task["prompt"], names)
    names[task["entry_point"]] = function
    exec(compile(task["test"], "tests.py", "exec"), names)
    if "check" in names:
        names["check"](function)


def compare() -> None:
    """The second judge's side: ends with AGREES if the answer does what the solution does on all other inputs, with DIFFERS if on fewer
    than half.

    Between them, and where too few inputs could be tried, it ends with UNSURE. The answer's process shares the output, but not the status.
    """
    sys.set_int_max_str_digits(0)
    task = json.loads(sys.stdin.read())
    names: dict[str, Any] = {"__name__": "solution"}
    exec(compile(task["solution"], "solution.py", "exec"), names)
    solution = names[task["entry_point"]]
    calls: dict[str, None] = {}

    def noted(*positional: Any, **named: Any) -> Any:
        calls[json.dumps([encode(positional), encode(named)])] = None
        return solution(*positional, **named)

    _test(task, noted)
    agreed = tried = 0
    for call in _others(list(calls)):
        positional, named = map(decode, json.loads(call))
        try:
            wanted = decode(encode(solution(*positional, **named)))
        except Exception:  # no input that the problem means
            continue
        tried += 1
        positional, named = map(decode, json.loads(call))
        try:
            agreed += _alike(wanted, _ask(*positional, **named))
        except Exception:
            continue
    sys.exit(UNSURE if tried < _LEAST else AGREES if agreed == tried else DIFFERS if 2 * agreed < tried else UNSURE)


def _others(calls: list[str]) -> Iterator[str]:
    """Inputs a little different from those of the calls, and none of these."""
    rng, seen = random.Random(0), set(calls)
    for call in rng.sample(calls, min(len(calls), _CALLS)):
        for _ in range(_VARIANTS):
            positional, named = map(decode, json.loads(call))
            changed = json.dumps([encode(_vary(positional, rng) if positional else positional), encode(named)])
            if changed not in seen:
                seen.add(changed)
                yield changed


def _vary(values: tuple[Any, ...], rng: random.Random) -> tuple[Any, ...]:
    """One of the arguments changed, and each other one as often as not."""
    chosen = rng.randrange(len(values))
    return tuple(_changed(value, rng) if place == chosen or rng.random() < 0.5 else value for place, value in enumerate(values))


def _changed(value: Any, rng: random.Random) -> Any:
    """Something of the same type and kind: numbers keep their sign."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int | float):
        return value + (-1 if value < 0 else 1) * type(value)(rng.randint(1, 3))
    if isinstance(value, dict) and value:
        key = rng.choice(list(value))
        return {**value, key: _changed(value[key], rng)}
    if isinstance(value, set | frozenset) and value:
        return type(value)(rng.sample(sorted(value, key=repr), len(value) - 1))
    if isinstance(value, str | list | tuple) and value:
        return _reshaped(value, rng)
    return value


def _reshaped(value: Any, rng: random.Random) -> Any:
    """A text, list or tuple without one of its parts, with one twice, turned around one, or with one changed."""
    place, way = rng.randrange(len(value)), rng.randrange(4)
    before, one, after = value[:place], value[place : place + 1], value[place + 1 :]
    if way == 0:
        return before + after
    if way == 1:
        return before + one + one + after
    if way == 2 or isinstance(value, str):
        return after + one + before
    return before + type(value)([_changed(one[0], rng)]) + after


def _alike(first: Any, second: Any) -> bool:
    """Equal, floats up to rounding."""
    if isinstance(first, float) and isinstance(second, int | float):
        return first == second or math.isclose(first, second, rel_tol=1e-6, abs_tol=1e-9)
    if isinstance(first, list | tuple) and type(first) is type(second):
        return len(first) == len(second) and all(map(_alike, first, second))
    return bool(first == second)


def _ask(*positional: Any, **named: Any) -> Any:
    """Calls the answer's function: its value, or its exception where that is one of Python's own."""
    send([encode(positional), encode(named)])
    reply = receive()
    if "error" in reply:
        name, words = reply["error"]
        kind = getattr(builtins, str(name), None)
        raise (kind if isinstance(kind, type) and issubclass(kind, Exception) else RuntimeError)(str(words))
    return decode(reply["value"])
