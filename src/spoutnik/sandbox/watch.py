"""What the processes of a program use, read from outside their namespaces: through a descriptor of /proc that only the runner holds."""

import os
import resource
from collections.abc import Iterator
from dataclasses import dataclass

_TICKS, _PAGE = os.sysconf("SC_CLK_TCK"), resource.getpagesize()


@dataclass(frozen=True)
class Usage:
    """Over all living processes: processor seconds (with those of their collected children), resident bytes, threads."""

    cpu_s: float
    resident_bytes: int
    threads: int


class Watch:
    """Opens /proc; made before the runner leaves the file system that has it."""

    def __init__(self) -> None:
        self._proc = os.open("/proc", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        if not self._read("self/stat"):
            raise OSError("/proc is not mounted")

    def own_bytes(self) -> tuple[int, int]:
        """(address space, resident memory) of this process."""
        space, resident = self._read("self/statm").split()[:2]
        return int(space) * _PAGE, int(resident) * _PAGE

    def usage(self, init: int, bare_bytes: int) -> Usage:
        """Of all processes below `init`, each less `bare_bytes`. Pages that processes share are counted for each of them."""
        cpu, resident, threads = 0, 0, 0
        for pid in self._below(init):
            fields = self._read(f"{pid}/stat").rpartition(")")[2].split()
            if len(fields) > 21:
                cpu += sum(map(int, fields[11:15]))
                threads += int(fields[17])
                resident += max(0, int(fields[21]) * _PAGE - bare_bytes)
        return Usage(cpu / _TICKS, resident, threads)

    def _below(self, pid: int | str) -> Iterator[str]:
        try:
            tasks = os.open(f"{pid}/task", os.O_RDONLY | os.O_DIRECTORY, dir_fd=self._proc)
        except OSError:  # it has just ended
            return
        try:
            threads = os.listdir(tasks)
        except OSError:
            threads = []
        finally:
            os.close(tasks)
        for thread in threads:
            for child in self._read(f"{pid}/task/{thread}/children").split():
                yield child
                yield from self._below(child)

    def _read(self, path: str) -> str:
        """The text of a file below /proc; empty if the process has ended."""
        try:
            file = os.open(path, os.O_RDONLY | os.O_CLOEXEC, dir_fd=self._proc)
        except OSError:
            return ""
        try:
            return os.read(file, 1 << 16).decode("ascii", "replace")
        except OSError:
            return ""
        finally:
            os.close(file)
