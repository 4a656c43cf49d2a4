"""The program's own process: its descriptors, what Python shows it, and its code as `__main__`."""

import atexit
import contextlib
import fcntl
import io
import linecache
import os
import sys
import traceback
import types
from typing import NoReturn

from spoutnik.sandbox import jail
from spoutnik.sandbox.limits import Limits

FILE = "program.py"
CHANNEL = 3
"""The descriptor that joins a program and its partner."""


_ABOVE = 16


class Start(BaseException):
    """Raised in a program's process: leaves all frames of the runner, so that the program ends as any Python program does."""

    def __init__(self, source: str) -> None:
        self.source = source


def become(source: int, descriptors: list[int], report: int, protections: frozenset[str], limits: Limits, held_bytes: int) -> NoReturn:
    """Turns this process into the program read from `source`, with `descriptors` as 0, 1, 2 and perhaps CHANNEL; raises Start.

    A wall that cannot be built ends the process, and `report` is told; the program does not begin.
    """
    try:
        text = _read(source)
        report = fcntl.fcntl(report, fcntl.F_DUPFD, _ABOVE)
        for number, descriptor in enumerate([fcntl.fcntl(descriptor, fcntl.F_DUPFD, _ABOVE) for descriptor in descriptors]):
            os.dup2(descriptor, number)
        os.closerange(len(descriptors), report)
        os.closerange(report + 1, 1 << 16)
        os.environ.clear()
        os.environ.update(HOME=jail.WORK, LANG="C.UTF-8", TMPDIR=jail.WORK)
        jail.give_up(protections, limits, held_bytes)
        os.close(report)
    except BaseException as error:
        os.write(report, f"{type(error).__name__}: {error}".encode()[:1000])
        os._exit(1)
    raise Start(text)


def _read(source: int) -> str:
    with open(os.dup(source), "rb") as file:
        file.seek(0)
        return file.read().decode("utf-8", "surrogatepass")


def run(source: str) -> NoReturn:
    """Runs the text as `__main__`; an exception that nobody caught is printed and ends with status 1."""
    sys.argv = [FILE]
    sys.stdin = io.TextIOWrapper(open(0, "rb"), encoding="utf-8", errors="surrogateescape")  # noqa: SIM115
    sys.stdout = io.TextIOWrapper(open(1, "wb"), encoding="utf-8", errors="surrogateescape")  # noqa: SIM115
    sys.stderr = io.TextIOWrapper(open(2, "wb", 0), encoding="utf-8", errors="backslashreplace", write_through=True)  # noqa: SIM115
    for name in [name for name in sys.modules if name.split(".")[0] == "spoutnik"]:
        del sys.modules[name]
    main = sys.modules["__main__"] = types.ModuleType("__main__")
    linecache.cache[FILE] = (len(source), None, source.splitlines(keepends=True), FILE)
    status = 0
    atexit.register(lambda: _leave(status))
    try:
        exec(compile(source, FILE, "exec", dont_inherit=True), main.__dict__)
    except SystemExit as end:
        if isinstance(end.code, int):
            status = end.code & 0xFF
        elif end.code is not None:
            print(end.code, file=sys.stderr)
            status = 1
    except BaseException as error:
        status = 1
        if error.__traceback__ is not None:
            error.__traceback__ = error.__traceback__.tb_next
        traceback.print_exception(error)
    sys.exit(status)


def _leave(status: int) -> None:
    """Runs after all threads and other exit handlers. The interpreter would now free every object, which takes longer than a fork."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):
            stream.flush()
    os._exit(status)
