"""What a program is given and what is told of it; many at once; what happens to the sandbox when it is killed itself."""

import dataclasses
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable
from pathlib import Path

import pytest

import spoutnik
from spoutnik.errors import UserError
from spoutnik.sandbox.limits import FULL, LANDLOCK, MIB
from spoutnik.sandbox.pool import SandboxError, SandboxPool, shared_pool

from .conftest import LIMITS, Run

ENDS = {
    "": ("exited", 0, "ended with status 0"),
    "import sys; sys.exit()": ("exited", 0, "ended with status 0"),
    "import sys; sys.exit(3)": ("exited", 3, "ended with status 3"),
    "import sys; sys.exit('words')": ("exited", 1, "ended with status 1: words"),
    "import os; os._exit(7)": ("exited", 7, "ended with status 7"),
    "import atexit, os; atexit.register(os._exit, 5)": ("exited", 5, "ended with status 5"),
    "1/0": ("exited", 1, "ended with status 1: ZeroDivisionError: division by zero"),
    "a b": ("exited", 1, "ended with status 1: SyntaxError: invalid syntax"),
    "raise KeyboardInterrupt": ("exited", 1, "ended with status 1: KeyboardInterrupt"),
    "import os; os.abort()": ("crashed", -signal.SIGABRT, "killed by SIGABRT"),
    "import os; os.kill(os.getpid(), 15)": ("crashed", -signal.SIGTERM, "killed by SIGTERM"),
    "import ctypes; ctypes.string_at(0)": ("crashed", -signal.SIGSEGV, "killed by SIGSEGV"),
    "import sys; sys.setrecursionlimit(10**9)\nx = []\nfor _ in range(10**6): x = [x]\nrepr(x)": (
        "crashed",
        -signal.SIGSEGV,
        "killed by SIGSEGV",
    ),
}


@pytest.mark.parametrize("program", ENDS)
def test_how_a_program_ended_is_told(run: Run, program: str) -> None:
    result = run(program)
    assert (result.outcome, result.status, result.reason) == ENDS[program]
    assert result.ok == (result.status == 0)


def test_a_program_is_an_ordinary_main_module(run: Run) -> None:
    program = """
import sys, threading, atexit, json, decimal, sqlite3, zoneinfo, hashlib, multiprocessing, tempfile
class A: pass
if __name__ == "__main__":
    print(sys.argv, A.__module__, sys.modules["__main__"].A is A, [name for name in sys.modules if "spoutnik" in name])
    threading.Timer(0.05, lambda: print("a thread")).start()
    atexit.register(print, "at exit")
    with multiprocessing.get_context("fork").Pool(2) as pool:
        print(pool.map(abs, [-1, -2]), flush=True)
    with tempfile.TemporaryFile() as file:
        print(file.write(b"x"))
"""
    result = run(program)
    assert result.stdout == "['program.py'] __main__ True []\n[1, 2]\n1\na thread\nat exit\n", result.stderr


def test_a_traceback_shows_only_the_program(run: Run) -> None:
    assert run("def f():\n    raise ValueError('é')\nf()").stderr == (
        'Traceback (most recent call last):\n  File "program.py", line 3, in <module>\n    f()\n'
        "  File \"program.py\", line 2, in f\n    raise ValueError('é')\nValueError: é\n"
    )


def test_input_is_given_and_is_empty_otherwise(run: Run) -> None:
    assert run("print(input() + '|' + __import__('sys').stdin.read())", "é1\nb\n\ud800").stdout == "é1|b\n\\ud800\n".replace(
        "\\ud800", "\ufffd" * 3
    )
    assert run("print(__import__('sys').stdin.read())").stdout == "\n"


def test_closing_the_standard_streams_harms_nobody(run: Run) -> None:
    assert run("import os\nfor fd in range(64):\n    try: os.close(fd)\n    except OSError: pass").ok
    assert run("print(1)").stdout == "1\n"


def test_output_that_is_no_text_is_shown_with_marks(run: Run) -> None:
    assert run("import os; os.write(1, b'a\\xffb'); os.write(2, b'\\xfe')").stdout == "a\ufffdb"


def test_a_program_holds_no_descriptor_but_its_own(run: Run) -> None:
    program = "import os\nfor fd in range(256):\n    try: os.fstat(fd); print(fd)\n    except OSError: pass"
    assert run(program).stdout == "0\n1\n2\n"


def test_the_same_program_gives_the_same_order_of_sets(run: Run) -> None:
    program = "print({str(i) for i in range(20)})"
    with SandboxPool(limits=LIMITS) as other:
        assert run(program).stdout == other.run(program).stdout


def test_memory_and_time_are_measured(run: Run) -> None:
    result = run("x = bytearray(b'x') * (50 << 20)\nfor _ in range(10**6): pass")
    assert 45 * MIB < result.peak_bytes < 70 * MIB
    assert 0 < result.cpu_s < result.wall_s * os.cpu_count() + 0.05


PARTNER_ASKS = """
import os, socket, sys
with socket.socket(fileno=3) as peer:
    peer.sendall(b"question")
    print(peer.recv(100).decode(), sys.stdin.read())
"""
PARTNER_ANSWERS = """
import os, socket, time
peer = socket.socket(fileno=3)
peer.recv(100)
peer.sendall(b"answer " + os.read(0, 100))
time.sleep(60)
"""


@pytest.mark.parametrize("protections", [FULL, LANDLOCK], ids=["full", "landlock"])
def test_a_partner_answers_without_seeing_the_input_and_ends_with_the_program(
    pools: Callable[[frozenset[str]], SandboxPool], protections: frozenset[str]
) -> None:
    start = time.monotonic()
    result = pools(protections).run(PARTNER_ASKS, "the input", partner=PARTNER_ANSWERS)
    assert result.stdout == "answer  the input\n"
    assert result.ok
    assert time.monotonic() - start < 5


def test_what_a_partner_does_is_not_the_programs_result(pools: Callable[[frozenset[str]], SandboxPool]) -> None:
    for partner in ("import os; os._exit(0)", "1/0", "import os; os.kill(os.getppid(), 9)", "import os; os.close(3)"):
        assert pools(FULL).run("import os, sys; sys.exit(9 if os.read(3, 1) == b'' else 8)", partner=partner).status == 9


def test_the_runner_never_holds_what_it_runs(pools: Callable[[frozenset[str]], SandboxPool]) -> None:
    pool = pools(FULL)
    secret = uuid.uuid4().hex
    assert pool.run(f"x = '{secret}'; print(input() == x[::-1])", secret[::-1]).stdout == "True\n"
    (runner,) = [each._process.pid for each in pool._runners]
    with open(f"/proc/{runner}/maps") as maps, open(f"/proc/{runner}/mem", "rb", 0) as memory:
        for line in maps:
            span, access, *_ = line.split()
            start, end = (int(half, 16) for half in span.split("-"))
            if access.startswith("rw"):
                memory.seek(start)
                found = memory.read(end - start)
                assert secret.encode() not in found
                assert secret[::-1].encode() not in found


def test_many_programs_run_at_once_and_come_back_in_order() -> None:
    with SandboxPool(3, LIMITS) as pool:
        results = pool.map([f"import time; time.sleep({0.2 if i == 0 else 0}); print({i})" for i in range(9)])
    assert [result.stdout for result in results] == [f"{i}\n" for i in range(9)]


def test_a_killed_runner_is_an_error_and_the_next_program_gets_a_new_one() -> None:
    with SandboxPool(limits=LIMITS) as pool:
        pool.check()
        threading.Timer(0.3, os.kill, (pool._runners[0]._process.pid, signal.SIGKILL)).start()
        with pytest.raises(SandboxError, match="runner failed"):
            pool.run("import time; time.sleep(4)")
        assert pool.run("print(1)").stdout == "1\n"


HOST = """
import os, signal, threading
from spoutnik.sandbox.pool import SandboxPool
pool = SandboxPool()
pool.check()
print(pool._runners[0]._process.pid, flush=True)
threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGKILL)).start()
pool.run("import ctypes, time; ctypes.CDLL(None).prctl(15, b'orphan-%d', 0, 0, 0); time.sleep(60)" % os.getpid())
"""


def test_no_program_outlives_a_killed_owner() -> None:
    source = str(Path(spoutnik.__file__).parents[1])
    host = subprocess.Popen([sys.executable, "-c", HOST], env={**os.environ, "PYTHONPATH": source}, stdout=subprocess.PIPE, text=True)
    runner = int(host.communicate(timeout=30)[0])
    deadline = time.monotonic() + 10
    while (left := [runner] * Path(f"/proc/{runner}/cmdline").exists() + orphans(host.pid)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert left == []


def orphans(owner: int) -> list[int]:
    return [int(path.parent.name) for path in Path("/proc").glob("[0-9]*/comm") if path.read_text().strip() == f"orphan-{owner}"]


@pytest.mark.skipif(shutil.which("unshare") is None, reason="needs unshare of util-linux")
def test_where_the_kernel_grants_no_namespaces_it_says_so_and_runs_nothing() -> None:
    program = "from spoutnik.sandbox.pool import SandboxPool\nSandboxPool().run('print(1)')"
    shell = f'echo 0 > /proc/sys/user/max_user_namespaces && exec {sys.executable} -c "$PROGRAM"'
    source = str(Path(spoutnik.__file__).parents[1])
    result = subprocess.run(
        ["unshare", "-Ur", "sh", "-c", shell], env={**os.environ, "PYTHONPATH": source, "PROGRAM": program}, capture_output=True, text=True
    )
    assert result.stdout == ""
    last = result.stderr.strip().splitlines()[-1]
    assert last.startswith("spoutnik.errors.UserError: untrusted programs cannot be walled off here (cannot make namespaces: [Errno 28]")
    assert last.endswith("allow unprivileged user namespaces, or ask for the weaker protection by name: 'landlock'.")


def test_a_wall_that_cannot_be_built_lets_no_program_begin() -> None:
    with SandboxPool(limits=dataclasses.replace(LIMITS, disk_bytes=-1)) as pool, pytest.raises(SandboxError, match="could not be started"):
        pool.run("print(1)")
    with SandboxPool(limits=dataclasses.replace(LIMITS, open_files=-7)) as pool, pytest.raises(SandboxError, match="could not be started"):
        pool.run("print(1)")


def test_a_protection_that_does_not_exist_is_refused() -> None:
    with pytest.raises(UserError, match="no protection 'prayer'; give one of 'full', 'landlock'"):
        shared_pool("prayer")
