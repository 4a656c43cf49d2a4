"""Whether anything else ran while something was measured. Linux tells; elsewhere nothing is known, and nothing is measured again."""

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")
TRIES = 3
SHARE = 0.06
"""Of one core: what others may use beside a measurement."""
LONGEST_WAIT_S = 20.0


def undisturbed(work: Callable[[int], T]) -> tuple[T, bool]:
    """Does the work, told how often it was tried before, until nothing else ran beside it; returns its result, and whether that was so."""
    for attempt in range(TRIES):
        wait_for_calm()
        before, began = others(), time.monotonic()
        result = work(attempt)
        if others() - before <= SHARE * (time.monotonic() - began) + 0.03:
            return result, True
    return result, False


def wait_for_calm() -> None:
    """Returns when others have used next to nothing for a second, or after LONGEST_WAIT_S."""
    until = time.monotonic() + LONGEST_WAIT_S
    while time.monotonic() < until:
        before = others()
        time.sleep(1.0)
        if others() - before <= SHARE:
            return


def others() -> float:
    """Processor seconds, counted from anywhere, that went to processes that are neither this one nor descend from it."""
    try:
        fields = Path("/proc/stat").read_text(encoding="ascii").split("\n", 1)[0].split()[1:]
    except OSError:
        return 0.0
    ticks = os.sysconf("SC_CLK_TCK")
    user, nice, system, _idle, _waiting, *interrupts = (int(value) / ticks for value in fields[:8])
    return user + nice + system + sum(interrupts) - _ours(ticks)


def _ours(ticks: int) -> float:
    """Seconds of this process, of its children that ended, and of all its living descendants."""
    seconds, parents = {}, {}
    for file in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = file.read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        except OSError:  # it ended
            continue
        process = int(file.parent.name)
        parents[process] = int(fields[1])
        seconds[process] = sum(map(int, fields[11:15])) / ticks  # its own and its ended children's, in user and in system mode
    family = {os.getpid()}
    while more := {process for process, parent in parents.items() if parent in family} - family:
        family |= more
    return sum(seconds.get(process, 0.0) for process in family)
