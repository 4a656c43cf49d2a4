"""Draws from other logits than the model's own, by what a sequence's `Steering` says."""

import numpy as np
from numpy.typing import NDArray

from spoutnik.engine.kernels.native import DRAW, DRAWN, NativeEngine, address
from spoutnik.engine.kernels.rows import Rows
from spoutnik.engine.request import Top
from spoutnik.engine.scheduler import Drawn

CHOICE = np.dtype([
    ("draw", DRAW), ("mask", "u8"), ("tokens", "u8"), ("values", "u8"), ("changes", "i4"), ("margin", "f4"), ("pick", "i4"),
    ("position", "i4"), ("tops", "i4"), ("drawn", DRAWN), ("top_tokens", "i4", 20), ("top_logprobs", "f4", 20), ("", "i4"),
])  # fmt: skip
"""`Choice` of sampler.h; the first three after `draw` are addresses."""


def draw_steered(engine: NativeEngine, rows: Rows) -> list[Drawn]:
    """What comes next of those sequences of the last call that are steered; each has one pick there, at its own place in `rows`."""
    places = [place for place, sequence in enumerate(rows.sequences) if sequence.steering is not None]
    sequences = [rows.sequences[place] for place in places]
    logits, choices, kept = engine.logits(len(rows.picked)), np.zeros(len(places), CHOICE), []
    choices["draw"], choices["pick"] = rows.draws[places], places
    for place, sequence, choice in zip(places, sequences, choices, strict=True):
        steering = sequence.steering
        assert steering is not None
        choice["position"], choice["tops"] = sequence.last_position + 1, sequence.request.top_logprobs
        choice["draw"]["forced"] = -1 if steering.forced is None else steering.forced
        choice["margin"] = steering.margin
        tokens, values = steering.changes(logits[place])
        choice["tokens"], choice["values"], choice["changes"] = address(tokens), address(values), len(tokens)
        if steering.mask is not None:
            choice["mask"] = address(steering.mask)
        kept.append((tokens, values))  # until the call
    engine.decide(choices)
    drawn, tops = choices["drawn"], top_lists(engine, choices)
    asked = [top if sequence.request.top_logprobs else None for sequence, top in zip(sequences, tops, strict=True)]
    return list(zip(sequences, drawn["token"].tolist(), drawn["logprob"].tolist(), asked, strict=True))


def top_lists(engine: NativeEngine, choices: NDArray[np.void]) -> list[Top]:
    """The likeliest tokens that were asked for in each choice."""
    counts = np.minimum(choices["tops"], engine.vocabulary).tolist()
    tokens, logprobs = choices["top_tokens"].tolist(), choices["top_logprobs"].tolist()
    return [list(zip(ids[:count], of[:count], strict=True)) for ids, of, count in zip(tokens, logprobs, counts, strict=True)]
