"""Who runs, in which row of the batch, and who waits. Plain Python: no tensors here.

Rows in use are always 0..n-1, so that a batch is a slice of the cache: when a request ends, the last row moves into its place.
"""

import time
from collections import deque
from collections.abc import Callable
from collections.abc import Sequence as Items
from dataclasses import dataclass, field

from spoutnik.engine.request import FinishReason, Request, Top
from spoutnik.engine.steering import Steering
from spoutnik.errors import UserError

ENDS = 32
"""How many of the last ends the pace is measured on."""


class QueueFullError(UserError):
    """The line is as long as it may be. `waiting` requests are in it; a place is likely to come free in `retry_after` seconds.

    `retry_after` is the mean time between the last ends of requests, None before the first.
    """

    def __init__(self, waiting: int, retry_after: float | None):
        self.waiting, self.retry_after = waiting, retry_after
        when = "soon" if retry_after is None else f"in about {max(1, round(retry_after))} s"
        super().__init__(f"The line is full ({waiting} waiting); try again {when}.")


@dataclass(eq=False, slots=True)
class Sequence:
    """A request on its way through the engine."""

    id: int
    request: Request
    prompt_ids: tuple[int, ...]
    """What is read before anything is drawn: the request's prompt, and what was begun of its answer."""
    room: int
    """Most tokens that it may still be given."""
    token_ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    finish_reason: FinishReason | None = None
    cached_tokens: int = 0
    """Tokens of its prompt that were not computed for it."""
    computed_tokens: int = 0
    """Tokens of its prompt that were computed for it until now."""
    drafted_tokens: int = 0
    accepted_tokens: int = 0
    """Tokens that were guessed before they were drawn, and those of them that were right."""
    steering: Steering | None = None
    """What is different about its draws; None for most."""
    top_logprobs: list[Top] = field(default_factory=list)
    error: str | None = None

    def append(self, token: int, logprob: float, top: Top | None) -> None:
        """Takes a new token."""
        self.token_ids.append(token)
        self.logprobs.append(logprob)
        if top is not None:
            self.top_logprobs.append(top)
        self.room -= 1

    @property
    def last_token(self) -> int:
        """The newest token, prompt included."""
        return self.token_ids[-1] if self.token_ids else self.prompt_ids[-1]

    @property
    def last_position(self) -> int:
        """Where the newest token stands, counted from 0."""
        return len(self.prompt_ids) + len(self.token_ids) - 1


Drawn = tuple[Sequence, int, float, Top | None]
"""A sequence's next token, its log-probability, and the likeliest ones where they are asked for. A sequence may be given several in one
step, in order; one with `steering` is given one."""


class Scheduler:
    """First come, first served: a waiting line and at most `max_batch` running rows, each of at most `max_length` tokens.

    At most `max_queue` wait, beside those for which a row is free already (None: no bound). `most_tokens` is what the memory holds of one
    request (None: a whole context). `clock` gives seconds.
    """

    def __init__(
        self, max_batch: int, max_length: int, max_queue: int | None = None, most_tokens: int | None = None,
        clock: Callable[[], float] = time.monotonic,
    ):  # fmt: skip
        self.max_batch, self.max_length, self.max_queue = max_batch, max_length, max_queue
        self.most_tokens = max_length if most_tokens is None else most_tokens
        self.waiting: deque[Sequence] = deque()
        self.running: list[Sequence] = []
        self._withdrawn: list[Sequence] = []
        self._next_id = 0
        self._clock = clock
        self._ends: deque[float] = deque(maxlen=ENDS + 1)  # when the last requests ended; the first entry is where measuring begins
        self._short_of_memory = False

    @property
    def busy(self) -> bool:
        """Whether anything runs, waits, or was cancelled and not yet reported."""
        return bool(self.running or self.waiting or self._withdrawn)

    def add(self, request: Request, steering: Steering | None = None) -> int:
        """Puts a request at the end of the line and returns its id.

        Raises UserError for what can never run: a prompt that leaves no room in the context, more tokens than the memory holds. Raises
        QueueFullError if too many wait.
        """
        begun, length = request.begun.token_ids, len(request.prompt_ids)
        if length >= self.max_length:
            raise UserError(
                f"The prompt has {length} tokens, but the context holds {self.max_length} and must have room for at least one more; "
                "shorten the prompt or use a model with a longer context."
            )
        room = min(request.max_new_tokens, self.max_length - length)
        if len(begun) >= room:
            raise UserError(f"The answer has {len(begun)} tokens already, but there is room for {room} only; do not ask for more.")
        if length + room > self.most_tokens:
            raise UserError(
                f"The request may grow to {length + room} tokens ({length} of the prompt and {room} new ones), but the cache holds "
                f"{self.most_tokens}; ask for fewer new tokens, shorten the prompt, or give the cache more memory."
            )
        free_rows = 0 if self._short_of_memory else self.max_batch - len(self.running)
        if self.max_queue is not None and len(self.waiting) >= self.max_queue + free_rows:
            raise QueueFullError(len(self.waiting), self._pace())
        if not self.busy:
            self._ends.clear()
            self._ends.append(self._clock())
        sequence = Sequence(self._next_id, request, (*request.prompt_ids, *begun), room - len(begun), steering=steering)
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
        self._short_of_memory = False
        while self.waiting and len(self.running) + len(admitted) < self.max_batch:
            if not fits(self.waiting[0]):
                self._short_of_memory = True
                break
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
        self._ends.extend([self._clock()] * len(gone))
        kept = len(self.running) - len(gone)
        gaps = [row for row in range(kept) if self.running[row].finish_reason is not None]
        movers = [row for row in range(kept, len(self.running)) if self.running[row].finish_reason is None]
        moves = list(zip(movers, gaps, strict=True))
        for source, target in moves:
            self.running[target] = self.running[source]
        del self.running[kept:]
        return ended + gone, moves

    def _pace(self) -> float | None:
        """Mean seconds between ends while there was work, up to now; None before the first."""
        return (self._clock() - self._ends[0]) / (len(self._ends) - 1) if len(self._ends) > 1 else None


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
