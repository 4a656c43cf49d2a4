"""Tokens and cost as Anthropic names them, with ours beside."""

from typing import Any

from spoutnik.serve.backend import Usage
from spoutnik.serve.costs import cost_body


def counts(prompt_tokens: int, cached_tokens: int, output_tokens: int) -> dict[str, Any]:
    """The numbers of tokens; those of the prompt that were found in the cache are not among `input_tokens`."""
    return {
        "input_tokens": prompt_tokens - cached_tokens,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": cached_tokens,
        "output_tokens": output_tokens,
    }


def usage_body(usage: Usage, currency: str) -> dict[str, Any]:
    """`usage` of an answer. `cost` is what it took of this machine."""
    return {
        **counts(usage.prompt_tokens, usage.cached_tokens, usage.completion_tokens),
        "output_tokens_details": {"thinking_tokens": usage.reasoning_tokens},
        "cost": cost_body(usage.cost, currency),
    }
