"""What a caller may still use within the minute, as dialects' headers tell it."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta


@dataclass(frozen=True)
class Allowance:
    """How a limit stands."""

    limit: int
    remaining: int
    reset_s: float
    """Seconds until all of it is there again."""


Allowances = Mapping[str, Allowance]
"""By what is counted: "requests", "tokens"."""


def openai_headers(allowances: Allowances) -> dict[str, str]:
    """x-ratelimit-limit-requests: 60, ..-remaining-..: 59, ..-reset-..: 1s."""
    return {
        f"x-ratelimit-{what}-{kind}": value
        for kind, allowance in allowances.items()
        for what, value in (
            ("limit", str(allowance.limit)), ("remaining", str(allowance.remaining)), ("reset", _duration(allowance.reset_s)),
        )
    }  # fmt: skip


def anthropic_headers(allowances: Allowances) -> dict[str, str]:
    """anthropic-ratelimit-requests-limit: 60, ..-remaining: 59, ..-reset: a time (RFC 3339)."""
    now = datetime.now(UTC)
    return {
        f"anthropic-ratelimit-{kind}-{what}": value
        for kind, allowance in allowances.items()
        for what, value in (
            ("limit", str(allowance.limit)), ("remaining", str(allowance.remaining)),
            ("reset", (now + timedelta(seconds=math.ceil(allowance.reset_s))).strftime("%Y-%m-%dT%H:%M:%SZ")),
        )
    }  # fmt: skip


def _duration(seconds: float) -> str:
    """1.5 -> "1.5s", 90 -> "1m30s", as Go writes durations."""
    milliseconds = math.ceil(seconds * 1000)
    if milliseconds < 1000:
        return f"{milliseconds}ms"
    minutes, rest = divmod(milliseconds, 60_000)
    return f"{f'{minutes}m' if minutes else ''}{rest / 1000:g}s"
