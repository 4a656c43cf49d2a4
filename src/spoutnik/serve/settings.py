"""What whoever runs the server decides."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal

from spoutnik.recipe.tables import Price

Effort = Literal["low", "high", "max"]
EFFORTS: Mapping[str, Effort] = MappingProxyType(
    {"minimal": "low", "low": "low", "medium": "high", "high": "high", "xhigh": "high", "max": "max", "ultra": "max"}
)
"""The names that clients use, and the three that there are."""
ReasoningInput = Literal["v4", "v4-strict", "r1"]


@dataclass(frozen=True)
class Settings:
    """Defaults and bounds of a server; the bounds hold for every caller."""

    aliases: tuple[str, ...] = ()
    """Other names under which the model answers."""
    temperature: float = 0.6
    top_p: float = 0.95
    """Of conversations that name none; DeepSeek-R1's recommendation. Plain completions draw from all at temperature 1."""
    max_tokens: int = 4096
    """Most new tokens of a request that does not say."""
    max_tokens_count: Literal["all", "answer"] = "all"
    """What a request's bound on new tokens counts: all of them, or, as R1's API did, those of the answer; the thinking then has its
    budget beside, 32,768 tokens where none is asked for."""
    budgets: Mapping[Effort, int | None] = field(default_factory=lambda: MappingProxyType({"low": 512, "high": 4096, "max": None}))
    """Most tokens of thinking by effort; None: as many as the answer may have."""
    reasoning_input: ReasoningInput = "v4"
    """What becomes of `reasoning_content` in the messages that come in. "v4": kept where tools are called between two user messages,
    else ignored. "v4-strict": as "v4", and a call without it is refused. "r1": refused wherever it is."""
    price: Price = field(default_factory=Price)
    most_choices: int = 16
    most_logprobs: int = 20
    most_stops: int = 16
    most_stop_chars: int = 1024
    """Of a string that ends an answer."""
    most_biases: int = 1024
    """Tokens that a request's logit_bias may name."""
    most_prompts: int = 256
    """Of one request for completions or embeddings."""
    most_tools: int = 128
    most_schema_bytes: int = 64 << 10
    most_schema_depth: int = 64
    most_messages: int = 4096
    most_body_bytes: int = 16 << 20
    most_head_bytes: int = 64 << 10
    """Of a request's line and headers."""
    template_s: float = 10.0
    """A chat template that takes longer is ended."""
    most_connections: int = 512
    head_s: float = 20.0
    """A connection is closed after so long without a whole head of a request on it."""
    body_s: float = 60.0
    """A request is refused whose body has not come by then."""
    write_s: float = 60.0
    """A connection is closed whose client takes nothing of what is sent for so long."""
    keep_alive_s: float = 10.0
    """After so long without news a stream gets a comment, and a whole answer that is not ready a blank line."""
    drain_s: float = 30.0
    """What runs may go on for so long after the server was asked to stop."""
