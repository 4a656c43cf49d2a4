"""Pages on disk, so that a prompt seen before a restart is read instead of computed. Knows files, not what pages mean (see `shelf.py`).

One file a page in a folder of mode 0700, files 0600. What is promised:

- A file is used only if its header (model, owner and every token up to the page's end) is, byte for byte, the one that is looked for, and
  if a MAC over header and page (keyed BLAKE2b, 256 bits, the key lies in the folder) fits. Anything else there is removed with a log line.
  So accidents, and whoever may write files but not read the key, lead to computing, never to wrong tokens. Whoever can read the folder can
  read the prompts in it: tokens and pages are not encrypted. Names of files and owners are keyed hashes and tell nothing without the key.
- A file gets its name when it is whole, so that a process may be killed at any moment and several may share the folder.
- At most `max_bytes` lie there; of several processes each one counts what the others wrote after every 32nd part of that. What was not
  used for `max_age_s` is never read and is removed; within the bounds, what was unused longest goes first.
- A thread of the lowest priority writes. A write that fails (a full disk) stops the writing until the next start, with one warning.
"""

import atexit
import contextlib
import logging
import os
import queue
import stat
import sys
import threading
import time
from collections.abc import Callable
from hashlib import blake2b
from hmac import compare_digest
from io import FileIO
from pathlib import Path
from typing import NamedTuple

from spoutnik.errors import UserError

MAX_BYTES = 8 << 30
MAX_AGE_S = 7 * 86400.0
KEY_BYTES = MAC_BYTES = 32
COUNTS = 32
"""A process counts the folder anew after it wrote this part of `max_bytes`."""
TIDY_S = 900.0
"""Seconds without work after which the folder is tidied, and age of an unfinished file that nobody can be writing any more."""
logger = logging.getLogger(__name__)


class _Job(NamedTuple):
    name: str
    header: bytes
    copy: Callable[[], bytes | None]
    used_ns: int


class Store:
    """A folder of pages, made within `folder`, shared by models, owners and processes. Raises UserError where no such folder can be."""

    def __init__(self, folder: str | Path, max_bytes: int = MAX_BYTES, max_age_s: float = MAX_AGE_S):
        self.folder, self.max_bytes, self.max_age_s = Path(folder) / "prompts", max_bytes, max_age_s
        try:
            _private_folder(self.folder)
            self._key = _read_key(self.folder / "key")
        except OSError as error:
            raise UserError(f"The cache cannot be kept in {folder} ({error.strerror}); give a folder that you may write to.") from error
        self._used = self._uncounted = 0
        self._stopped = False
        self._process = os.getpid()
        self._jobs: queue.Queue[_Job | None] = queue.Queue()
        self._thread = threading.Thread(target=self._work, name="spoutnik-store", daemon=True)
        self._thread.start()
        atexit.register(self.close)

    def keyed(self, purpose: str, content: bytes = b"") -> "blake2b":
        """A keyed hash, different for each purpose (at most 16 letters)."""
        return blake2b(content, digest_size=MAC_BYTES, key=self._key, person=purpose.encode())

    def read(self, name: str, header: bytes, into: memoryview, used_ns: int) -> bool:
        """Fills `into` with the page under `name` if it is there, whole, and has this header; marks it as used at that time.

        If False, `into` is as it was, or zero.
        """
        path = self._path(name)
        try:
            with path.open("rb", buffering=0) as file:
                status = os.fstat(file.fileno())
                old = time.time() - status.st_mtime > self.max_age_s
                fault = None if old else self._fault(file, status.st_size, header, into)
                if not old and fault is None:
                    with contextlib.suppress(OSError):
                        os.utime(file.fileno(), ns=(used_ns, used_ns))
                    return True
        except FileNotFoundError:
            return False
        except OSError as error:
            logger.warning("A page of the cache on disk cannot be read: %s", error)
            return False
        with contextlib.suppress(OSError):
            path.unlink()
        if fault is not None:
            logger.warning("A damaged page of the cache on disk was removed unused: %s.", fault)
        return False

    def keep(self, name: str, header: bytes, copy: Callable[[], bytes | None], used_ns: int) -> None:
        """Has a page written soon, or marked as used if it is there. Another thread calls `copy` for its bytes, None if they are gone."""
        if not self._stopped:
            self._jobs.put(_Job(name, header, copy, used_ns))

    def flush(self) -> None:
        """Waits until all that was to be kept is written."""
        self._jobs.join()

    def close(self) -> None:
        """Writes the rest and ends the thread. Called at the interpreter's exit."""
        atexit.unregister(self.close)
        if os.getpid() == self._process and self._thread.is_alive():
            self._jobs.put(None)
            self._thread.join()
        self._stopped = True

    def _path(self, name: str) -> Path:
        return self.folder / f"{name}.page"

    def _mac(self, header: bytes, page: bytes | memoryview) -> bytes:
        mac = self.keyed("page", header)
        mac.update(page)
        return mac.digest()

    def _fault(self, file: FileIO, size: int, header: bytes, into: memoryview) -> str | None:
        expected = len(header) + len(into) + MAC_BYTES
        if size != expected:
            return f"it has {size} bytes, not {expected}"
        if file.read(len(header)) != header:
            return "it belongs to another model, owner or prompt"
        whole = file.readinto(into) == len(into)
        if whole and compare_digest(self._mac(header, into), file.read(MAC_BYTES)):
            return None
        into[:] = bytes(len(into))
        return "its content is not what was written"

    def _work(self) -> None:
        _give_way()
        self._tidy()
        while True:
            try:
                job = self._jobs.get(timeout=TIDY_S)
            except queue.Empty:
                self._tidy()
                continue
            try:
                if job is None:
                    return
                if not self._stopped:
                    self._write(job)
            except Exception as error:  # whatever it is, generation goes on
                self._stopped = True
                logger.warning("Nothing more is written to the cache in %s: %s", self.folder, error)
            finally:
                self._jobs.task_done()

    def _write(self, job: _Job) -> None:
        path = self._path(job.name)
        with contextlib.suppress(FileNotFoundError):
            os.utime(path, ns=(job.used_ns, job.used_ns))
            return
        page = job.copy()
        if page is None:
            return
        size = len(job.header) + len(page) + MAC_BYTES
        if self._used + size > self.max_bytes or self._uncounted + size > self.max_bytes // COUNTS:
            self._tidy(size)
        if self._used + size > self.max_bytes:
            return
        aside = self.folder / f"{os.urandom(8).hex()}.new"
        try:
            with open(os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb", buffering=0) as file:
                for part in (job.header, page, self._mac(job.header, page)):
                    if file.write(part) != len(part):
                        raise OSError("the disk took only a part of a page")
                os.utime(file.fileno(), ns=(job.used_ns, job.used_ns))
            os.replace(aside, path)
        except BaseException:
            with contextlib.suppress(OSError):
                aside.unlink()
            raise
        self._used, self._uncounted = self._used + size, self._uncounted + size

    def _tidy(self, room: int = 0) -> None:
        """Counts the folder, removes what is too old, and, where `room` more bytes would not fit, what was unused longest."""
        now, files = time.time(), []
        with contextlib.suppress(OSError), os.scandir(self.folder) as entries:
            for entry in entries:
                with contextlib.suppress(OSError):  # another process removed it
                    status = entry.stat(follow_symlinks=False)
                    most_s = {".page": self.max_age_s, ".new": TIDY_S}.get(Path(entry.name).suffix)
                    if most_s is None:
                        continue
                    if now - status.st_mtime > most_s:
                        os.unlink(entry.path)
                    else:
                        files.append((status.st_mtime_ns, status.st_size, entry.path))
        self._used, self._uncounted = sum(size for _, size, _ in files), 0
        if self._used + room <= self.max_bytes:
            return
        for _, size, path in sorted(files):  # an eighth more than needed, not to count again for the next page
            if self._used + room <= self.max_bytes - self.max_bytes // 8:
                break
            with contextlib.suppress(OSError):
                os.unlink(path)
            self._used -= size


def _private_folder(folder: Path) -> None:
    """Makes the folder, or makes it private; another user's, or a link, is refused."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    status = folder.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid():
        raise UserError(f"{folder} is not a folder of this user's own; give another cache folder or remove it.")
    folder.chmod(0o700)


def _read_key(path: Path) -> bytes:
    """The folder's key, made by the first process that comes."""
    while True:
        with contextlib.suppress(FileNotFoundError):
            key = path.read_bytes()
            if len(key) == KEY_BYTES:
                return key
            path.unlink()  # not ours: a key appears whole
        aside = path.with_name(f"{os.urandom(8).hex()}.new")
        with open(os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(os.urandom(KEY_BYTES))
        with contextlib.suppress(FileExistsError):
            os.link(aside, path)  # fails if another process was first
        aside.unlink()


def _give_way() -> None:
    """This thread works when no other wants to. Elsewhere than on Linux a thread has no priority of its own."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 19)
