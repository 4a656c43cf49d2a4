"""How well a model still predicts general text: what training on a task may ruin without any task showing it."""

import math
from typing import Any

from spoutnik.data.english import read_text
from spoutnik.engine.generator import Engine
from spoutnik.engine.scoring import Given

WINDOW = 2000
"""Characters that are read together, unless a paragraph is longer or the model's context shorter."""


def perplexity(engine: Engine, source: str, characters: int) -> dict[str, Any]:
    """Of the beginning of a text source (see `read_text`), in windows of whole paragraphs, so that every model reads the same ones.

    Each window's first token is given. `tokens` were scored, which stand for `bytes` of UTF-8; `nats_per_byte` compares models with
    different tokenizers. No chat template is put around the text.
    """
    context, tokenizer = engine.model.config.max_position_embeddings, engine.tokenizer
    encoded = [tokenizer.encode(window) for window in windows(source, characters)]
    given = [Given(ids[start : start + context], 1) for ids in encoded for start in range(0, len(ids), context)]
    scores = engine.score(given)
    nats, tokens = -sum(map(sum, scores)), sum(map(len, scores))
    size = sum(len(tokenizer.decode(list(one.token_ids[1:])).encode()) for one in given)
    return {
        "windows": len(given),
        "tokens": tokens,
        "bytes": size,
        "nats_per_token": nats / tokens,
        "nats_per_byte": nats / size,
        "perplexity": math.exp(nats / tokens),
    }


def windows(source: str, characters: int) -> list[str]:
    """Paragraphs of a text source put together to windows, until they hold `characters`; the last one is cut there."""
    found = [""]
    for paragraph in read_text(source):
        if found[-1] and len(found[-1]) + len(paragraph) > WINDOW:
            found.append("")
        found[-1] += ("\n\n" if found[-1] else "") + paragraph
        missing = characters - sum(map(len, found))
        if missing <= 0:
            found[-1] = found[-1][: len(found[-1]) + missing]
            break
    return [window for window in found if window]
