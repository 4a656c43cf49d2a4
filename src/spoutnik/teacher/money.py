"""Money in whole billionths of a currency, so that sums are exact and a cap is a cap. Prices are per million tokens.

What a request may cost at most must be known before it is sent. A token of a byte-level or byte-fallback tokenizer is at least one byte of
text, so the bytes of a prompt bound its tokens; what the provider's template adds around each message is bounded by a generous constant.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from spoutnik.recipe.teachers import TeacherPrice
from spoutnik.teacher.base import Message, Usage

BILLIONTHS = 1_000_000_000
AROUND_A_MESSAGE = 16
AROUND_A_PROMPT = 64
BYTES_PER_TOKEN = 4
"""Of English under the tokenizers in use, roughly: for what is likely, never for a bound."""


def most_prompt_tokens(messages: Sequence[Message]) -> int:
    """No tokenizer makes more of these messages."""
    return AROUND_A_PROMPT + sum(len(message["content"].encode("utf-8", "surrogatepass")) + AROUND_A_MESSAGE for message in messages)


def likely_prompt_tokens(messages: Sequence[Message]) -> int:
    return AROUND_A_MESSAGE + sum(len(message["content"].encode("utf-8", "surrogatepass")) // BYTES_PER_TOKEN for message in messages)


def worst_usage(messages: Sequence[Message], max_tokens: int) -> Usage:
    """The most that a request can use, for when nobody says what it did use."""
    return Usage(most_prompt_tokens(messages), max_tokens, known=False)


def cost(usage: Usage, price: TeacherPrice) -> int:
    """Billionths of the currency, rounded up. A token at 1 per million costs a thousand billionths."""
    cached = min(usage.cached_tokens, usage.prompt_tokens)
    cached_price = price.prompt if price.cached is None else price.cached
    per_million = (usage.prompt_tokens - cached) * price.prompt + cached * cached_price + usage.completion_tokens * price.completion
    return math.ceil(round(per_million * 1000, 6))


def worst_cost(messages: Sequence[Message], max_tokens: int, price: TeacherPrice) -> int:
    """What a request can cost at most: nothing is known to be cached, unless that were dearer."""
    usage = worst_usage(messages, max_tokens)
    return max(cost(usage, price), cost(Usage(usage.prompt_tokens, max_tokens, usage.prompt_tokens), price))


def billionths(amount: float) -> int:
    """An amount of a recipe, rounded down."""
    return math.floor(round(amount * BILLIONTHS, 3))


def money(amount: int, currency: str) -> str:
    """1_234_567_890 -> "1.23 USD"; small amounts keep two digits that are not zero."""
    value = amount / BILLIONTHS
    return f"{value:,.2f} {currency}" if value >= 1 or not amount else f"{value:.2g} {currency}"


@dataclass(frozen=True)
class Estimate:
    """What asking `requests` questions will cost; `answered` of them are in the ledger and cost nothing. In billionths.

    `measured` says that the likely length of an answer is the mean of this teacher's earlier ones, not half of what is allowed.
    """

    requests: int
    answered: int
    worst: int
    likely: int
    currency: str
    measured: bool

    def __str__(self) -> str:
        known = f" ({self.answered} of them answered before, at no cost)" if self.answered else ""
        basis = "by its earlier answers" if self.measured else "if answers take half of the tokens that they may"
        if self.answered == self.requests:
            return f"{self.requests} requests, all answered before: this costs nothing"
        worst, likely = money(self.worst, self.currency), money(self.likely, self.currency)
        return f"{self.requests} requests{known}: at most {worst}, likely {likely} {basis}"
