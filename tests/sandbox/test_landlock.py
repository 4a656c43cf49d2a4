"""The weaker protection, asked for by name: files are read only where Python lies, nothing is written, nothing started."""

import os
import signal
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from spoutnik.sandbox.limits import LANDLOCK, Result
from spoutnik.sandbox.pool import SandboxPool

from .conftest import LIMITS

NONE: frozenset[str] = frozenset()
Attack = Callable[[str], tuple[Result, Result]]


@pytest.fixture
def attack(pools: Callable[[frozenset[str]], SandboxPool]) -> Attack:
    """What came of a program with the protection, and without any."""
    return lambda program: (pools(LANDLOCK).run(program, limits=LIMITS), pools(NONE).run(program, limits=LIMITS))


ATTACKS = {
    "reading": "print(open({secret!r}).read())",
    "reading through a link": "print(open({link!r}).read())",
    "listing": "import os; print(os.listdir({folder!r}))",
    "writing": "open({secret!r}, 'a').write('x')",
    "emptying": "import os; os.truncate({secret!r}, 0)",
    "making": "open({folder!r} + '/new', 'x')",
    "removing": "import os; os.unlink({secret!r})",
    "renaming": "import os; os.rename({secret!r}, {folder!r} + '/b')",
    "changing rights": "import os; os.chmod({secret!r}, 0o600)",
    "changing times": "import os; os.utime({secret!r}, (1, 1))",
    "another's environment": "open('/proc/{owner}/environ', 'rb').read(1)",
    "another's memory": "open('/proc/{owner}/maps', 'rb').read(1)",
    "starting a process": "import os\nif os.fork() == 0: os._exit(0)",
    "executing": "import os; os.execv('/bin/true', ['true'])",
    "connecting": "import socket; socket.create_connection(('127.0.0.1', {port}), 2)",
    "a datagram to a socket of others": "import socket; a, b = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)",
}


@pytest.mark.parametrize("program", ATTACKS.values(), ids=ATTACKS)
def test_it_refuses(attack: Attack, folder: Path, program: str) -> None:
    (folder / "link").symlink_to(folder / "secret")
    with socket.create_server(("127.0.0.1", 0)) as server:
        walled, open_ = attack(
            program.format(
                secret=str(folder / "secret"),
                link=str(folder / "link"),
                folder=str(folder),
                owner=os.getpid(),
                port=server.getsockname()[1],
            )
        )
    assert "PermissionError" in walled.stderr
    assert open_.ok, open_.stderr


def test_it_refuses_signals_to_others(attack: Attack) -> None:
    with subprocess.Popen(["sleep", "60"], start_new_session=True) as victim:
        program = f"import os; os.kill({victim.pid}, 9)"
        walled, _ = attack(program)
        assert "PermissionError" in walled.stderr
        assert victim.wait(5) == -signal.SIGKILL


def test_a_bomb_of_threads_is_seen(pools: Callable[[frozenset[str]], SandboxPool]) -> None:
    program = (
        "import threading, time\nfor _ in range(12): threading.Thread(target=time.sleep, args=(60,), daemon=True).start()\ntime.sleep(60)"
    )
    result = pools(LANDLOCK).run(program)
    assert (result.outcome, result.reason) == ("processes", "more than 8 threads")


def test_limits_and_the_library_work(pools: Callable[[frozenset[str]], SandboxPool]) -> None:
    pool = pools(LANDLOCK)
    assert pool.run("import decimal, sqlite3, random, hashlib; print(decimal.Decimal(1) / 4)").stdout == "0.25\n"
    assert pool.run("bytearray(1 << 30)").reason == "ended with status 1: MemoryError"
