"""Runs inside a verifier process: scores an answer with the reasoning-gym dataset that asked the question."""

import functools
import json
from typing import Any

import reasoning_gym


@functools.lru_cache(maxsize=8)
def _dataset(name: str, options: str) -> Any:
    return reasoning_gym.create_dataset(name, **json.loads(options))


def is_right(name: str, options: dict[str, Any], entry: dict[str, Any], answer: str) -> bool:
    """Whether the dataset gives the answer its full score; a partial score is a wrong answer."""
    return float(_dataset(name, json.dumps(options, sort_keys=True)).score_answer(answer=answer, entry=entry)) >= 1.0
