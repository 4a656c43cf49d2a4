"""What a sandboxed program may use, what protects the machine from it, and what is known once it has ended."""

import signal
from dataclasses import dataclass

MIB = 1 << 20

FULL = frozenset(
    {"user", "mount", "pid", "network", "ipc", "uts", "capabilities", "no-new-privileges", "seccomp"},
)
"""Namespaces of its own (the first six), no capability, no way to gain one, and a filter of system calls."""
LANDLOCK = frozenset({"landlock", "capabilities", "no-new-privileges", "seccomp"})
"""For systems that grant no user namespaces. A program can tell that files of others exist, but it reads only Python's own, writes none,
starts no process and signals none but itself. Weaker: for most of this only one wall stands, where otherwise two or three do."""
MODES = {"full": FULL, "landlock": LANDLOCK}


@dataclass(frozen=True)
class Limits:
    """`wall_s` and `cpu_s` in seconds, the latter over all processes of a program; sizes in bytes; `processes` counts threads too.

    Memory is what the program adds to the bare interpreter: each process is held to it by the kernel, all of them together by a watch that
    looks 50 times a second. `disk_bytes` is its working folder (in memory), `file_bytes` one file in it, `output_bytes` each of stdout and
    stderr; a program that writes more is killed.
    """

    wall_s: float = 10.0
    cpu_s: float = 10.0
    memory_bytes: int = 512 * MIB
    processes: int = 32
    open_files: int = 64
    file_bytes: int = 16 * MIB
    disk_bytes: int = 64 * MIB
    output_bytes: int = MIB // 4


@dataclass(frozen=True)
class Result:
    """`outcome`: "exited", "crashed" (by a signal), or the limit that ended it: "timeout", "cpu", "memory", "processes", "output".

    `status` is the exit status, or minus the signal. `cpu_s` counts all processes; `peak_bytes` is the most memory seen, like the limit
    above the bare interpreter's. `reason` says in plain words why it ended.
    """

    outcome: str
    status: int
    stdout: str
    stderr: str
    cpu_s: float
    wall_s: float
    peak_bytes: int
    reason: str

    @property
    def ok(self) -> bool:
        """It ended by itself with exit status 0."""
        return self.outcome == "exited" and self.status == 0


def explain(outcome: str, status: int, stderr: str, limits: Limits) -> str:
    """Why a program ended, in plain words."""
    lines = stderr.strip().splitlines()
    return {
        "exited": f"ended with status {status}" + (f": {lines[-1][:200]}" if status and lines else ""),
        "crashed": f"killed by {_signal_name(-status)}",
        "timeout": f"still running after {limits.wall_s:g} s",
        "cpu": f"used more than {limits.cpu_s:g} s of processor time",
        "memory": f"used more than {limits.memory_bytes / MIB:g} MiB of memory",
        "processes": f"more than {limits.processes} threads",
        "output": f"wrote more than {limits.output_bytes} bytes to stdout or stderr",
    }[outcome]


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
