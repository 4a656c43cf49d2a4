"""What a recipe's stages compute, in the few kinds of work that take time: updates, answers, readings. Sizes only; nothing here computes.

How long an answer gets, and which share of the groups of reinforcement learning has a signal to train on, is not known beforehand: lengths
are a fixed part and a share of the longest answer, and whoever asks says which share.
"""

from dataclasses import dataclass

from spoutnik.errors import Phrase
from spoutnik.model.config import ModelConfig
from spoutnik.plan.uncertain import Number


@dataclass(frozen=True)
class Length:
    """Tokens of a sequence: `fixed` ones, and an answer of `longest` at most."""

    fixed: float
    longest: int = 0

    def mean(self, share: Number) -> Number:
        """Tokens on average where answers take that share of the longest."""
        return self.fixed + self.longest * share if self.longest else self.fixed


@dataclass(frozen=True)
class Updates:
    """`steps` optimiser steps of `rows` sequences each. `cells`: tokens computed at once, all of a step's if None.

    `beside`: frozen models that read the same by the torch modules. `pretrains`: multi-token prediction is trained, too. `chosen`: of the
    rows only those of groups with a signal are trained on.
    """

    config: ModelConfig
    steps: int
    rows: float
    length: Length
    dtype: str
    cells: int | None = None
    muon: bool = False
    pretrains: bool = False
    chosen: bool = False
    beside: tuple[ModelConfig, ...] = ()


@dataclass(frozen=True)
class Answers:
    """`rounds` times `count` answers of the engine, `batch` at a time at most; between two rounds the weights change.

    `redrawn`: most times that problems whose group has no signal are drawn.
    """

    config: ModelConfig
    rounds: int
    count: int
    batch: int
    length: Length
    dtype: str
    redrawn: int = 1


@dataclass(frozen=True)
class Readings:
    """Sequences that a model reads without learning or answering, by the torch modules or else by the engine; `chosen` as in `Updates`."""

    config: ModelConfig
    rows: float
    length: Length
    dtype: str
    by_modules: bool
    chosen: bool = False


@dataclass(frozen=True)
class Writing:
    """Tokens of a corpus, and documents that its tokenizer is trained on; or traces of a task."""

    corpus_tokens: int = 0
    documents: int = 0
    traces: int = 0


Part = Updates | Answers | Readings | Writing


@dataclass(frozen=True)
class StageWork:
    """All that a stage does. `opened`, `made` and `saved` are bytes: read at its beginning, written at its end, and of one saved state;
    `models` is how many are opened.

    `share` is the share of the longest answer that its answers are likely to have, where its model has learned how long they are.
    `unknown` says why the time cannot be predicted, where it cannot. `memory` in bytes is what its fullest step holds, None where it needs
    no model.
    """

    name: str
    kind: str
    parts: tuple[Part, ...] = ()
    opened: int = 0
    made: int = 0
    saved: int = 0
    models: int = 0
    memory: int | None = None
    share: float | None = None
    unknown: str | Phrase = ""
