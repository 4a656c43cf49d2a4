"""Pages of the cache: who holds which, and which of them hold the beginning of a prompt that came before. Plain Python: no tensors here.

A page whose tokens are all known is remembered under those tokens and the page before it, so that what is found has been compared token
by token, not by a hash. A remembered page that nobody holds stays until its room is needed; then the one unused longest goes first.
"""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

Key = tuple[int, tuple[int, ...]]
"""(serial number of the page before, or that of the root; the page's own tokens)"""


@dataclass
class Table:
    """The pages of one sequence, in order, and how much of them is known."""

    pages: list[int]
    cached: int
    """Tokens that were found, from the first one on; a whole number of pages."""
    serial: int
    """Serial number of the last remembered page, or the root's."""
    remembered: int
    """How many pages of the table are remembered."""


class Blocks:
    """A pool of `pages` pages of `page_size` tokens."""

    def __init__(self, pages: int, page_size: int):
        self.pages, self.page_size = pages, page_size
        self._holders = [0] * pages
        self._free = list(range(pages - 1, -1, -1))
        self._found: dict[Key, int] = {}
        self._key_of: dict[int, Key] = {}
        self._serial_of: dict[int, int] = {}
        self._unheld: OrderedDict[int, None] = OrderedDict()
        self._roots: dict[str, int] = {}
        self._next_serial = 0

    @property
    def available(self) -> int:
        """Pages that a new sequence may have: free ones and remembered ones that nobody holds."""
        return len(self._free) + len(self._unheld)

    def needed(self, tokens: int) -> int:
        """Pages for so many tokens."""
        return -(-tokens // self.page_size)

    def acquire(self, tokens: Sequence[int], most_tokens: int, owner: str = "") -> Table | None:
        """Pages for a sequence that starts with `tokens` and grows to `most_tokens`; None if there are too few now.

        All are taken at once, so that what runs cannot run out. Only pages that the same `owner` filled are shared.
        """
        size, serial = self.page_size, self._root(owner)
        shared: list[int] = []
        for start in range(0, len(tokens) - size + 1, size):
            page = self._found.get((serial, tuple(tokens[start : start + size])))
            if page is None:
                break
            shared.append(page)
            serial = self._serial_of[page]
        fresh = self.needed(most_tokens) - len(shared)
        if fresh > self.available - sum(page in self._unheld for page in shared):
            return None
        for page in shared:
            self._hold(page)
        pages = shared + [self._take() for _ in range(fresh)]
        return Table(pages, len(shared) * size, serial, len(shared))

    def remember(self, table: Table, tokens: Sequence[int]) -> None:
        """Says that the table's pages hold (or will before anyone reads them) these tokens from the first on, and remembers full pages."""
        size = self.page_size
        while (table.remembered + 1) * size <= len(tokens):
            start = table.remembered * size
            key = (table.serial, tuple(tokens[start : start + size]))
            page = table.pages[table.remembered]
            known = self._found.setdefault(key, page)
            if known == page:
                self._key_of[page], self._serial_of[page] = key, self._serial()
            table.serial = self._serial_of[known]  # the same tokens on another page lead on to the same children
            table.remembered += 1

    def release(self, table: Table) -> None:
        """Gives a sequence's pages back; remembered ones stay findable."""
        for page in reversed(table.pages):  # the end of a prompt is forgotten before its beginning
            self._holders[page] -= 1
            if self._holders[page] == 0:
                if page in self._key_of:
                    self._unheld[page] = None
                else:
                    self._free.append(page)
        table.pages = []

    def forget(self) -> None:
        """Forgets every remembered page: the model's weights changed, or what they hold is not to be trusted."""
        self._free += self._unheld
        self._unheld.clear()
        self._found.clear()
        self._key_of.clear()
        self._serial_of.clear()

    def _root(self, owner: str) -> int:
        if owner not in self._roots:
            self._roots[owner] = self._serial()
        return self._roots[owner]

    def _serial(self) -> int:
        self._next_serial += 1
        return self._next_serial

    def _hold(self, page: int) -> None:
        self._unheld.pop(page, None)
        self._holders[page] += 1

    def _take(self) -> int:
        if self._free:
            page = self._free.pop()
        else:
            page, _ = self._unheld.popitem(last=False)
            del self._found[self._key_of.pop(page)]
            del self._serial_of[page]
        self._holders[page] = 1
        return page
