"""The program's own process: its descriptors, what Python shows it, and its code as `__main__`."""

import io
import linecache
import os
import sys
import traceback
import types

from spoutnik.sandbox import jail
from spoutnik.sandbox.limits import Limits

FILE = "program.py"
CHANNEL = 3
"""The descriptor that joins a program and its partner."""


class Start(BaseException):  # noqa: N818
    """Raised in a program's process: leaves all frames of the runner, so that the program ends as any Python program does."""

    def __init__(self, source: str) -> None:
        self.source = source


def become(source: int, descriptors: list[int], protections: frozenset[str], limits: Limits, held_bytes: int) -> None:
    """Turns this process into the program read from `source`, with `descriptors` as 0, 1, 2 and perhaps CHANNEL; raises Start."""
    text = _read(source)
    for number, descriptor in enumerate([os.dup(descriptor) for descriptor in descriptors]):
        os.dup2(descriptor, number)
    os.closerange(len(descriptors), 1 << 16)
    os.environ.clear()
    os.environ.update(HOME=jail.WORK, LANG="C.UTF-8", TMPDIR=jail.WORK)
    jail.give_up(protections, limits, held_bytes)
    raise Start(text)


def _read(source: int) -> str:
    with open(os.dup(source), "rb") as file:
        file.seek(0)
        return file.read().decode("utf-8", "surrogatepass")


def run(source: str) -> None:
    """Runs the text as `__main__`; an exception that nobody caught is printed and ends with status 1."""
    sys.argv = [FILE]
    sys.stdin = io.TextIOWrapper(open(0, "rb"), encoding="utf-8", errors="surrogateescape")  # noqa: SIM115
    sys.stdout = io.TextIOWrapper(open(1, "wb"), encoding="utf-8", errors="surrogateescape")  # noqa: SIM115
    sys.stderr = io.TextIOWrapper(open(2, "wb", 0), encoding="utf-8", errors="backslashreplace", write_through=True)  # noqa: SIM115
    for name in [name for name in sys.modules if name.split(".")[0] == "spoutnik"]:
        del sys.modules[name]
    main = sys.modules["__main__"] = types.ModuleType("__main__")
    linecache.cache[FILE] = (len(source), None, source.splitlines(keepends=True), FILE)
    try:
        exec(compile(source, FILE, "exec", dont_inherit=True), main.__dict__)
    except Exception as error:
        if error.__traceback__ is not None:
            error.__traceback__ = error.__traceback__.tb_next
        traceback.print_exception(error)
        sys.exit(1)
