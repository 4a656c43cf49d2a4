"""Both sides of the judging of code, as text for two sandboxed programs that talk over descriptor 3. Imports the standard library only.

The tests run in one process and the answer in another. So an answer cannot read what is expected of it, replace `assert` or `==`, or end
the tests with a friendly exit status: it can only return values. Values cross as JSON with marks for types, never as pickles.
"""

import ast
import builtins
import json
import os
import sys
from typing import Any

_CHANNEL, _LENGTH_BYTES, _LONGEST = 3, 4, 1 << 26


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
    task = json.loads(sys.stdin.read())
    names: dict[str, Any] = {"__name__": "tests"}
    _try(task["prompt"], names)
    names[task["entry_point"]] = _ask
    exec(compile(task["test"], "tests.py", "exec"), names)
    if "check" in names:
        names["check"](_ask)


def _ask(*positional: Any, **named: Any) -> Any:
    """Calls the answer's function: its value, or its exception where that is one of Python's own."""
    send([encode(positional), encode(named)])
    reply = receive()
    if "error" in reply:
        name, words = reply["error"]
        kind = getattr(builtins, str(name), None)
        raise (kind if isinstance(kind, type) and issubclass(kind, Exception) else RuntimeError)(str(words))
    return decode(reply["value"])
