"""The system calls that Python's `os` does not offer, through ctypes. Each raises OSError naming itself.

Called with the interpreter's lock held (PyDLL): `clone` returns twice, and no other thread exists in the runner.
"""

import ctypes
import os
import signal
import struct
from collections.abc import Sequence

NEW_MOUNT, NEW_UTS, NEW_IPC, NEW_USER, NEW_PID, NEW_NETWORK = 0x20000, 0x4000000, 0x8000000, 0x10000000, 0x20000000, 0x40000000
READ_ONLY, NO_SETUID, NO_DEVICES, NO_EXEC = 1, 2, 4, 8
BIND, RECURSIVE, PRIVATE = 0x1000, 0x4000, 0x40000
_AT_FDCWD, _AT_RECURSIVE, _DETACH = -100, 0x8000, 2
_PR_SET_PDEATHSIG, _PR_SET_NO_NEW_PRIVS, _PR_SET_SECCOMP = 1, 38, 22
_FILTER_MODE = 2
_CAPABILITY_VERSION = 0x20080522
_LANDLOCK_CREATE, _LANDLOCK_ADD, _LANDLOCK_RESTRICT, _MOUNT_SETATTR = 444, 445, 446, 442
"""The same on x86-64 and aarch64, as all calls since 424."""
_CLONE = {"x86_64": 56, "aarch64": 220}
_PIVOT_ROOT = {"x86_64": 155, "aarch64": 41}
_WRITE_FILE, _READ_FILE, _READ_DIR = 2, 4, 8

_libc = ctypes.PyDLL(None, use_errno=True)


def _call(name: str, *arguments: object, path: str | None = None) -> int:
    """A function of the C library that returns -1 on failure; whole numbers are passed in full width."""
    function = getattr(_libc, name)
    function.restype = ctypes.c_long
    result: int = function(*(ctypes.c_long(value) if isinstance(value, int) else value for value in arguments))
    if result & 0xFFFFFFFF == 0xFFFFFFFF:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}", path)
    return result


def unshare(namespaces: int) -> None:
    _call("unshare", namespaces)


def clone(namespaces: int) -> int:
    """A fork into new namespaces: 0 in the child, its process id in the parent. The child must not use threads."""
    return _call("syscall", _CLONE[os.uname().machine], namespaces | signal.SIGCHLD, 0, 0, 0, 0)


def mount(source: str, target: str, kind: str | None, flags: int, options: str = "") -> None:
    _call("mount", source.encode(), target.encode(), kind.encode() if kind else None, flags, options.encode() or None, path=target)


def restrict_mount(target: str, attributes: int) -> None:
    """Sets attributes on a mount and all below it (Linux 5.12)."""
    setting = struct.pack("=QQQQ", attributes, 0, 0, 0)
    _call("syscall", _MOUNT_SETATTR, _AT_FDCWD, target.encode(), _AT_RECURSIVE, setting, len(setting), path=target)


def enter_root(folder: str) -> None:
    """Makes a mount the root and forgets the old one."""
    os.chdir(folder)
    _call("syscall", _PIVOT_ROOT[os.uname().machine], b".", b".", path=folder)
    _call("umount2", b".", _DETACH, path=folder)
    os.chdir("/")


def die_with_parent() -> None:
    _call("prctl", _PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def no_new_privileges() -> None:
    _call("prctl", _PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)


def drop_capabilities() -> None:
    header, none = struct.pack("=Ii", _CAPABILITY_VERSION, 0), bytes(24)
    _call("capset", header, none)


def filter_system_calls(program: bytes) -> None:
    """Installs a seccomp filter on this thread and all it starts. Needs `no_new_privileges` first."""
    code = ctypes.create_string_buffer(program, len(program))
    header = struct.pack("HP", len(program) // 8, ctypes.addressof(code))
    _call("prctl", _PR_SET_SECCOMP, _FILTER_MODE, header, 0, 0)


def landlock_version() -> int:
    """0 where the kernel has no Landlock or it is switched off."""
    try:
        return _call("syscall", _LANDLOCK_CREATE, None, 0, 1)
    except OSError:
        return 0


def landlock(readable: Sequence[str], writable: Sequence[str]) -> None:
    """Refuses all files but those at or beneath `readable` and `writable`, and what else this kernel's Landlock can refuse.

    Paths that do not exist are passed over. linux/landlock.h; the bits of each version are cumulative.
    """
    version = landlock_version()
    files = (1 << (13 + (version >= 2) + (version >= 3) + (version >= 5))) - 1
    handled = struct.pack("=QQQ", files, 0b11, 0b11)[: 24 if version >= 6 else 16 if version >= 4 else 8]
    ruleset = _call("syscall", _LANDLOCK_CREATE, handled, len(handled), 0)
    for path in (*readable, *writable):
        try:
            place = os.open(path, os.O_PATH | os.O_CLOEXEC)
        except FileNotFoundError:
            continue
        access = _READ_FILE | (_WRITE_FILE if path in writable else 0) | (_READ_DIR if os.path.isdir(path) else 0)
        _call("syscall", _LANDLOCK_ADD, ruleset, 1, struct.pack("=Qi", access, place), 0, path=path)
        os.close(place)
    _call("syscall", _LANDLOCK_RESTRICT, ruleset, 0)
    os.close(ruleset)
