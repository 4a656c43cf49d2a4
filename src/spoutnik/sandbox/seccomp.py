"""The filter of system calls: a classic BPF program (linux/filter.h, linux/seccomp.h) that allows what syscalls.py lists.

Anything else fails with EPERM, so a program sees a PermissionError; calls of another architecture (32-bit, x32) kill it.
"""

import errno
import functools
import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass

from spoutnik.sandbox import syscalls

_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_NUMBER, _ARCHITECTURE, _ARGUMENTS = 0, 4, 16
_ALLOW, _REFUSE, _KILL = 0x7FFF0000, 0x00050000 | errno.EPERM, 0x80000000
_UNKNOWN = 0x00050000 | errno.ENOSYS
_AUDIT = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
_X32 = 0x40000000
_NEW_NAMESPACES = 0x7E020080
_CLONE_THREAD = 0x00010000
_PR_NAMES = (15, 16)
_TERMINAL_QUESTIONS = (0x5401, 0x5413, 0x541B, 0x5421, 0x5450, 0x5451)
"""TCGETS, TIOCGWINSZ, FIONREAD, FIONBIO, FIONCLEX, FIOCLEX: what open() and sockets ask. TIOCSTI, which types for others, is not here."""
_FCNTL = (0, 1, 2, 3, 4, 5, 6, 7, 36, 37, 38, 1030, 1032)
"""Descriptors, their flags and locks; not F_SETOWN and F_SETSIG, which signal others, and not F_SETPIPE_SZ, which takes memory."""
_AF_UNIX = 1
_STREAMS = (0x1, 0x80001, 0x801, 0x80801)
"""SOCK_STREAM with SOCK_CLOEXEC and SOCK_NONBLOCK; a pair of datagram sockets could send to the sockets of others."""

Instruction = tuple[int, int, int, int]


@dataclass(frozen=True)
class Rule:
    """Holds if the low half of an argument is one of `equal` (where given), has no bit of `without` and all of `with_bit`."""

    argument: int
    equal: tuple[int, ...] = ()
    without: int = 0
    with_bit: int = 0


@functools.cache
def build(alone: int | None = None, machine: str | None = None) -> bytes:
    """The filter as an array of `struct sock_filter`.

    With `alone`, a process id, the program stays one process that changes no file and signals itself only.
    """
    machine = machine or os.uname().machine
    groups = [syscalls.READING, syscalls.WRITING, syscalls.MEMORY, syscalls.TIME, syscalls.THREADS, syscalls.IDENTITY, syscalls.SIGNALS]
    groups += [] if alone else [syscalls.PATHS, syscalls.PROCESSES]
    allowed = sorted(number for group in groups for number in syscalls.numbers(group, machine).values())
    return b"".join(struct.pack("=HBBI", *instruction) for instruction in _instructions(machine, allowed, alone))


def _rules(alone: int | None) -> dict[str, list[Rule]]:
    """What must hold, all of it, for a call to be allowed. clone3 is not here: its flags are where a filter cannot see them."""
    itself = [Rule(0, equal=(alone,))] if alone else []
    return {
        "clone": [Rule(0, without=_NEW_NAMESPACES, with_bit=_CLONE_THREAD if alone else 0)],
        "fcntl": [Rule(1, equal=_FCNTL)],
        "prctl": [Rule(0, equal=_PR_NAMES)],
        "prlimit64": [Rule(0, equal=(0,))],
        "ioctl": [Rule(1, equal=_TERMINAL_QUESTIONS)],
        "socketpair": [Rule(0, equal=(_AF_UNIX,)), Rule(1, equal=_STREAMS)],
        "kill": itself,
        "tgkill": itself,
        "tkill": itself,
    }


def _instructions(machine: str, allowed: list[int], alone: int | None) -> Iterator[Instruction]:
    yield _LOAD, 0, 0, _ARCHITECTURE
    yield _EQUAL, 1, 0, _AUDIT[machine]
    yield _RETURN, 0, 0, _KILL
    yield _LOAD, 0, 0, _NUMBER
    if machine == "x86_64":
        yield _AT_LEAST, 0, 1, _X32
        yield _RETURN, 0, 0, _KILL
    for number in allowed:
        yield _EQUAL, 0, 1, number
        yield _RETURN, 0, 0, _ALLOW
    rules = _rules(alone)
    for name, number in syscalls.numbers(syscalls.RULED, machine).items():
        body = [instruction for rule in rules[name] for instruction in _checks(rule)] if name in rules else [(_RETURN, 0, 0, _UNKNOWN)]
        yield _EQUAL, 0, len(body) + 1, number
        yield from body
        yield _RETURN, 0, 0, _ALLOW
    yield _RETURN, 0, 0, _REFUSE


def _checks(rule: Rule) -> Iterator[Instruction]:
    """Falls through if the rule holds."""
    yield _LOAD, 0, 0, _ARGUMENTS + 8 * rule.argument
    for index, value in enumerate(rule.equal):
        yield _EQUAL, len(rule.equal) - index, 0, value
    if rule.equal:
        yield _RETURN, 0, 0, _REFUSE
    if rule.without:
        yield _ANY_BIT, 0, 1, rule.without
        yield _RETURN, 0, 0, _REFUSE
    if rule.with_bit:
        yield _ANY_BIT, 1, 0, rule.with_bit
        yield _RETURN, 0, 0, _REFUSE
