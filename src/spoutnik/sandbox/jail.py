"""The walls: namespaces and a file system of its own for the runner, and what each program gives up before it begins.

The runner's root is a small read-only folder in memory with Python's own files, its shared libraries and a few devices bound into it. It
has no /proc, no /sys, no home. Of what a program needs, only /tmp is writable; each program gets a fresh one.
"""

import contextlib
import math
import os
import resource
import sys
import sysconfig
from collections.abc import Callable

from spoutnik.sandbox import linux, seccomp
from spoutnik.sandbox.limits import Limits

NOBODY = 65534
WORK = "/tmp"
_STACK_BYTES = 8 << 20
_RUNNERS = 2
"""Processes of ours that count as the program's where both have one user: the runner and the init."""
_DEVICES = ("/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom")
_LIBRARIES = ("/lib", "/lib64", "/usr/lib", "/usr/lib64", "/etc/ld.so.cache", "/usr/share/zoneinfo")
_ONCE = {"user": linux.NEW_USER, "mount": linux.NEW_MOUNT, "network": linux.NEW_NETWORK, "ipc": linux.NEW_IPC, "uts": linux.NEW_UTS}
_EACH = {"mount": linux.NEW_MOUNT, "pid": linux.NEW_PID, "ipc": linux.NEW_IPC}


class JailError(Exception):
    """A wall that this system does not let us build; the words say which."""


def enter(protections: frozenset[str]) -> None:
    """Brings the runner, a process with one thread, into namespaces and a root of its own. Raises JailError."""
    step = "make namespaces"
    try:
        if "user" in protections:
            _enter_user_namespace(_flags(_ONCE, protections))
        else:
            linux.unshare(_flags(_ONCE, protections))
        if "mount" in protections:
            step = "mount"
            _build_root()
        step = "restrict files"
        if "landlock" in protections and not linux.landlock_version():
            raise JailError("the kernel has no Landlock, or it is switched off")
    except OSError as error:
        raise JailError(f"cannot {step}: {error}") from error


def each(protections: frozenset[str]) -> int:
    """The namespaces that every program has for itself."""
    return _flags(_EACH, protections)


def _flags(table: dict[str, int], protections: frozenset[str]) -> int:
    return sum(flag for name, flag in table.items() if name in protections)


def _enter_user_namespace(flags: int) -> None:
    """Ours becomes `nobody` in it, with all capabilities over it and none outside.

    Root stays root in there, since it must read Python's files, and programs become `nobody`: root's processes are not counted against the
    limit. Two entries can be written only from outside, so a child does it.
    """
    user, group = os.geteuid(), os.getegid()
    mapped: Callable[[], bool] = bool  # False
    if user == 0:
        with contextlib.suppress(PermissionError):  # root of a container that may not
            os.setgroups([])
        mapped = _map_from_outside()
    linux.unshare(flags)
    if not mapped():
        _write("/proc/self/setgroups", "deny")
        _write("/proc/self/gid_map", f"{NOBODY} {group} 1\n")
        _write("/proc/self/uid_map", f"{NOBODY} {user} 1\n")


def _map_from_outside() -> Callable[[], bool]:
    """Starts a child that waits until this process is in its namespace; the function returned lets it write and says whether it could."""
    ready, go = os.pipe()
    inside = os.getpid()
    child = os.fork()
    if child == 0:
        try:
            os.close(go)
            os.read(ready, 1)
            for kind in ("uid", "gid"):
                _write(f"/proc/{inside}/{kind}_map", f"0 0 1\n{NOBODY} {NOBODY} 1\n")
            os._exit(0)
        finally:
            os._exit(1)
    os.close(ready)

    def write() -> bool:
        os.close(go)
        return os.waitpid(child, 0)[1] == 0

    return write


def _write(path: str, text: str) -> None:
    with open(path, "w", encoding="ascii") as file:
        file.write(text)


def _build_root() -> None:
    """Over /proc, where nothing that we bind can lie."""
    root = "/proc"
    linux.mount("none", "/", None, linux.RECURSIVE | linux.PRIVATE)
    linux.mount("spoutnik", root, "tmpfs", linux.NO_SETUID | linux.NO_DEVICES, "size=1m,mode=755")
    for path in _readable():
        _bind(path, root, linux.READ_ONLY | linux.NO_SETUID | linux.NO_DEVICES)
    for path in _DEVICES:
        _bind(path, root, linux.READ_ONLY | linux.NO_SETUID | linux.NO_EXEC)
    os.mkdir(root + WORK)
    os.symlink(WORK, root + "/dev/shm")
    linux.enter_root(root)
    linux.restrict_mount("/", linux.READ_ONLY)


def _readable() -> list[str]:
    """Python's library and the shared libraries, the outer of nested folders only."""
    own = (os.path.realpath(sysconfig.get_path(name)) for name in ("stdlib", "platstdlib"))
    paths = [*_LIBRARIES, os.path.join(sys.base_prefix, "lib"), *own]
    existing = sorted({path for path in paths if os.path.exists(path)})
    return [path for path in existing if not any(path.startswith(other + "/") for other in existing)]


def _bind(path: str, root: str, attributes: int) -> None:
    """Shows a file or folder under `root` as it is outside; a link (/lib on merged systems) stays a link."""
    target = root + path
    os.makedirs(os.path.dirname(target), exist_ok=True)
    if os.path.islink(path):
        os.symlink(os.readlink(path), target)
        return
    if os.path.isdir(path):
        os.mkdir(target)
    else:
        os.close(os.open(target, os.O_CREAT | os.O_WRONLY))
    linux.mount(path, target, None, linux.BIND | linux.RECURSIVE)
    linux.restrict_mount(target, attributes)


def prepare(protections: frozenset[str], limits: Limits) -> None:
    """For the first process of a program's own namespaces: the working folder."""
    if "mount" in protections:
        options = f"size={limits.disk_bytes},nr_inodes=4096,mode=700" + (f",uid={NOBODY},gid={NOBODY}" if "user" in protections else "")
        linux.mount("spoutnik", WORK, "tmpfs", linux.NO_SETUID | linux.NO_DEVICES | linux.NO_EXEC, options)
        os.chdir(WORK)


def give_up(protections: frozenset[str], limits: Limits, held_bytes: int) -> None:
    """The last act before a program begins: limits, then privileges, then files, then system calls.

    `held_bytes`: address space of the bare interpreter, which `memory_bytes` comes on top of.
    """
    resources = {
        resource.RLIMIT_AS: held_bytes + limits.memory_bytes,
        resource.RLIMIT_CPU: math.ceil(limits.cpu_s),
        resource.RLIMIT_FSIZE: limits.file_bytes,
        resource.RLIMIT_NOFILE: limits.open_files,
        resource.RLIMIT_STACK: _STACK_BYTES,
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_MEMLOCK: 0,
    }
    if "user" in protections:  # elsewhere the kernel would count all of the user's processes
        resources[resource.RLIMIT_NPROC] = limits.processes + (0 if os.geteuid() == 0 else _RUNNERS)
    for name, value in resources.items():
        hard = resource.getrlimit(name)[1]
        resource.setrlimit(name, (value, value) if hard == resource.RLIM_INFINITY else (min(value, hard),) * 2)
    if "capabilities" in protections:
        if "user" in protections and os.geteuid() == 0:
            os.setresgid(NOBODY, NOBODY, NOBODY)
            os.setresuid(NOBODY, NOBODY, NOBODY)
        linux.drop_capabilities()
    if "no-new-privileges" in protections:
        linux.no_new_privileges()
    if "landlock" in protections:
        linux.landlock(_readable(), _DEVICES)
    if "seccomp" in protections:
        linux.filter_system_calls(seccomp.build(alone=None if "pid" in protections else os.getpid()))
