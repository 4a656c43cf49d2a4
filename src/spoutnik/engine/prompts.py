"""Prompts on their way into the pages. Plain Python: no tensors here.

What is known of a prompt is found, in memory or on disk; the rest is computed, piece by piece, strictly in the order in which prompts came.
So whoever shares unwritten pages with an earlier prompt finds them written when its turn comes, or, if that one was cancelled, writes them.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial

from spoutnik.engine.blocks import Blocks, Table
from spoutnik.engine.scheduler import Sequence
from spoutnik.engine.shelf import Prefix, Shelf

READ_BYTES = 32 << 20
"""A step stops reading from disk after this many bytes, not to keep the running requests waiting."""


@dataclass
class Piece:
    """Tokens [start, end) of a sequence's prompt, to be computed by this step."""

    sequence: Sequence
    start: int
    end: int
    company: list[Sequence] = field(default_factory=list)
    """Later sequences of the same owner and adapter with the same prompt: they go along, and get copies of what they do not share."""

    @property
    def complete(self) -> bool:
        """Whether the prompt is cached with this piece."""
        return self.end == len(self.sequence.prompt_ids)


class Prompts:
    """Who holds which pages, and whose prompts are not cached yet. `page(number)` is a page's memory, `shelf` its place on disk if any."""

    def __init__(self, blocks: Blocks, page: Callable[[int], memoryview]):
        self.blocks, self._page = blocks, page
        self.shelf: Shelf | None = None
        self.adapters: Mapping[str, tuple[int, bytes]] = {"": (-1, bytes(32))}
        """By name a number, and 32 bytes that tell the pages of one adapter from those of another."""
        self.tables: dict[int, Table] = {}
        self.unfinished: dict[int, Sequence] = {}
        self._prefixes: dict[int, Prefix] = {}  # of the sequences that are here, where there is a shelf
        self._seeking: set[int] = set()  # those of whose prompts there may be more on disk
        self._may_read = 0

    def admit(self, sequence: Sequence) -> bool:
        """Takes all the pages that the sequence may ever need and those that hold its prompt's beginning; False if there are too few."""
        prompt, owner = sequence.prompt_ids, sequence.request.owner
        number, adapter = self.adapters[sequence.request.adapter]
        # The last token is computed: its logits are wanted.
        table = self.blocks.acquire(prompt[:-1], len(prompt) + sequence.room, (owner, adapter))
        if table is None:
            return False
        table.adapter = number
        self.blocks.remember(table, prompt)
        sequence.cached_tokens = table.written
        self.tables[sequence.id], self.unfinished[sequence.id] = table, sequence
        if self.shelf is not None:
            self._prefixes[sequence.id] = self.shelf.prefix(owner, prompt, adapter)
            self._seeking.add(sequence.id)
        return True

    def plan(self, rows: int) -> list[Piece]:
        """What the next call computes, at most `rows` tokens. From here on it counts as written: a call that fails must end in `reset`."""
        pieces: list[Piece] = []
        company: dict[tuple[str, str, tuple[int, ...]], list[Sequence]] = {}
        self._may_read = READ_BYTES
        for sequence in self.unfinished.values():
            key = (sequence.request.owner, sequence.request.adapter, sequence.prompt_ids)
            if key in company:
                company[key].append(sequence)
                continue
            company[key] = []
            if rows and self._find(sequence):
                table = self.tables[sequence.id]
                piece = Piece(sequence, table.written, min(table.written + rows, len(sequence.prompt_ids)), company[key])
                self.blocks.write(table, piece.end)
                sequence.computed_tokens += piece.end - piece.start
                pieces.append(piece)
                rows -= piece.end - piece.start
            else:
                rows = 0
        return pieces

    def finish(self, pieces: list[Piece]) -> None:
        """The pieces were computed; gives those whose prompts are complete, and their company, what they lack."""
        size = self.blocks.page_size
        for piece in pieces:
            if not piece.complete:
                continue
            del self.unfinished[piece.sequence.id]
            pages = self.tables[piece.sequence.id].pages
            for sequence in piece.company:
                del self.unfinished[sequence.id]
                table = self.tables[sequence.id]
                self.blocks.catch_up(table)
                for index in range(table.written // size, self.blocks.needed(piece.end)):
                    self._page(table.pages[index])[:] = self._page(pages[index])
                self.blocks.write(table, piece.end)
                sequence.cached_tokens = piece.end

    def release(self, sequence: Sequence) -> None:
        """Gives an ended sequence's pages back: what they hold stays findable, and of the prompt what is written is kept on disk."""
        table = self.tables.pop(sequence.id, None)
        if table is None:
            return
        if self.unfinished.pop(sequence.id, None) is None:
            self.blocks.write(table, sequence.last_position)
            self.blocks.remember(table, [*sequence.prompt_ids, *sequence.token_ids][: sequence.last_position])
        self._seeking.discard(sequence.id)
        prefix = self._prefixes.pop(sequence.id, None)
        if self.shelf is not None and prefix is not None:
            for index in range(min(len(prefix.names), table.written // self.blocks.page_size)):
                page = table.pages[index]
                serial = self.blocks.serial(page)
                if serial is not None:
                    self.shelf.keep(prefix, index, partial(self._copy, page, serial))
        self.blocks.release(table)

    def reset(self) -> None:
        """Something failed: frees and forgets all pages. Those in use may hold NaN, and 0 times NaN is not 0 to who gets them next."""
        for page in self.blocks.clear():
            self._page(page)[:] = bytes(len(self._page(page)))
        for known in (self.tables, self.unfinished, self._prefixes, self._seeking):
            known.clear()

    def _find(self, sequence: Sequence) -> bool:
        """Notes what is there of a prompt, in memory or on disk; False if there may be more on disk, but not in this step."""
        table = self.tables[sequence.id]
        before = table.written
        self.blocks.catch_up(table)
        while sequence.id in self._seeking and self._may_read > 0:
            self._read(sequence, table)
        sequence.cached_tokens += table.written - before
        return sequence.id not in self._seeking

    def _read(self, sequence: Sequence, table: Table) -> None:
        """Reads the next page of a prompt from disk, or finds that there is none."""
        index, part = divmod(table.written, self.blocks.page_size)
        if self.shelf is not None and not part and index < (len(sequence.prompt_ids) - 1) // self.blocks.page_size:
            page = self._page(table.pages[index])
            if self.shelf.read(self._prefixes[sequence.id], index, page):
                self._may_read -= len(page)
                self.blocks.write(table, (index + 1) * self.blocks.page_size)
                self.blocks.catch_up(table)
                return
        self._seeking.remove(sequence.id)

    def _copy(self, page: int, serial: int) -> bytes | None:
        """A page's bytes, if it still holds what had this serial number. Checked after copying: no number comes twice."""
        copied = bytes(self._page(page))
        return copied if self.blocks.serial(page) == serial else None
