"""Tokens and cost as OpenAI and DeepSeek name them, with ours beside."""

from collections.abc import Sequence
from functools import reduce
from operator import add
from typing import Any

from spoutnik.serve.answer import Usage
from spoutnik.serve.backend import Cost


def total(usages: Sequence[Usage], n: int) -> Usage:
    """Of all answers to a request: every `n` of them share a prompt, which counts once."""
    prompts = usages[::n]
    return Usage(
        sum(usage.prompt_tokens for usage in prompts), sum(usage.cached_tokens for usage in prompts),
        sum(usage.completion_tokens for usage in usages), sum(usage.reasoning_tokens for usage in usages),
        reduce(add, (usage.cost for usage in usages), Cost()),
    )  # fmt: skip


def usage_body(usage: Usage, currency: str) -> dict[str, Any]:
    """`usage` of a response. `cost` is what the answer took of this machine."""
    cost = usage.cost
    return {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.cached_tokens},
        "completion_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
        "prompt_cache_hit_tokens": usage.cached_tokens,
        "prompt_cache_miss_tokens": usage.prompt_tokens - usage.cached_tokens,
        "cost": {
            "cpu_seconds": cost.cpu_seconds,
            "energy_joules": cost.energy_joules,
            "energy_source": "measured" if cost.energy_measured else "estimated",
            "money": cost.money,
            "currency": currency,
        },
    }
