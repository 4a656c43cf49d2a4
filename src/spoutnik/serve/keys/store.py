"""Where keys are kept: one SQLite file that only its user may read, for any number of processes at a time."""

import contextlib
import os
import sqlite3
import stat
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from pathlib import Path

from spoutnik.errors import UserError
from spoutnik.serve.keys.key import Key, digest_of, new_secret

SCHEMA = """
CREATE TABLE IF NOT EXISTS keys (
    id TEXT PRIMARY KEY, digest BLOB NOT NULL, name TEXT NOT NULL, created REAL NOT NULL, expires REAL, revoked REAL,
    requests_per_minute INTEGER, tokens_per_minute INTEGER, concurrent INTEGER, budget INTEGER, currency TEXT NOT NULL,
    spent INTEGER NOT NULL DEFAULT 0, requests INTEGER NOT NULL DEFAULT 0, prompt_tokens INTEGER NOT NULL DEFAULT 0,
    completion_tokens INTEGER NOT NULL DEFAULT 0, last_used REAL
)
"""
COLUMNS = tuple(field.name for field in fields(Key))
WAIT_FOR_OTHERS_S = 10.0


@dataclass(frozen=True)
class Spending:
    """What a key used since it was last written down. Money in billionths."""

    money: int = 0
    requests: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0


@dataclass(frozen=True)
class Limits:
    """What a key may; None: as much as it likes. `budget` is in billionths of `currency`, `expires` a Unix time."""

    expires: float | None = None
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    concurrent: int | None = None
    budget: int | None = None
    currency: str = ""


def default_path() -> Path:
    """In the user's data: what a key has spent is not to be recomputed."""
    return Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share") / "spoutnik" / "keys.sqlite"


class KeyStore:
    """Opens `path`, or makes it, for its user alone. To be used by one thread at a time. Close it.

    Raises UserError where the file cannot be used, or where others may read it.
    """

    def __init__(self, path: Path, wait_s: float = WAIT_FOR_OTHERS_S):
        self.path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
            try:
                state = os.fstat(handle)
            finally:
                os.close(handle)
            if state.st_uid != os.geteuid() or stat.S_IMODE(state.st_mode) & 0o077:
                raise UserError(f"The keys in {path} are open to other users of this machine; make the file yours alone: chmod 600 {path}")
            self._db = sqlite3.connect(path, timeout=wait_s, isolation_level=None, check_same_thread=False)
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.execute("PRAGMA synchronous = FULL")
            with self._transaction():
                self._db.execute(SCHEMA)
        except (OSError, sqlite3.Error) as error:
            raise _unusable(path, error) from error

    def close(self) -> None:
        self._db.close()

    def create(self, name: str = "", limits: Limits = Limits(), now: float | None = None) -> tuple[Key, str]:
        """A new key and its secret, which is nowhere else. Raises UserError if a key that is not revoked has this name."""
        key_id, secret = new_secret()
        key = Key(key_id, digest_of(secret), name, time.time() if now is None else now, **vars(limits))
        with self._transaction():
            if name and self._db.execute("SELECT 1 FROM keys WHERE name = ? AND revoked IS NULL", (name,)).fetchone():
                raise UserError(f"There is a key {name!r} already; choose another --name, or revoke that one.")
            marks = ", ".join("?" * len(COLUMNS))
            row = [getattr(key, column) for column in COLUMNS]
            self._db.execute(f"INSERT INTO keys ({', '.join(COLUMNS)}) VALUES ({marks})", row)
        return key, secret

    def revoke(self, which: str, now: float | None = None) -> Key:
        """Ends a key, by its id or name. Raises UserError where there is none that is not ended."""
        with self._transaction():
            found = [key for key in self.all() if which in (key.id, key.name) and key.revoked is None]
            if not found:
                raise UserError(f"There is no key {which!r} that is not revoked; `spoutnik key ls` lists them.")
            self._db.execute("UPDATE keys SET revoked = ? WHERE id = ?", (time.time() if now is None else now, found[0].id))
        return found[0]

    def all(self) -> list[Key]:
        """All of them, in the order of their making."""
        try:
            rows = self._db.execute(f"SELECT {', '.join(COLUMNS)} FROM keys ORDER BY created, id").fetchall()
        except sqlite3.Error as error:
            raise _unusable(self.path, error) from error
        return [Key(*row) for row in rows]

    def version(self) -> int:
        """Another number when another connection has changed something."""
        try:
            return int(self._db.execute("PRAGMA data_version").fetchone()[0])
        except sqlite3.Error as error:
            raise _unusable(self.path, error) from error

    def spend(self, spendings: Mapping[str, Spending], now: float) -> None:
        """Adds to what keys have used; all or nothing. Raises UserError if the file cannot be written at present."""
        rows = [
            (spending.money, spending.requests, spending.prompt_tokens, spending.completion_tokens, now, key_id)
            for key_id, spending in spendings.items()
        ]
        with self._transaction():
            self._db.executemany(
                "UPDATE keys SET spent = spent + ?, requests = requests + ?, prompt_tokens = prompt_tokens + ?, "
                "completion_tokens = completion_tokens + ?, last_used = ? WHERE id = ?",
                rows,
            )

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        try:
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
            except BaseException:
                self._db.execute("ROLLBACK")
                raise
            self._db.execute("COMMIT")
        except sqlite3.Error as error:
            raise _unusable(self.path, error) from error


def _unusable(path: Path, error: Exception) -> UserError:
    return UserError(f"The file of keys {path} cannot be used ({error}); name another one with --keys.")
