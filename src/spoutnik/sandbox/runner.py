"""The runner: a small Python process inside the walls that forks a process for every program, watches it and reports to its owner.

Starting Python and building walls for every program would cost more than most of the programs. The runner never reads what it runs: each
program reads its own text and input from descriptors that come over the socket, so none finds another's in its memory.
"""

import contextlib
import gc
import importlib
import json
import os
import select
import signal
import socket
import struct
import time
from typing import Any, NoReturn

from spoutnik.sandbox import jail, linux, program, seccomp
from spoutnik.sandbox.limits import Limits
from spoutnik.sandbox.watch import Watch

_PRELOADED = (
    "bisect",
    "collections",
    "copy",
    "datetime",
    "functools",
    "heapq",
    "itertools",
    "math",
    "operator",
    "random",
    "re",
    "string",
    "typing",
)
"""What programs import most: found ready, it costs them nothing."""
_TICK_MS = 20
_CHUNK = 1 << 16


def main(channel: int, protections: frozenset[str]) -> None:
    """Serves jobs from a socket until its owner is gone. Returns in no process but a program's, when the program is over."""
    owner = socket.socket(fileno=channel)
    try:
        watch = Watch()
        for name in _PRELOADED:
            importlib.import_module(name)
        jail.enter(protections)
        seccomp.build()  # once; it is kept
    except (jail.JailError, OSError) as error:
        _reply(owner, {"refused": str(error)})
        os._exit(1)
    _reply(owner, {"ready": True})
    gc.collect()
    gc.freeze()
    try:
        _serve(owner, watch, protections)
    except program.Start as start:
        source = start.source
    program.run(source)


def _serve(owner: socket.socket, watch: Watch, protections: frozenset[str]) -> NoReturn:
    while True:
        header, descriptors, _, _ = socket.recv_fds(owner, _CHUNK, 3)
        if not header:
            os._exit(0)
        job = Job(Limits(**json.loads(header)), protections, descriptors, watch)
        job.start()
        _reply(owner, job.supervise(owner))


class Job:
    """One program, and perhaps a partner, from its start to its report."""

    def __init__(self, limits: Limits, protections: frozenset[str], sources: list[int], watch: Watch) -> None:
        """`sources`: descriptors of the program's text, its input and its partner's text, which may be missing."""
        self.limits, self.protections, self.sources, self.watch = limits, protections, sources, watch
        self.space, self.bare = watch.own_bytes()
        self.peak, self.cpu_s = 0, 0.0
        self.killed: str | None = None

    def start(self) -> None:
        """Forks the init of the program's namespaces. Raises program.Start in the program's process."""
        self.began = time.monotonic()
        self.pipes = [os.pipe() for _ in range(3)]
        self.init = linux.clone(jail.each(self.protections))
        if self.init == 0:
            self._be_init()
        for descriptor in [*self.sources, *(end for _, end in self.pipes)]:
            os.close(descriptor)

    def _be_init(self) -> None:
        """Process 1 of the namespace: all others end with it, and none of them can signal it. It ends with the program."""
        try:
            linux.die_with_parent()
            for end, _ in self.pipes:
                os.close(end)
            report = self.pipes[0][1]
            poll = select.poll()
            poll.register(report, 0)
            if poll.poll(0):  # the runner was gone before the line above
                os._exit(1)
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            jail.prepare(self.protections, self.limits)
            main = self._start_programs()
            while True:
                ended, status = os.wait()
                if ended == main:
                    os.write(report, struct.pack("i", status))
                    os._exit(0)
        except program.Start:
            raise
        except BaseException as error:
            os.write(self.pipes[0][1], f"{type(error).__name__}: {error}".encode()[:1000])
            os._exit(1)

    def _start_programs(self) -> int:
        """Forks the program and its partner; returns the program's process id."""
        text, stdin, *partner = self.sources
        output = [self.pipes[1][1], self.pipes[2][1]]
        ours = theirs = None
        if partner:
            ours, theirs = socket.socketpair()
        init = os.getpid()
        main = os.fork()
        if main == 0:
            self._become(init, text, [stdin, *output, *([ours.fileno()] if ours else [])])
        if theirs and os.fork() == 0:
            self._become(init, partner[0], [os.open("/dev/null", os.O_RDONLY), *output, theirs.fileno()])
        return main

    def _become(self, init: int, text: int, descriptors: list[int]) -> None:
        linux.die_with_parent()
        if os.getppid() != init:  # it was gone before the line above
            os._exit(1)
        program.become(text, descriptors, self.pipes[0][1], self.protections, self.limits, self.space)

    def supervise(self, owner: socket.socket) -> dict[str, Any]:
        """Reads output and looks at the clock and the processes until the program has ended or was killed; collects all of it."""
        report, *streams = (end for end, _ in self.pipes)
        kept = {stream: bytearray() for stream in streams}
        poll = select.poll()
        for end in (report, *streams):
            poll.register(end, select.POLLIN)
        poll.register(owner, select.POLLRDHUP)
        ended = b""
        while not ended and self.killed is None:
            ready = [end for end, _ in poll.poll(_TICK_MS)]
            if owner.fileno() in ready:
                os._exit(1)  # and the init with it
            for stream in set(ready) & set(streams):
                if not self._keep(stream, kept[stream]):
                    poll.unregister(stream)
            if report in ready:
                ended = os.read(report, 1024) or b"the init ended"
            else:
                self._look()
        os.kill(self.init, signal.SIGKILL)
        _, _, spent = os.wait4(self.init, 0)
        for stream in streams:
            os.set_blocking(stream, False)
            with contextlib.suppress(BlockingIOError):
                while self._keep(stream, kept[stream]):
                    pass
        for end in (report, *streams):
            os.close(end)
        return self._summary(ended, max(self.cpu_s, spent.ru_utime + spent.ru_stime), spent.ru_maxrss * 1024, *kept.values())

    def _keep(self, stream: int, kept: bytearray) -> bool:
        """Reads once; False at the end, or when there is more than may be written."""
        data = os.read(stream, _CHUNK)
        room = self.limits.output_bytes - len(kept)
        kept += data[:room]
        if len(data) > room:
            self.killed = self.killed or "output"
        return bool(data) and self.killed != "output"

    def _look(self) -> None:
        usage = self.watch.usage(self.init, self.bare)
        self.peak, self.cpu_s = max(self.peak, usage.resident_bytes), max(self.cpu_s, usage.cpu_s)
        over = {
            "timeout": time.monotonic() - self.began > self.limits.wall_s,
            "cpu": usage.cpu_s > self.limits.cpu_s,
            "memory": usage.resident_bytes > self.limits.memory_bytes,
            "processes": usage.threads > self.limits.processes,
        }
        self.killed = self.killed or next((name for name, is_over in over.items() if is_over), None)

    def _summary(self, ended: bytes, cpu_s: float, most: int, stdout: bytearray, stderr: bytearray) -> dict[str, Any]:
        if len(ended) not in (0, 4):
            return {"broken": ended.decode("utf-8", "replace")}
        status = os.waitstatus_to_exitcode(struct.unpack("i", ended)[0]) if ended else -signal.SIGKILL
        outcome = self.killed or ("exited" if status >= 0 else "crashed")
        if status == -signal.SIGXCPU:
            outcome = "cpu"
        return {
            "outcome": outcome,
            "status": status,
            "stdout": stdout.decode("utf-8", "replace"),
            "stderr": stderr.decode("utf-8", "replace"),
            "cpu_s": cpu_s,
            "wall_s": time.monotonic() - self.began,
            "peak_bytes": max(self.peak, most - self.bare, 0),
        }


def _reply(owner: socket.socket, message: dict[str, Any]) -> None:
    data = json.dumps(message).encode()
    try:
        owner.sendall(struct.pack("I", len(data)) + data)
    except OSError:
        os._exit(1)
