"""Whether guessing ahead pays: by what was measured, for each size of the batch. Plain Python: no tensors here."""

from collections import deque
from statistics import mean, median

LEARN = 32
"""Steps that are made with guesses before the first comparison, and newest steps of either kind whose tokens count in one."""
PROBE = 16
"""Steps of the other kind before they are compared, and newest steps of either kind whose time counts: contexts grow meanwhile."""
EVERY = 512
"""Steps from one comparison to the next."""
LEAST_GAIN = 1.05
"""Guessing must be so much faster, for what it costs beside these steps: memory, and entries of prompts."""


class _Pace:
    """What the newest steps of one kind took and gave."""

    def __init__(self) -> None:
        self._seconds: deque[float] = deque(maxlen=PROBE)
        self._tokens: deque[int] = deque(maxlen=LEARN)

    def add(self, seconds: float, tokens: int) -> None:
        self._seconds.append(seconds)
        self._tokens.append(tokens)

    @property
    def seconds_a_token(self) -> float:
        """By the median step: one that was interrupted says nothing."""
        return median(self._seconds) / mean(self._tokens)


class _Size:
    """Batches of about the same size: what is done now, for how many steps more, and whether only to compare."""

    def __init__(self) -> None:
        self.guessing, self.probing, self.left = True, False, LEARN
        self.paces = {True: _Pace(), False: _Pace()}


class Judge:
    """Guesses are made while they give more tokens a second than going without, which is tried again every now and then.

    The choice depends on time; what is generated does not depend on the choice.
    """

    def __init__(self) -> None:
        self._sizes: dict[int, _Size] = {}

    def guesses(self, sequences: int) -> bool:
        """Whether a step of so many sequences guesses."""
        return self._size(sequences).guessing

    def note(self, sequences: int, guessed: bool, seconds: float, tokens: int) -> None:
        """A step that guessed or did not took so long and gave so many tokens."""
        size = self._size(sequences)
        size.paces[guessed].add(seconds, tokens)
        size.left -= guessed == size.guessing
        if size.left:
            return
        if size.probing:
            size.guessing = size.paces[True].seconds_a_token * LEAST_GAIN < size.paces[False].seconds_a_token
        else:
            size.guessing = not size.guessing
        size.probing = not size.probing
        size.left = PROBE if size.probing else EVERY

    def _size(self, sequences: int) -> _Size:
        return self._sizes.setdefault(sequences.bit_length(), _Size())
