"""One request over HTTP, and what its outcome means: an answer, try again (and was it paid?), refused, or no use going on."""

import asyncio
import json
import time
from dataclasses import dataclass
from typing import Any

import httpx2

from spoutnik.recipe.teachers import TeacherSpec
from spoutnik.teacher.dialects import DIALECTS, MalformedError, Reply
from spoutnik.teacher.limits import retry_after

CONNECT_S = 10.0
MOST_BYTES = 64 << 20
SHOWN = 200
HOPELESS = {
    401: "the key is wrong or missing",
    402: "the account has no money left",
    403: "the key may not do this",
    404: "nothing is there",
}
BUSY = (408, 409, 425, 429)


@dataclass(frozen=True)
class TryAgain:
    """No answer yet. `paid` says that the attempt may have been charged; `after_s` is the wait that the server asked for."""

    error: str
    paid: bool
    after_s: float | None = None


@dataclass(frozen=True)
class Refused:
    """This request will never be answered. `hopeless`: neither will any other."""

    error: str
    hopeless: bool = False


class Transport:
    """A teacher's endpoint. The key is in the headers only, and taken out of everything that the server sends back."""

    def __init__(self, spec: TeacherSpec, key: str | None):
        self._dialect, self._key = DIALECTS[spec.dialect], key
        self.url = spec.base_url.rstrip("/") + self._dialect.path
        self._client = httpx2.AsyncClient(
            headers={"content-type": "application/json", **self._dialect.headers(key)},
            timeout=httpx2.Timeout(None, connect=min(CONNECT_S, spec.timeout_s)),
            limits=httpx2.Limits(max_connections=spec.concurrency),
            follow_redirects=False,
        )
        self._timeout_s = spec.timeout_s
        """For all of a request: bytes that only keep a connection alive put off a client's own timeout for ever."""

    async def close(self) -> None:
        await self._client.aclose()

    async def send(self, body: dict[str, Any]) -> Reply | TryAgain | Refused:
        """Never raises for what servers and networks do."""
        try:
            return await self._send(body)
        except (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.PoolTimeout, httpx2.ProxyError) as error:
            return TryAgain(f"no connection to {self.url} ({_words(error)})", paid=False)
        except TimeoutError:
            return TryAgain(f"no answer within {self._timeout_s:g} s", paid=True)
        except (httpx2.TransportError, httpx2.DecodingError) as error:
            return TryAgain(f"the connection broke ({_words(error)})", paid=True)
        except httpx2.InvalidURL as error:
            return Refused(f"{self.url} is no address ({error})", hopeless=True)

    async def _send(self, body: dict[str, Any]) -> Reply | TryAgain | Refused:
        async with asyncio.timeout(self._timeout_s), self._client.stream("POST", self.url, content=json.dumps(body)) as response:
            content = bytearray()
            async for part in response.aiter_bytes():
                content += part
                if len(content) > MOST_BYTES:
                    return TryAgain(f"the reply is longer than {MOST_BYTES >> 20} MiB", paid=True)
        text = self._without_key(content.decode("utf-8", "replace"))
        status = response.status_code
        if status == 200:
            try:
                return self._dialect.reply(json.loads(text))
            except (ValueError, RecursionError, MalformedError) as error:
                return TryAgain(f"the reply is no answer ({_words(error)}): {_short(text)}", paid=True)
        said = f"HTTP {status}: {_short(_message(text))}"
        if status in BUSY or status >= 500:
            return TryAgain(said, paid=False, after_s=retry_after(response.headers, time.time()))
        if status in HOPELESS:
            return Refused(f"{HOPELESS[status]} ({said})", hopeless=True)
        return Refused(said, hopeless=status < 400)

    def _without_key(self, text: str) -> str:
        return text.replace(self._key, "[key]") if self._key else text


def _message(text: str) -> str:
    """What an error says in words, where it is JSON of a known form: `error.message`, `message`, or FastAPI's `detail`; else all of it."""
    try:
        content = json.loads(text)
    except (ValueError, RecursionError):
        return text
    if not isinstance(content, dict):
        return text
    error = content.get("error")
    said = error.get("message") if isinstance(error, dict) else error or content.get("message") or content.get("detail")
    if isinstance(said, list) and said and isinstance(said[0], dict):
        said = f"{'.'.join(map(str, said[0].get('loc') or []))}: {said[0].get('msg')}"
    return said if isinstance(said, str) and said else text


def _short(text: str) -> str:
    return " ".join(text.split())[:SHOWN]


def _words(error: Exception) -> str:
    return str(error) or type(error).__name__
