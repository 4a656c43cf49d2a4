"""The `Authenticator` of a server with keys: recognises them, keeps each within its limits, and writes down what it used.

What keys there are is asked of the file before each request, by a number that changes when others write; what was used is written once a
second, so a server that is killed forgets at most that. Rates are counted by each process for itself.
"""

import asyncio
import logging
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from spoutnik.errors import UserError
from spoutnik.serve.allowance import Allowance
from spoutnik.serve.auth import Balance, Principal
from spoutnik.serve.backend import Usage
from spoutnik.serve.errors import OverloadedError, QuotaError, RateLimitError, UnauthorisedError
from spoutnik.serve.keys.bucket import Bucket
from spoutnik.serve.keys.key import Key, id_of, matches
from spoutnik.serve.keys.store import KeyStore, Spending
from spoutnik.teacher.money import BILLIONTHS, money

WRITE_EVERY_S = 1.0
BUSY_RETRY_S = 1.0
log = logging.getLogger(__name__)


@dataclass
class _Use:
    """What is known of a key in this process alone."""

    requests: Bucket | None
    tokens: Bucket | None
    active: int = 0
    pending: Spending = field(default_factory=Spending)
    """Used, and not yet written down."""


class Keyring:
    """Belongs to the event loop. `currency` is what the server counts money in, None where it counts none."""

    required = True

    def __init__(
        self, store: KeyStore, currency: str | None, clock: Callable[[], float] = time.monotonic, wall: Callable[[], float] = time.time
    ):  # fmt: skip
        self._store, self._currency, self._clock, self._wall = store, currency, clock, wall
        self._version: int | None = None
        self._keys: dict[str, Key] = {}
        self._uses: dict[str, _Use] = {}
        self._writing: asyncio.TimerHandle | None = None

    async def authenticate(self, headers: Mapping[str, str]) -> Principal:
        self._look()
        presented = _presented(headers)
        key = self._keys.get(id_of(presented))
        if not matches(key, presented) or key is None:
            raise UnauthorisedError("The key is missing or unknown: send one as `Authorization: Bearer KEY` or `x-api-key: KEY`.")
        if not key.usable(self._wall()):
            raise UnauthorisedError(f"The key {key.id} {'has expired' if key.revoked is None else 'was revoked'}; ask for a new one.")
        return Principal(key.id)

    def enter(self, principal: Principal) -> None:
        key, use, now = self._keys[principal.id], self._use(principal.id), self._clock()
        if key.concurrent is not None and use.active >= key.concurrent:
            raise RateLimitError(f"{use.active} requests with this key are under way, as many as it may have.", code="rate_limit_exceeded")
        if use.requests is not None:
            if (wait := use.requests.wait(1, now)) > 0:
                message = f"This key may send {key.requests_per_minute} requests a minute."
                raise RateLimitError(message, wait, code="rate_limit_exceeded")
            use.requests.take(1, now)
        use.active += 1

    def leave(self, principal: Principal) -> None:
        self._use(principal.id).active -= 1

    async def admit(self, principal: Principal, prompt_tokens: int, most_tokens: int) -> None:
        key, use, now = self._keys[principal.id], self._use(principal.id), self._clock()
        if key.budget is not None:
            if key.currency != self._currency:
                counted = "nothing" if self._currency is None else self._currency
                raise QuotaError(
                    f"This key's budget is in {key.currency}, but this server counts {counted}; its operator has to mend that."
                )
            if self._spent(key) >= key.budget:
                raise QuotaError(f"Insufficient balance: this key's budget of {money(key.budget, key.currency)} is spent.")
        if use.tokens is not None:
            if (wait := use.tokens.wait(prompt_tokens, now)) > 0:
                message = f"This key may use {key.tokens_per_minute} tokens a minute, and the prompt has {prompt_tokens}."
                raise RateLimitError(message, wait, code="rate_limit_exceeded")
            use.tokens.take(prompt_tokens, now)

    def charge(self, principal: Principal, usage: Usage) -> None:
        use, old = self._use(principal.id), self._use(principal.id).pending
        if use.tokens is not None:
            use.tokens.take(usage.completion_tokens, self._clock())
        use.pending = Spending(
            old.money + math.ceil(usage.cost.money * BILLIONTHS), old.requests + 1, old.prompt_tokens + usage.prompt_tokens,
            old.completion_tokens + usage.completion_tokens,
        )  # fmt: skip
        if self._writing is None:
            self._writing = asyncio.get_running_loop().call_later(WRITE_EVERY_S, self._write)

    async def balance(self, principal: Principal) -> Balance | None:
        key = self._keys[principal.id]
        return None if key.budget is None else Balance(key.currency, (key.budget - self._spent(key)) / BILLIONTHS)

    def allowances(self, principal: Principal) -> dict[str, Allowance]:
        use, now = self._use(principal.id), self._clock()
        buckets = {"requests": use.requests, "tokens": use.tokens}
        return {name: bucket.allowance(now) for name, bucket in buckets.items() if bucket is not None}

    async def close(self) -> None:
        if self._writing is not None:
            self._writing.cancel()
            self._write()
        self._store.close()

    def _look(self) -> None:
        """Takes up what changed in the file."""
        try:
            if (version := self._store.version()) != self._version:
                self._keys = {key.id: key for key in self._store.all()}
                self._version = version
        except UserError as error:
            log.error("the keys cannot be read, so nobody is let in", extra={"fields": {"reason": str(error)}})
            raise OverloadedError("The server cannot look up keys at present.") from error

    def _use(self, key_id: str) -> _Use:
        if key_id not in self._uses:
            key, now = self._keys[key_id], self._clock()
            requests, tokens = (None if limit is None else Bucket(limit, now) for limit in (key.requests_per_minute, key.tokens_per_minute))
            self._uses[key_id] = _Use(requests, tokens)
        return self._uses[key_id]

    def _spent(self, key: Key) -> int:
        return key.spent + self._use(key.id).pending.money

    def _write(self) -> None:
        """Writes down what was used; later, if another process writes just now."""
        self._writing = None
        pending = {key_id: use.pending for key_id, use in self._uses.items() if use.pending != Spending()}
        try:
            self._store.spend(pending, self._wall())
        except UserError as error:
            log.warning("what keys have used could not be written down; it is tried again", extra={"fields": {"reason": str(error)}})
            self._writing = asyncio.get_running_loop().call_later(BUSY_RETRY_S, self._write)
            return
        for key_id in pending:
            self._uses[key_id].pending = Spending()
        self._keys = {key.id: key for key in self._store.all()}  # one's own writing does not change the version


def _presented(headers: Mapping[str, str]) -> str:
    """The key that a request carries, "" if none."""
    scheme, _, credentials = headers.get("authorization", "").partition(" ")
    return credentials.strip() if scheme.lower() == "bearer" else headers.get("x-api-key", "").strip()
