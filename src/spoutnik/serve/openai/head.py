"""What all parts of one response have in common."""

import secrets
import time
from dataclasses import dataclass
from typing import Any, Self

from spoutnik.serve.service import Served, Service


@dataclass(frozen=True)
class Head:
    """One per response."""

    id: str
    created: int
    model: str
    system_fingerprint: str
    currency: str

    @classmethod
    def of(cls, prefix: str, service: Service, served: Served) -> Self:
        """A new one; `prefix` begins its id."""
        info, currency = service.backend.info, service.settings.price.currency
        return cls(f"{prefix}-{secrets.token_hex(12)}", int(time.time()), served.name, info.fingerprint, currency)

    def body(self, kind: str, choices: list[dict[str, Any]], **others: Any) -> dict[str, Any]:
        """A response, or a chunk of one."""
        return {
            "id": self.id, "object": kind, "created": self.created, "model": self.model,
            "system_fingerprint": self.system_fingerprint, "choices": choices, **others,
        }  # fmt: skip
