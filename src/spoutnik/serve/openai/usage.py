"""Tokens and cost as OpenAI and DeepSeek name them, with ours beside."""

from typing import Any

from spoutnik.serve.backend import Usage
from spoutnik.serve.costs import cost_body


def usage_body(usage: Usage, currency: str) -> dict[str, Any]:
    """`usage` of a response. `cost` is what the answer took of this machine."""
    return {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.cached_tokens},
        "completion_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
        "prompt_cache_hit_tokens": usage.cached_tokens,
        "prompt_cache_miss_tokens": usage.prompt_tokens - usage.cached_tokens,
        "cost": cost_body(usage.cost, currency),
    }
