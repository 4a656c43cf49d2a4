"""Who runs, in which row of the batch, and who waits. Plain Python: no tensors here.

Rows in use are always 0..n-1, so that a batch is a slice of the cache: when a request ends, the last row moves into its place.
"""

from collections import deque
from collections.abc import Callable
from collections.abc import Sequence as Items
from dataclasses import dataclass, field

from spoutnik.engine.request import FinishReason, Request
from spoutnik.errors import UserError


@dataclass(eq=False, slots=True)
class Sequence:
    """A request on its way through the engine."""

    id: int
    request: Request
    prompt_ids: tuple[int, ...]
    room: int
    """Most tokens that it may still be given."""
    token_ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    finish_reason: FinishReason | None = None

    def append(self, token: int, logprob: float) -> None:
        """Takes a new token."""
        self.token_ids.append(token)
        self.logprobs.append(logprob)
        self.room -= 1

    @property
    def last_token(self) -> int:
        """The newest token, prompt included."""
        return self.token_ids[-1] if self.token_ids else self.prompt_ids[-1]

    @property
    def last_position(self) -> int:
        """Where the newest token stands, counted from 0."""
        return len(self.prompt_ids) + len(self.token_ids) - 1


class Scheduler:
    """First come, first served: a waiting line and at most `max_batch` running rows, each of at most `max_length` tokens."""

    def __init__(self, max_batch: int, max_length: int):
        self.max_batch, self.max_length = max_batch, max_length
        self.waiting: deque[Sequence] = deque()
        self.running: list[Sequence] = []
        self._withdrawn: list[Sequence] = []
        self._next_id = 0

    @property
    def busy(self) -> bool:
        """Whether anything runs, waits, or was cancelled and not yet reported."""
        return bool(self.running or self.waiting or self._withdrawn)

    def add(self, request: Request) -> int:
        """Puts a request at the end of the line and returns its id; a prompt that leaves no room in the context raises UserError."""
        prompt_ids = tuple(request.prompt_ids)
        length = len(prompt_ids)
        if length >= self.max_length:
            raise UserError(
                f"The prompt has {length} tokens, but the context holds {self.max_length} and must have room for at least one more; "
                "shorten the prompt or use a model with a longer context."
            )
        sequence = Sequence(self._next_id, request, prompt_ids, room=min(request.max_new_tokens, self.max_length - length))
        self._next_id += 1
        self.waiting.append(sequence)
        return sequence.id

    def cancel(self, request_id: int) -> bool:
        """Ends a request where it stands; its row is free at the next `sweep`. False if it is not here (any more)."""
        for sequence in (*self.waiting, *self.running):
            if sequence.id == request_id and sequence.finish_reason is None:
                sequence.finish_reason = "cancelled"
                if sequence in self.waiting:
                    self.waiting.remove(sequence)
                    self._withdrawn.append(sequence)
                return True
        return False

    def clear(self) -> None:
        """Forgets everything without a report."""
        self.waiting.clear()
        self.running.clear()
        self._withdrawn.clear()

    def admit(self, fits: Callable[[Sequence], bool] = lambda sequence: True) -> list[Sequence]:
        """Moves from the line into rows after those in use until a row or `fits` says no, and returns who came in, in that order.

        `fits` takes what the sequence will need. The first in line is never passed by: a large request must not starve.
        """
        admitted: list[Sequence] = []
        while self.waiting and len(self.running) + len(admitted) < self.max_batch and fits(self.waiting[0]):
            admitted.append(self.waiting.popleft())
        self.running += admitted
        return admitted

    def sweep(self) -> tuple[list[Sequence], list[tuple[int, int]]]:
        """Takes out all that ended. Returns them, and the moves (from row, to row) that close the gaps.

        All sources lie behind all targets, so the moves may be made at once or in any order.
        """
        ended, self._withdrawn = self._withdrawn, []
        gone = [sequence for sequence in self.running if sequence.finish_reason is not None]
        if not gone:
            return ended, []
        kept = len(self.running) - len(gone)
        gaps = [row for row in range(kept) if self.running[row].finish_reason is not None]
        movers = [row for row in range(kept, len(self.running)) if self.running[row].finish_reason is None]
        moves = list(zip(movers, gaps, strict=True))
        for source, target in moves:
            self.running[target] = self.running[source]
        del self.running[kept:]
        return ended + gone, moves


def prefill_groups(lengths: Items[int], max_tokens: int) -> list[list[int]]:
    """Splits prompts into groups to be computed together, padded to the longest; returns indices into `lengths`, longest first.

    A group is at most `max_tokens` cells large (unless one prompt alone is larger), and of no row is more than a quarter padding, beyond
    16 tokens that cost less than another call.
    """
    groups: list[list[int]] = []
    for index in sorted(range(len(lengths)), key=lambda index: -lengths[index]):
        if groups:
            longest = lengths[groups[-1][0]]
            if longest * (len(groups[-1]) + 1) <= max_tokens and longest - lengths[index] <= max(16, longest // 4):
                groups[-1].append(index)
                continue
        groups.append([index])
    return groups
