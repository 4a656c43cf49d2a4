"""Pages of the cache: who holds which, and which of them hold the beginning of a prompt that came before. Plain Python: no tensors here.

A page whose tokens are all known is remembered under those tokens and the page before it, so that what is found has been compared token
by token, not by a hash. A remembered page that nobody holds stays until its room is needed; then the one unused longest goes first.

A page may be remembered before it is written: it is promised. Who finds it holds it, too, and may write it if the first one does not.
"""

from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

Key = tuple[int, tuple[int, ...]]
"""(serial number of the page before, or that of the root; the page's own tokens)"""


@dataclass(frozen=True)
class Pages:
    """How many pages there are of each kind."""

    used: int = 0
    """Held by sequences."""
    free: int = 0
    cached: int = 0
    """Held by nobody, but remembered; they are free for whoever needs them."""

    def __add__(self, other: "Pages") -> "Pages":
        return Pages(self.used + other.used, self.free + other.free, self.cached + other.cached)


@dataclass
class Table:
    """The pages of one sequence, in order, and how much of them is known."""

    pages: list[int]
    cached: int
    """Tokens that were found, from the first one on, promised ones included; a whole number of pages."""
    written: int
    """Tokens that the pages hold by now, from the first one on."""
    serial: int
    """Serial number of the last remembered page, or the root's."""
    remembered: int
    """How many pages of the table are remembered."""
    adapter: int = -1
    """The number of the adapter under which they are filled, -1 for none."""


class Blocks:
    """A pool of `pages` pages of `page_size` tokens. `clean` is called with every page that is taken to be written."""

    def __init__(self, pages: int, page_size: int, clean: Callable[[int], None] | None = None):
        self.pages, self.page_size, self._clean = pages, page_size, clean
        self._holders = [0] * pages
        self._free = list(range(pages - 1, -1, -1))
        self._found: dict[Key, int] = {}
        self._key_of: dict[int, Key] = {}
        self._serial_of: dict[int, int] = {}
        self._promised: set[int] = set()
        self._unheld: OrderedDict[int, None] = OrderedDict()
        self._roots: dict[Hashable, int] = {}
        self._next_serial = 0

    @property
    def available(self) -> int:
        """Pages that a new sequence may have: free ones and remembered ones that nobody holds."""
        return len(self._free) + len(self._unheld)

    @property
    def count(self) -> Pages:
        """All of them, by kind; may be asked from any thread."""
        free, cached = len(self._free), len(self._unheld)
        return Pages(self.pages - free - cached, free, cached)

    def needed(self, tokens: int) -> int:
        """Pages for so many tokens."""
        return -(-tokens // self.page_size)

    def acquire(self, tokens: Sequence[int], most_tokens: int, owner: Hashable = "") -> Table | None:
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
        table = Table(pages, cached=len(shared) * size, written=0, serial=serial, remembered=len(shared))
        self.catch_up(table)
        return table

    def remember(self, table: Table, tokens: Sequence[int]) -> None:
        """Says which tokens, from the first on, the table's pages hold or will hold; remembers full pages, unwritten ones as promised."""
        size = self.page_size
        while (table.remembered + 1) * size <= len(tokens):
            start = table.remembered * size
            key = (table.serial, tuple(tokens[start : start + size]))
            page = table.pages[table.remembered]
            known = self._found.setdefault(key, page)
            if known == page:
                self._key_of[page], self._serial_of[page] = key, self._new_serial()
                if start + size > table.written:
                    self._promised.add(page)
            table.serial = self._serial_of[known]  # the same tokens on another page lead on to the same children
            table.remembered += 1

    def write(self, table: Table, tokens: int) -> None:
        """The table's pages hold so many tokens now, from the first on."""
        self._promised.difference_update(table.pages[table.written // self.page_size : tokens // self.page_size])
        table.written = max(table.written, tokens)

    def unwrite(self, table: Table) -> None:
        """What was said to be written may not be: the table is of no use any more, and who shares its pages writes them again."""
        self._promised.update(table.pages)

    def catch_up(self, table: Table) -> None:
        """Notes in `table.written` which of its shared pages others have written by now."""
        size = self.page_size
        while table.written < table.cached and table.pages[table.written // size] not in self._promised:
            table.written = (table.written // size + 1) * size

    def serial(self, page: int) -> int | None:
        """The number of what a remembered page holds, never used again for anything else; None if it is not remembered."""
        return self._serial_of.get(page)

    def release(self, table: Table) -> None:
        """Gives a sequence's pages back; remembered ones stay findable, but not what was promised and is now written by nobody."""
        for page in reversed(table.pages):  # the end of a prompt is forgotten before its beginning
            self._holders[page] -= 1
            if self._holders[page] == 0:
                if page in self._key_of and page not in self._promised:
                    self._unheld[page] = None
                else:
                    self._drop(page)
                    self._free.append(page)
        table.pages = []

    def forget(self) -> None:
        """Forgets every remembered page: the model's weights changed."""
        self._free += self._unheld
        for known in (self._unheld, self._found, self._key_of, self._serial_of, self._roots):
            known.clear()

    def clear(self) -> list[int]:
        """Frees and forgets every page, whatever happened to its holders; returns those that somebody held."""
        held = [page for page in range(self.pages) if self._holders[page]]
        self.forget()
        self._promised.clear()
        self._holders = [0] * self.pages
        self._free = list(range(self.pages - 1, -1, -1))
        return held

    def _root(self, owner: Hashable) -> int:
        if owner not in self._roots:
            if len(self._roots) >= 2 * self.pages:  # those of owners of whom nothing is remembered
                parents = {serial for serial, _ in self._found}
                self._roots = {known: serial for known, serial in self._roots.items() if serial in parents}
            self._roots[owner] = self._new_serial()
        return self._roots[owner]

    def _new_serial(self) -> int:
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
            self._drop(page)
        self._holders[page] = 1
        if self._clean is not None:
            self._clean(page)
        return page

    def _drop(self, page: int) -> None:
        """What the page holds, if it is remembered, cannot be found any more."""
        self._promised.discard(page)
        self._serial_of.pop(page, None)
        if page in self._key_of:
            del self._found[self._key_of.pop(page)]
