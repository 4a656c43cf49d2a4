"""What contestants are timed at. Imports nothing but the standard library: every engine's own environment reads it."""

import random
from dataclasses import dataclass


@dataclass(frozen=True)
class Job:
    """Prompts of random tokens, given all at once and each continued by `new` tokens, whatever these are."""

    prompts: int
    length: int
    """Tokens of a prompt."""
    new: int
    shared: bool = False
    """All prompts are the same: the group of samples that reinforcement learning draws."""
    temperature: float = 0.0
    logprobs: bool = False
    """The log-probability of every drawn token is wanted, too."""
    seed: int = 0

    def prompt_ids(self, vocabulary: int) -> list[list[int]]:
        """The same for every engine. Another seed shares no beginning with this one, so no cache knows a prompt before its time."""
        numbers = random.Random(self.seed * 7919 + self.prompts)
        least = 100 if vocabulary > 1000 else 5  # special tokens come first
        prompts = [[numbers.randrange(least, vocabulary) for _ in range(self.length)] for _ in range(1 if self.shared else self.prompts)]
        return prompts * (self.prompts if self.shared else 1)


@dataclass(frozen=True)
class Timing:
    """Seconds from giving the prompts: until each had its first new token, and until all was done."""

    first: float
    total: float
    early: int = 0
    """New tokens that some had by then beside their first."""
