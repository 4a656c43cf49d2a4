"""One model's prompts in a store: how their pages are named there, and what a page's file says it is."""

import struct
import time
from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from spoutnik.engine.store import Store

FORMAT = b"spoutnik page 1\n"


@dataclass(frozen=True)
class Prefix:
    """The whole pages of one owner's prompt."""

    names: list[str]
    owner: bytes
    """A keyed hash of the adapter and the owner: the name itself does not lie on the disk."""
    tokens: bytes
    """int32"""
    used_ns: int
    """When it was asked for, in nanoseconds of the clock that files have."""


class Shelf:
    """The pages, of `page_tokens` tokens and `page_bytes` bytes, that models with this `fingerprint` compute."""

    def __init__(self, store: Store, fingerprint: bytes, page_tokens: int, page_bytes: int):
        self._store, self._page_tokens = store, page_tokens
        self._about = FORMAT + struct.pack("<32sQQ", fingerprint, page_tokens, page_bytes)

    def prefix(self, owner: str, tokens: Sequence[int], adapter: bytes = bytes(32)) -> Prefix:
        """Names every whole page of a prompt by all tokens up to its end, its owner, and the adapter's 32 bytes (zeros: none)."""
        whole = len(tokens) // self._page_tokens
        written, size = array("i", tokens[: whole * self._page_tokens]).tobytes(), self._page_tokens * array("i").itemsize
        hidden = self._store.keyed("owner", adapter + owner.encode()).digest()
        name, names = self._store.keyed("name", self._about + hidden), []
        for start in range(0, len(written), size):
            name.update(written[start : start + size])
            names.append(name.hexdigest())
        return Prefix(names, hidden, written, time.time_ns())

    def read(self, prefix: Prefix, index: int, into: memoryview) -> bool:
        """Fills `into` with a page of a prompt; False if it is not there. `Store.read` says what is checked."""
        return self._store.read(prefix.names[index], self._header(prefix, index), into, _moment(prefix, index))

    def keep(self, prefix: Prefix, index: int, copy: Callable[[], bytes | None]) -> None:
        """Has a page written; see `Store.keep`."""
        self._store.keep(prefix.names[index], self._header(prefix, index), copy, _moment(prefix, index))

    def _header(self, prefix: Prefix, index: int) -> bytes:
        tokens = prefix.tokens[: (index + 1) * len(prefix.tokens) // len(prefix.names)]
        return self._about + prefix.owner + struct.pack("<Q", len(tokens)) + tokens


def _moment(prefix: Prefix, index: int) -> int:
    """A microsecond less for each page before: the end of a prompt is forgotten before its beginning."""
    return prefix.used_ns - 1000 * index
