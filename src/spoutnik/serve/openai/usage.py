"""Tokens and cost as OpenAI and DeepSeek name them, with ours beside."""

from typing import Any

from spoutnik.serve.backend import Usage


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
