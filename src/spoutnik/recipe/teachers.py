"""A teacher that is asked over the network: where it is, what it costs, how fast it may be asked, and whether its terms allow teaching."""

import re
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from spoutnik.recipe.tables import Name, Positive, Table

OURS = ("model", "messages", "system", "max_tokens", "max_completion_tokens", "temperature", "stream", "n")
LOOPBACK = re.compile(r"^http://(localhost|127\.\d+\.\d+\.\d+|\[::1\])(:\d+)?(/|$)")
WORDS_TO_ACCEPT = 5
SWITCH = ({"type": "enabled"}, {"type": "disabled"})
"""DeepSeek's switch of the thinking."""


class TeacherPrice(Table):
    """What a million tokens cost. `cached` prompt tokens cost as much as others unless it is said."""

    prompt: Annotated[float, Field(ge=0)]
    completion: Annotated[float, Field(ge=0)]
    cached: Annotated[float, Field(ge=0)] | None = None
    currency: str = "USD"


class TeacherSpec(Table):
    """One [[teacher]] of a recipe. The key is read from the environment variable `api_key_env` and written nowhere."""

    name: Name
    dialect: Literal["openai", "anthropic", "deepseek", "mistral"]
    base_url: Annotated[str, Field(pattern=r"^https?://[^/@\s?#]+(/[^@\s?#]*)?$")]
    model: Annotated[str, Field(min_length=1)]
    price: TeacherPrice
    max_cost: Annotated[float, Field(ge=0)]
    """The most that recipes of this name may ever spend with this teacher, in the price's currency."""
    api_key_env: str | None = None
    terms: Literal["allowed", "forbidden", "unknown"] = "unknown"
    """Whether the provider's terms allow training other models on its answers."""
    accept_terms: str | None = None
    """The user's own words, where they do not; they go into every record and into the data card."""
    options: Annotated[dict[str, Any], Field(default_factory=dict)]
    """Further fields of the request, such as `reasoning_effort`, in the provider's own form."""
    max_tokens_field: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    requests_per_minute: Positive = 60
    tokens_per_minute: Positive = 200_000
    concurrency: Positive = 4
    timeout_s: Annotated[float, Field(gt=0)] = 600.0
    ledger: str | None = None
    """The SQLite file that remembers what was asked; by default one for all runs, in the user's data folder."""

    @property
    def decisive(self) -> dict[str, Any]:
        """The settings that decide what an answer is and under which terms it was given, not what it costs or how fast it comes."""
        return self.model_dump(
            mode="json", include={"dialect", "base_url", "model", "options", "max_tokens_field", "terms", "accept_terms"}
        )

    @model_validator(mode="after")
    def consistent(self) -> Self:
        taken = [key for key in OURS if key in self.options]
        if taken:
            raise ValueError(f"options.{taken[0]} is set by the stage or by other keys: leave it out")
        if self.api_key_env and self.base_url.startswith("http:") and not LOOPBACK.match(self.base_url):
            raise ValueError("base_url would send the key unencrypted: use https, or leave out api_key_env if the server needs no key")
        if self.dialect != "openai" and self.max_tokens_field != "max_tokens":
            raise ValueError("`max_tokens_field` belongs to dialect = 'openai': leave it out")
        if self.dialect == "deepseek" and self.options.get("thinking", SWITCH[0]) not in SWITCH:
            raise ValueError('options.thinking is { type = "enabled" } or { type = "disabled" }')
        if self.accept_terms is not None and len(self.accept_terms.split()) < WORDS_TO_ACCEPT:
            raise ValueError(
                f"`accept_terms` must be a sentence of your own ({WORDS_TO_ACCEPT} words or more), for it is kept with the data"
            )
        return self
