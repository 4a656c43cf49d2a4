"""What a key is, and how it looks: `sk-spk-ID-SECRET`, of which the ID may be shown and the SECRET is 256 random bits.

A SHA-256 of the whole is what is kept. A slow hash, as for passwords, protects what can be guessed; 256 random bits cannot, and a slow hash
would only let strangers spend the server's time.
"""

import hashlib
import hmac
import secrets
from dataclasses import dataclass

PREFIX = "sk-spk-"
"""By which a key is recognised, by people and by programs that look for secrets where none should be."""
ID_BYTES, SECRET_BYTES = 5, 32
_NOBODY = hashlib.sha256(b"nobody").digest()


@dataclass(frozen=True)
class Key:
    """A key as it is kept. Times are Unix times in seconds, money is in billionths of `currency`; None: no limit, or not so far."""

    id: str
    digest: bytes
    name: str = ""
    created: float = 0.0
    expires: float | None = None
    revoked: float | None = None
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    concurrent: int | None = None
    """Most HTTP requests under way at a time."""
    budget: int | None = None
    currency: str = ""
    spent: int = 0
    requests: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    last_used: float | None = None

    def usable(self, now: float) -> bool:
        """Whether requests that carry it are served."""
        return self.revoked is None and (self.expires is None or now < self.expires)


def new_secret() -> tuple[str, str]:
    """A new key's id and the key itself."""
    key_id = secrets.token_hex(ID_BYTES)
    return key_id, f"{PREFIX}{key_id}-{secrets.token_urlsafe(SECRET_BYTES)}"


def digest_of(secret: str) -> bytes:
    """What is kept of a key."""
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).digest()


def id_of(presented: str) -> str:
    """The id that a presented key names; whatever it is, if it is no key."""
    return presented.removeprefix(PREFIX).partition("-")[0]


def matches(key: Key | None, presented: str) -> bool:
    """Whether this is the key. Takes as long for one that does not exist."""
    return hmac.compare_digest(_NOBODY if key is None else key.digest, digest_of(presented)) and key is not None
