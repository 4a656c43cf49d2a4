"""Who asks. Keys (`keys/`) are one answer to that; this is the seam."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from spoutnik.serve.allowance import Allowances
from spoutnik.serve.backend import Usage


@dataclass(frozen=True)
class Principal:
    """A caller who was recognised."""

    id: str
    """Stays the same over time. It owns what the engine caches: one caller's prompts are never found, nor noticed, by another."""


@dataclass(frozen=True)
class Balance:
    """What a caller may still spend."""

    currency: str
    total: float


@dataclass(frozen=True)
class Caller:
    """Who sent one request."""

    principal: Principal
    request_id: str
    user: str = ""
    """One of the caller's own users, where the request names one, as DeepSeek's `user_id` does."""

    @property
    def owner(self) -> str:
        """Whose what the engine caches of the request is."""
        return f"{self.principal.id}/{self.user}" if self.user else self.principal.id


class Authenticator(Protocol):
    """Recognises callers by what their requests carry, and keeps their accounts."""

    required: bool
    """Whether a request needs a key; what needs none is served on this machine alone."""

    async def authenticate(self, headers: Mapping[str, str]) -> Principal:
        """The caller. `headers` have lower-case names; a key stands in `authorization` (Bearer) or `x-api-key`.

        Raises `UnauthorisedError`.
        """
        ...

    def enter(self, principal: Principal) -> None:
        """An HTTP request of this caller begins; nothing of its body has been read. Raises `RateLimitError` where it may not."""
        ...

    def leave(self, principal: Principal) -> None:
        """A request that entered is over, response and all."""
        ...

    async def admit(self, principal: Principal, prompt_tokens: int, most_tokens: int) -> None:
        """A request with so many tokens of prompts, and at most so many new ones, is about to be queued.

        Raises `RateLimitError` or `QuotaError` where it may not.
        """
        ...

    def charge(self, principal: Principal, usage: Usage) -> None:
        """What an admitted request used, once, when it has ended; called from the event loop. Of answers whose client left it is what was
        known when it left.
        """
        ...

    async def balance(self, principal: Principal) -> Balance | None:
        """What is left to the caller; None where nothing is counted."""
        ...

    def allowances(self, principal: Principal) -> Allowances:
        """How the caller's rates stand, for the headers of a response."""
        ...

    async def close(self) -> None:
        """The server ends: what is not yet written down has to be."""
        ...


class NoKeys:
    """Everyone who reaches the server is the same caller: for one's own machine."""

    required = False

    async def authenticate(self, headers: Mapping[str, str]) -> Principal:
        return Principal("")

    def enter(self, principal: Principal) -> None:
        """Everyone may."""

    def leave(self, principal: Principal) -> None:
        """Nobody is counted."""

    async def admit(self, principal: Principal, prompt_tokens: int, most_tokens: int) -> None:
        """Everything is admitted."""

    def charge(self, principal: Principal, usage: Usage) -> None:
        """Nothing is counted."""

    async def balance(self, principal: Principal) -> Balance | None:
        return None

    def allowances(self, principal: Principal) -> Allowances:
        return {}

    async def close(self) -> None:
        """Nothing is kept."""
