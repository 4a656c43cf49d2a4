"""Who asks. Where keys are kept is somebody else's matter: this is the seam."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

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

    async def admit(self, principal: Principal, prompt_tokens: int, most_tokens: int) -> None:
        """A request with so many tokens of prompts, and at most so many new ones, is about to be queued.

        Raises `RateLimitError` or `QuotaError` where it may not.
        """
        ...

    def charge(self, principal: Principal, usage: Usage) -> None:
        """What an admitted request used, once, when it has ended; called from the event loop. Of answers whose client left, tokens are
        known and the cost is not.
        """
        ...

    async def balance(self, principal: Principal) -> Balance | None:
        """What is left to the caller; None where nothing is counted."""
        ...


class NoKeys:
    """Everyone who reaches the server is the same caller: for one's own machine."""

    required = False

    async def authenticate(self, headers: Mapping[str, str]) -> Principal:
        return Principal("")

    async def admit(self, principal: Principal, prompt_tokens: int, most_tokens: int) -> None:
        """Everything is admitted."""

    def charge(self, principal: Principal, usage: Usage) -> None:
        """Nothing is counted."""

    async def balance(self, principal: Principal) -> Balance | None:
        return None
