"""The ledger of requests: what was asked of whom, what came back and what it cost. One SQLite file, for any number of processes.

A request is known by a hash of all that decides its answer. Before it is sent, it is written down as asked and the most that it can cost
is booked, in one transaction that also checks the cap; only then does it go out. So whatever dies at whatever moment,

- an answer that was written down is never asked for again, by any process;
- a request in flight belongs to one living process (who holds the kernel's lock on a file of its own), and others wait for its answer;
- a request whose owner died before the answer was written may have been paid: its booking stays, as doubtful, and it is asked once more.
  If that ends in the same way it counts as failed;
- what is booked (paid, doubtful and in flight) never exceeds the cap, as long as providers charge no more than what a request allows.
"""

import contextlib
import fcntl
import os
import sqlite3
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from spoutnik.errors import UserError

SCHEMA = """
CREATE TABLE IF NOT EXISTS requests (
    key TEXT PRIMARY KEY, state TEXT NOT NULL CHECK (state IN ('asked', 'answered', 'failed')), owner TEXT, payment INTEGER,
    crashes INTEGER NOT NULL DEFAULT 0, final INTEGER NOT NULL DEFAULT 0, request TEXT NOT NULL, answer TEXT, error TEXT, changed REAL
);
CREATE TABLE IF NOT EXISTS payments (
    id INTEGER PRIMARY KEY, purse TEXT NOT NULL, state TEXT NOT NULL CHECK (state IN ('open', 'paid', 'doubtful')), money INTEGER NOT NULL,
    prompt_tokens INTEGER NOT NULL DEFAULT 0, completion_tokens INTEGER NOT NULL DEFAULT 0
);
CREATE INDEX IF NOT EXISTS payments_sums ON payments (purse, state, money, prompt_tokens, completion_tokens);
"""
WAIT_FOR_OTHERS_S = 60.0
TWICE = "twice the program ended before the answer came; it may have been paid twice and is not asked a third time"


class CapReachedError(Exception):
    """Booking this request could exceed the cap."""


@dataclass(frozen=True)
class Found:
    """What the ledger knows of a request: "free" to be claimed, "mine" after a claim, "busy" elsewhere, answered or failed for good."""

    state: Literal["free", "mine", "busy", "answered", "failed"]
    text: str = ""
    """The answer, or why there is none."""


@dataclass(frozen=True)
class Totals:
    """Sums over a purse. Money in billionths."""

    paid: int
    doubtful: int
    in_flight: int
    answers: int
    prompt_tokens: int
    completion_tokens: int

    @property
    def booked(self) -> int:
        return self.paid + self.doubtful + self.in_flight


class RequestLedger:
    """Opens `path`, or makes it, readable by its user alone. Not to be shared by threads or carried over a fork. Close it."""

    def __init__(self, path: Path):
        self.path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
            self._db = sqlite3.connect(path, timeout=WAIT_FOR_OTHERS_S, isolation_level=None)
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.execute("PRAGMA synchronous = FULL")
            with self._transaction():
                for statement in SCHEMA.split(";"):
                    self._db.execute(statement)
            self._owners = path.with_name(path.name + ".owners")
            self._owners.mkdir(mode=0o700, exist_ok=True)
            self._owner = uuid.uuid4().hex
            self._lock = os.open(self._owners / self._owner, os.O_RDWR | os.O_CREAT, 0o600)
            fcntl.flock(self._lock, fcntl.LOCK_EX)
        except (OSError, sqlite3.Error) as error:
            raise UserError(f"The teacher's ledger {path} cannot be used ({error}); name another file with `ledger`.") from error

    def close(self) -> None:
        """Gives up what is still in flight: it counts as if the program had ended."""
        self._db.close()
        (self._owners / self._owner).unlink(missing_ok=True)
        os.close(self._lock)

    def find(self, key: str) -> Found:
        """What is known of a request, without claiming it."""
        with self._transaction():
            return self._find(key)

    def claim(self, key: str, request: str, purse: str, worst: int, cap: int) -> Found:
        """Makes a free request this process's own and books `worst`; then it may be sent, once. Raises CapReachedError."""
        with self._transaction():
            found = self._find(key)
            if found.state != "free":
                return found
            crashes = self._doubt_the_old_payment(key)
            payment = self._book(purse, worst, cap)
            self._db.execute(
                "INSERT INTO requests (key, state, owner, payment, crashes, request, changed) VALUES (?, 'asked', ?, ?, ?, ?, ?) "
                "ON CONFLICT (key) DO UPDATE SET state = 'asked', owner = excluded.owner, payment = excluded.payment, "
                "crashes = excluded.crashes, final = 0, error = NULL, changed = excluded.changed",
                (key, self._owner, payment, crashes, request, time.time()),
            )
            return Found("mine")

    def again(self, key: str, purse: str, worst: int, cap: int) -> None:
        """Before a claimed request is sent once more, though the attempt before may have been paid. Raises CapReachedError."""
        with self._transaction():
            self._settle(key, "doubtful")
            payment = self._book(purse, worst, cap)
            self._db.execute("UPDATE requests SET payment = ? WHERE key = ?", (payment, key))

    def answered(self, key: str, answer: str, money: int, prompt_tokens: int, completion_tokens: int) -> None:
        with self._transaction():
            self._db.execute(
                "UPDATE payments SET state = 'paid', money = ?, prompt_tokens = ?, completion_tokens = ? "
                "WHERE id = (SELECT payment FROM requests WHERE key = ?)",
                (money, prompt_tokens, completion_tokens, key),
            )
            self._end(key, "answered", answer=answer)

    def failed(self, key: str, error: str, final: bool, doubtful: bool) -> None:
        """No answer. `final` ones are not asked again by later runs; `doubtful` says that the last attempt may have been paid."""
        with self._transaction():
            self._settle(key, "doubtful" if doubtful else None)
            self._end(key, "failed", error=error, final=final)

    def abandon(self, key: str) -> None:
        """The answer is no longer waited for: as if the program had ended with the request in flight."""
        with self._transaction():
            self._db.execute("UPDATE requests SET owner = NULL WHERE key = ? AND owner = ?", (key, self._owner))

    def totals(self, purse: str) -> Totals:
        sums = {"open": (0, 0, 0, 0), "paid": (0, 0, 0, 0), "doubtful": (0, 0, 0, 0)}
        for state, *row in self._db.execute(
            "SELECT state, sum(money), count(*), sum(prompt_tokens), sum(completion_tokens) FROM payments WHERE purse = ? GROUP BY state",
            (purse,),
        ):
            sums[state] = (row[0], row[1], row[2], row[3])
        money, answers, prompt, completion = sums["paid"]
        return Totals(money, sums["doubtful"][0], sums["open"][0], answers, prompt, completion)

    def _find(self, key: str) -> Found:
        row = self._db.execute("SELECT state, owner, crashes, final, answer, error FROM requests WHERE key = ?", (key,)).fetchone()
        if row is None:
            return Found("free")
        state, owner, crashes, final, answer, error = row
        if state == "answered":
            return Found("answered", answer)
        if state == "failed":
            return Found("failed", error) if final else Found("free")
        if owner is not None and self._lives(owner):
            return Found("busy")
        if crashes:
            self._settle(key, "doubtful")
            self._end(key, "failed", error=TWICE, final=True)
            return Found("failed", TWICE)
        return Found("free")

    def _doubt_the_old_payment(self, key: str) -> int:
        """Returns how often the request was left in flight, the time that is noticed now included."""
        state, crashes = self._db.execute("SELECT state, crashes FROM requests WHERE key = ?", (key,)).fetchone() or ("", 0)
        self._settle(key, "doubtful")
        return int(crashes + (state == "asked"))

    def _book(self, purse: str, worst: int, cap: int) -> int:
        (booked,) = self._db.execute("SELECT coalesce(sum(money), 0) FROM payments WHERE purse = ?", (purse,)).fetchone()
        if booked + worst > cap:
            raise CapReachedError
        made = self._db.execute("INSERT INTO payments (purse, state, money) VALUES (?, 'open', ?)", (purse, worst)).lastrowid
        assert made is not None, "an insert has a row"
        return made

    def _settle(self, key: str, state: Literal["doubtful"] | None) -> None:
        """Ends the open payment of a request: it may have been paid, or (None) it was not."""
        which = "WHERE id = (SELECT payment FROM requests WHERE key = ?) AND state = 'open'"
        if state is None:
            self._db.execute(f"DELETE FROM payments {which}", (key,))
        else:
            self._db.execute(f"UPDATE payments SET state = ? {which}", (state, key))

    def _end(self, key: str, state: str, answer: str | None = None, error: str | None = None, final: bool = False) -> None:
        self._db.execute(
            "UPDATE requests SET state = ?, owner = NULL, payment = NULL, answer = ?, error = ?, final = ?, changed = ? WHERE key = ?",
            (state, answer, error, final, time.time(), key),
        )

    def _lives(self, owner: str) -> bool:
        """Whether the process that signed so still runs: it holds the lock on its file until it ends, however it ends."""
        if owner == self._owner:
            return True
        try:
            file = os.open(self._owners / owner, os.O_RDWR)
        except FileNotFoundError:
            return False
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(file)
        (self._owners / owner).unlink(missing_ok=True)
        return False

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        """All or nothing, one process at a time. Raises UserError if the file cannot be written."""
        try:
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._db.execute("COMMIT")
            except BaseException:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise
        except sqlite3.Error as error:
            raise UserError(
                f"The teacher's ledger {self.path} cannot be written ({error}); nothing that was answered is lost: mend that and go on."
            ) from error
