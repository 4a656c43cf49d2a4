"""Who asks. Where keys are kept is somebody else's matter: this is the seam."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol


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


class Authenticator(Protocol):
    """Recognises callers by what their requests carry."""

    required: bool
    """Whether a request needs a key; what needs none is served on this machine alone."""

    async def authenticate(self, headers: Mapping[str, str]) -> Principal:
        """The caller. `headers` have lower-case names; a key stands in `authorization` (Bearer) or `x-api-key`.

        Raises `UnauthorisedError`.
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

    async def balance(self, principal: Principal) -> Balance | None:
        return None
