"""The filter, run by a small interpreter of its language on both processors: what is not listed is refused."""

import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spoutnik.sandbox import syscalls
from spoutnik.sandbox.seccomp import build

ALLOWED, REFUSED, UNKNOWN, KILLED = 0x7FFF0000, 0x00050001, 0x00050026, 0x80000000
AUDIT = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
GROUPS = ("READING", "WRITING", "MEMORY", "TIME", "THREADS", "IDENTITY", "SIGNALS", "PATHS", "PROCESSES", "RULED")


def verdict(program: bytes, number: int, arguments: tuple[int, ...] = (0,) * 6, audit: int = 0) -> int:
    """Classic BPF: a load, three jumps and a return are all that the filter may use."""
    data = struct.pack("=IIQ6Q", number, audit, 0, *arguments)
    place, held = 0, 0
    while True:
        code, yes, no, value = struct.unpack_from("=HBBI", program, 8 * place)
        place += 1
        if code == 0x06:
            return value
        if code == 0x20:
            (held,) = struct.unpack_from("=I", data, value)
        else:
            place += yes if {0x15: held == value, 0x35: held >= value, 0x45: bool(held & value)}[code] else no


def listed(machine: str) -> dict[str, int]:
    return {name: number for group in GROUPS for name, number in syscalls.numbers(getattr(syscalls, group), machine).items()}


@pytest.mark.parametrize("machine", syscalls.MACHINES)
@given(number=st.integers(0, 0x3FFFFFFF) | st.integers(0, 500), arguments=st.tuples(*[st.integers(0, 2**64 - 1)] * 6))
def test_what_is_not_listed_is_refused(machine: str, number: int, arguments: tuple[int, ...]) -> None:
    if number not in listed(machine).values():
        assert verdict(build(None, machine), number, arguments, AUDIT[machine]) == REFUSED


@pytest.mark.parametrize("machine", syscalls.MACHINES)
def test_other_architectures_end_the_program(machine: str) -> None:
    for audit in (0x40000003, 0x40000028, *(value for name, value in AUDIT.items() if name != machine)):
        assert verdict(build(None, machine), 0, audit=audit) == KILLED
    assert verdict(build(None, "x86_64"), 0x40000000 | 39, audit=AUDIT["x86_64"]) == KILLED


@pytest.mark.parametrize(
    ("name", "arguments", "expected"),
    [
        ("read", (0,), ALLOWED), ("mkdirat", (0,), ALLOWED), ("clone", (0x1200011,), ALLOWED), ("clone", (0x10000000 | 17,), REFUSED),
        ("clone", (0x80 | 17,), REFUSED), ("clone3", (0,), UNKNOWN), ("prctl", (15,), ALLOWED), ("prctl", (22, 2), REFUSED),
        ("prlimit64", (0, 7), ALLOWED), ("prlimit64", (1, 7), REFUSED), ("ioctl", (0, 0x5401), ALLOWED), ("ioctl", (0, 0x5412), REFUSED),
        ("socketpair", (1, 1), ALLOWED), ("socketpair", (1, 2), REFUSED), ("socketpair", (30, 1), REFUSED), ("fcntl", (0, 1030), ALLOWED),
        ("fcntl", (0, 8), REFUSED), ("fcntl", (0, 10), REFUSED), ("kill", (1, 9), ALLOWED),
    ],
)  # fmt: skip
@pytest.mark.parametrize("machine", syscalls.MACHINES)
def test_ruled_calls_are_allowed_for_some_arguments_only(machine: str, name: str, arguments: tuple[int, ...], expected: int) -> None:
    padded = (*arguments, *(0,) * (6 - len(arguments)))
    assert verdict(build(None, machine), listed(machine)[name], padded, AUDIT[machine]) == expected


@pytest.mark.parametrize("machine", syscalls.MACHINES)
def test_a_lone_process_starts_none_changes_no_path_and_signals_itself_only(machine: str) -> None:
    program, numbers = build(77, machine), listed(machine)

    def says(name: str, *arguments: int) -> int:
        return verdict(program, numbers[name], (*arguments, *(0,) * (6 - len(arguments))), AUDIT[machine])

    paths = syscalls.numbers(syscalls.PATHS, machine).keys() | syscalls.numbers(syscalls.PROCESSES, machine).keys()
    assert {says(name) for name in paths} == {REFUSED}
    assert says("clone", 17) == REFUSED
    assert says("clone", 0x10F00) == ALLOWED  # a thread
    assert (says("kill", 77, 9), says("kill", 78, 9), says("kill", 0, 9), says("tgkill", 78, 78, 9)) == (ALLOWED, REFUSED, REFUSED, REFUSED)


@pytest.mark.parametrize(
    ("machine", "header"),
    [("x86_64", "/usr/include/x86_64-linux-gnu/asm/unistd_64.h"), ("aarch64", "/usr/include/asm-generic/unistd.h")],
)
def test_numbers_are_the_kernels(machine: str, header: str) -> None:
    if not Path(header).exists():
        pytest.skip("no kernel headers here")
    kernel = dict(
        line.split()[1:3] for line in Path(header).read_text().splitlines() if line.startswith("#define __NR") and len(line.split()) > 2
    )
    checked = 0
    for name, number in listed(machine).items():
        found = kernel.get(f"__NR_{name}", kernel.get(f"__NR3264_{name}"))
        if found and found.isdigit():
            assert int(found) == number, name
            checked += 1
    assert checked > 100
