"""What this machine has: cores, memory, disk, instruction sets. Reads the system's own files; imports no torch."""

import ctypes
import os
import platform
import shutil
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

GIB = 2**30


@dataclass(frozen=True)
class Machine:
    """Memory and disk in bytes; `memory` is what this process may use (a container's limit counts), `memory_free` what is free of it."""

    processor: str
    cores: int
    memory: int
    memory_free: int
    disk_free: int
    instruction_sets: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.processor}, {self.cores} cores, {self.memory / GIB:.0f} GiB"


def inspect(disk: Path = Path()) -> Machine:
    """Looks at this machine; `disk` is a path on the disk in question, existing or not."""
    total, free = _memory()
    cpu = _pairs(Path("/proc/cpuinfo"))
    flags = cpu.get("flags", "").split()
    known = {"AVX2": "avx2", "AVX-512": "avx512f", "AVX-512 BF16": "avx512_bf16", "AMX BF16": "amx_bf16", "AMX INT8": "amx_int8"}
    return Machine(
        processor=cpu.get("model name", platform.processor() or platform.machine()),
        cores=cores(),
        memory=total,
        memory_free=free,
        disk_free=disk_free(disk),
        instruction_sets=tuple(name for name, flag in known.items() if flag in flags),
    )


def cores() -> int:
    """Cores that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def disk_free(path: Path) -> int:
    """Free bytes on the disk that `path` is on, or would be."""
    path = path.absolute()
    while not path.exists():
        path = path.parent
    return shutil.disk_usage(path).free


def peak_memory() -> int:
    """The most bytes that this process held at once since `forget_peak`, or since it began; 0 where the system does not say."""
    held = _pairs(Path("/proc/self/status")).get("VmHWM", "").split()
    return int(held[0]) * 1024 if held else 0


def forget_peak() -> None:
    """Lets `peak_memory` begin anew from what is held now, where the system can do that."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def _memory() -> tuple[int, int]:
    """(bytes in all, bytes free), within the limit of the control group where there is one."""
    meminfo = _pairs(Path("/proc/meminfo"))
    if "MemTotal" in meminfo:
        total, free = (int(meminfo[key].split()[0]) * 1024 for key in ("MemTotal", "MemAvailable"))
    else:
        total = free = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for limit_file, used_file in (
        ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
        ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes"),
    ):
        try:
            limit, used = int(Path(limit_file).read_text()), int(Path(used_file).read_text())
        except (OSError, ValueError):
            continue
        total, free = min(total, limit), min(free, max(limit - used, 0))
    return total, free


def _pairs(path: Path) -> dict[str, str]:
    """The first value of every `key : value` line."""
    pairs: dict[str, str] = {}
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError:
        return pairs
    for line in lines:
        key, separator, value = line.partition(":")
        if separator:
            pairs.setdefault(key.strip(), value.strip())
    return pairs


def give_back_memory() -> None:
    """Returns what is freed to the system, where the C library can (glibc keeps it): one stage's room is not the next one's."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
