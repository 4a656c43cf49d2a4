"""Many untrusted programs at once: a pool of runners, each with walls of its own."""

import atexit
import dataclasses
import functools
import json
import os
import queue
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any

import spoutnik
from spoutnik.errors import UserError
from spoutnik.sandbox.limits import FULL, MODES, Limits, Result, explain

_START_S, _GRACE_S = 60.0, 10.0
_RUNNER = """import sys
sys.path.insert(0, sys.argv[1])
from spoutnik.sandbox import runner
runner.main(int(sys.argv[2]), frozenset(sys.argv[3:]))"""


class SandboxError(Exception):
    """The sandbox itself failed, so nothing is known about the program."""


class SandboxPool:
    """`workers` runners, started when first needed and again after a failure. Calls from several threads are safe.

    Raises UserError where the system does not grant `protections`: untrusted code is never run with less than was asked for.
    """

    def __init__(self, workers: int = 1, limits: Limits | None = None, protections: frozenset[str] = FULL) -> None:
        self.workers, self.limits = workers, limits or Limits()
        self._runners = [_Runner(protections) for _ in range(workers)]
        self._free: queue.SimpleQueue[_Runner] = queue.SimpleQueue()
        for runner in self._runners:
            self._free.put(runner)

    def run(self, program: str, stdin: str = "", partner: str | None = None, limits: Limits | None = None) -> Result:
        """Runs a Python program; returns when nothing of it is left. Raises SandboxError if the sandbox failed.

        `partner` is a second program that runs beside it, joined by a socket that is descriptor 3 in both; the result is the first one's,
        the limits hold for both together. Neither can reach the other's memory or input.
        """
        runner = self._free.get()
        try:
            return runner.run(program, stdin, partner, limits or self.limits)
        finally:
            self._free.put(runner)

    def map(self, programs: Sequence[str], stdin: str = "") -> list[Result]:
        """`run` for each program, on all runners at once; results in the order of `programs`."""
        with ThreadPoolExecutor(len(self._runners)) as threads:
            return list(threads.map(lambda program: self.run(program, stdin), programs))

    def check(self) -> None:
        """Starts one runner; raises UserError if the system does not grant the protections."""
        self.run("")

    def close(self) -> None:
        """Ends the runners and what they run; a later call starts new ones."""
        for runner in self._runners:
            runner.kill()

    def __enter__(self) -> "SandboxPool":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self.close()


@functools.cache
def shared_pool(mode: str = "full") -> SandboxPool:
    """One pool for this process, a runner for each core. Raises UserError for a mode that does not exist or is not granted here."""
    if mode not in MODES:
        raise UserError(f"there is no protection {mode!r}; give one of {', '.join(map(repr, MODES))}.")
    pool = SandboxPool(os.cpu_count() or 1, protections=MODES[mode])
    pool.check()
    atexit.register(pool.close)
    return pool


class _Runner:
    """One process and the socket to it."""

    def __init__(self, protections: frozenset[str]) -> None:
        self.protections = protections
        self._process: subprocess.Popen[bytes] | None = None
        self._socket: socket.socket | None = None

    def run(self, program: str, stdin: str, partner: str | None, limits: Limits) -> Result:
        channel = self._socket or self._start()
        texts = [program, stdin] if partner is None else [program, stdin, partner]
        files = [_sealed(text) for text in texts]
        try:
            socket.send_fds(channel, [json.dumps(dataclasses.asdict(limits)).encode()], files)
            reply = _receive(channel, limits.wall_s + _GRACE_S)
        except (OSError, EOFError, ValueError) as error:
            self.kill()
            raise SandboxError(f"the sandbox's runner failed ({error or 'it ended'})") from error
        except BaseException:  # interrupted half-way: a reply may be on its way
            self.kill()
            raise
        finally:
            for file in files:
                os.close(file)
        if "broken" in reply:
            raise SandboxError(f"a program could not be started ({reply['broken']})")
        return Result(**reply, reason=explain(reply["outcome"], reply["status"], reply["stderr"], limits))

    def kill(self) -> None:
        process, channel = self._process, self._socket
        self._process = self._socket = None
        if channel is not None:
            channel.close()
        if process is not None:
            process.kill()
            process.wait()

    def _start(self) -> socket.socket:
        if sys.platform != "linux" or os.uname().machine not in ("x86_64", "aarch64"):
            raise UserError(f"untrusted programs run only on Linux on x86-64 or aarch64, not on {sys.platform}; use another machine.")
        ours, theirs = socket.socketpair()
        package = Path(spoutnik.__file__).parents[1]
        self._process = subprocess.Popen(
            [sys.executable, "-S", "-s", "-P", "-c", _RUNNER, str(package), str(theirs.fileno()), *sorted(self.protections)],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd="/", start_new_session=True,
            pass_fds=[theirs.fileno()], env={"PYTHONHASHSEED": "0", "MALLOC_ARENA_MAX": "1", "LC_ALL": "C.UTF-8"},
        )  # fmt: skip
        theirs.close()
        self._socket = ours
        try:
            reply = _receive(ours, _START_S)
        except (OSError, EOFError, ValueError) as error:
            self.kill()
            raise SandboxError(f"the sandbox's runner did not start ({error or 'it ended'})") from error
        if "refused" in reply:
            self.kill()
            raise UserError(_refusal(self.protections, reply["refused"]))
        return ours


def _refusal(protections: frozenset[str], why: str) -> str:
    advice = (
        "allow unprivileged user namespaces, or ask for the weaker protection by name: 'landlock'"
        if "user" in protections
        else "use a kernel that has it switched on (Linux 5.13)"
    )
    return f"untrusted programs cannot be walled off here ({why}); {advice}."


def _sealed(text: str) -> int:
    """A file in memory that nobody can change any more, as a descriptor at its beginning."""
    import fcntl

    file = os.memfd_create("program", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    with open(os.dup(file), "wb") as writer:
        writer.write(text.encode("utf-8", "surrogatepass"))
    os.lseek(file, 0, os.SEEK_SET)
    fcntl.fcntl(file, fcntl.F_ADD_SEALS, fcntl.F_SEAL_WRITE | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_SEAL)
    return file


def _receive(channel: socket.socket, timeout_s: float) -> dict[str, Any]:
    """One message; raises EOFError if the runner ended and TimeoutError if it said nothing in time."""
    deadline = time.monotonic() + timeout_s

    def exactly(size: int) -> bytes:
        data = bytearray()
        while len(data) < size:
            channel.settimeout(max(deadline - time.monotonic(), 0.001))
            part = channel.recv(size - len(data))
            if not part:
                raise EOFError
            data += part
        return bytes(data)

    message: dict[str, Any] = json.loads(exactly(struct.unpack("I", exactly(4))[0]))
    return message
