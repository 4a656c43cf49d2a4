"""Runs verifiers that may hang, crash or eat memory in processes that can be killed.

A timer inside the process (SIGALRM) reaches neither a thread nor a long call into C, and libraries that use one have turned whole runs'
rewards into silent zeros; so the clock is outside, the process is killed with SIGKILL, and the caller gets a `Fault` with its reason.
"""

import functools
import importlib
import multiprocessing
import os
import queue
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from types import TracebackType
from typing import Any

from spoutnik.errors import UserError

_SPAWN = multiprocessing.get_context("spawn")


@dataclass(frozen=True)
class Fault:
    """Why a verifier gave no verdict: "timeout", "raised: ..." or "died: ..."."""

    reason: str


class VerifierFaultError(Exception):
    """A fault as an exception, for verifiers that must return a bool."""


class VerifierPool:
    """`workers` processes, started when first needed and started again after a kill.

    A call has `timeout_s` seconds of wall clock for the function itself and `start_timeout_s` for starting the process and importing the
    function's module; `memory_bytes` caps what it may allocate (Linux). Calls from several threads are safe.
    """

    def __init__(self, workers: int = 1, timeout_s: float = 10.0, start_timeout_s: float = 120.0, memory_bytes: int = 4 << 30) -> None:
        self._workers = [_Worker(timeout_s, start_timeout_s, memory_bytes) for _ in range(workers)]
        self._free: queue.SimpleQueue[_Worker] = queue.SimpleQueue()
        for worker in self._workers:
            self._free.put(worker)

    def call(self, function: str, *arguments: Any) -> Any:
        """Returns what `function`, named "module:function", returns in a worker, or a Fault. Arguments and result are pickled."""
        worker = self._free.get()
        try:
            return worker.call(function, arguments)
        finally:
            self._free.put(worker)

    def map(self, function: str, calls: Sequence[tuple[Any, ...]]) -> list[Any]:
        """`call` for each tuple of arguments, on all workers at once; results in the order of `calls`."""
        with ThreadPoolExecutor(len(self._workers)) as threads:
            return list(threads.map(lambda arguments: self.call(function, *arguments), calls))

    def verify(self, function: str, *arguments: Any) -> bool:
        """`call` for a verdict; raises VerifierFaultError instead of returning a Fault."""
        verdict = self.call(function, *arguments)
        if isinstance(verdict, Fault):
            raise VerifierFaultError(verdict.reason)
        return bool(verdict)

    def close(self) -> None:
        """Kills the processes; a later call starts new ones."""
        for worker in self._workers:
            worker.kill()

    def __enter__(self) -> "VerifierPool":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self.close()


@functools.cache
def shared_pool() -> VerifierPool:
    """The pool that tasks use when they are given none. Its processes end with this one."""
    return VerifierPool()


class _Worker:
    """One process and the pipe to it."""

    def __init__(self, timeout_s: float, start_timeout_s: float, memory_bytes: int) -> None:
        self.timeout_s, self.start_timeout_s, self.memory_bytes = timeout_s, start_timeout_s, memory_bytes
        self._process: multiprocessing.process.BaseProcess | None = None
        self._pipe: Connection | None = None

    def call(self, function: str, arguments: tuple[Any, ...]) -> Any:
        pipe = self._pipe or self._start()
        try:
            pipe.send((function, arguments))
            loaded = pipe.recv() if pipe.poll(self.start_timeout_s) else Fault("timeout while loading")
            verdict = loaded if isinstance(loaded, Fault) else pipe.recv() if pipe.poll(self.timeout_s) else Fault("timeout")
            if isinstance(verdict, Fault) and verdict.reason.startswith("timeout"):
                self.kill()
            return verdict
        except (EOFError, OSError):
            return Fault(f"died: exit code {self.kill()}")
        except BaseException:  # interrupted half-way: the pipe may hold a stale reply
            self.kill()
            raise

    def kill(self) -> int | None:
        """Ends the process, whatever it is doing; returns the exit code it had of itself, or minus the signal."""
        process, pipe = self._process, self._pipe
        self._process = self._pipe = None
        if process is None or pipe is None:
            return None
        pipe.close()
        process.join(0.1 if process.exitcode is None else 0)
        process.kill()
        process.join()
        return process.exitcode

    def _start(self) -> Connection:
        ours, theirs = _SPAWN.Pipe()
        process = _SPAWN.Process(target=_serve, args=(theirs, self.memory_bytes), daemon=True)
        process.start()
        theirs.close()
        self._process, self._pipe = process, ours
        try:
            if ours.poll(self.start_timeout_s) and ours.recv() == "ready":
                return ours
        except (EOFError, OSError):
            pass
        code = self.kill()
        raise UserError(
            f"a verifier process did not start (exit code {code}); in a script, grade answers under `if __name__ == '__main__':`."
        )


def _serve(pipe: Connection, memory_bytes: int) -> None:
    """The worker's life: receive (function, arguments), load, run, reply; until the parent is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    _limit_memory(memory_bytes)
    pipe.send("ready")
    while True:
        try:
            name, arguments = pipe.recv()
        except EOFError:
            return
        reply: Any
        try:
            function = _load(name)
            pipe.send("loaded")
            reply = function(*arguments)
        except Exception as error:
            reply = Fault(f"raised: {type(error).__name__}: {error}"[:500])
        pipe.send(reply)


def _load(name: str) -> Callable[..., Any]:
    module, _, function = name.partition(":")
    found: Callable[..., Any] = getattr(importlib.import_module(module), function)
    return found


def _end_with_parent() -> None:
    """A hanging verifier must not outlive a parent that was killed."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _limit_memory(extra_bytes: int) -> None:
    """Lets the process allocate `extra_bytes` more than it holds now."""
    if sys.platform != "linux":
        return
    import resource

    held = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    wanted = held + extra_bytes
    resource.setrlimit(resource.RLIMIT_AS, (wanted if hard == resource.RLIM_INFINITY else min(wanted, hard), hard))
