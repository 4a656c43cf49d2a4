"""What the answers to one request used: for the metrics, the caller's account, and the log."""

import logging
import time
from dataclasses import replace

from spoutnik.serve.answer import End
from spoutnik.serve.auth import Authenticator, Caller
from spoutnik.serve.backend import Cost, Usage, total
from spoutnik.serve.metrics import Metrics

log = logging.getLogger("spoutnik.access")


class Account:
    """What the answers to one request used so far; tells metrics, the caller's account and the log, once, at the end."""

    def __init__(
        self, metrics: Metrics, authenticator: Authenticator, caller: Caller, usages: list[Usage], n: int, began: float
    ):  # fmt: skip
        """`usages` hold the lengths of the prompts, for answers that never end; every `n` of them share one."""
        self._metrics, self._authenticator, self._caller = metrics, authenticator, caller
        self._usages, self._n, self._began = usages, n, began
        self._last: list[float | None] = [None] * len(usages)
        self._reasons: list[str] = ["cancelled"] * len(usages)
        self._first_s: float | None = None
        self._open = len(usages)
        self._closed = False

    def drawn(self, index: int, tokens: int, cost: Cost) -> None:
        """An answer got tokens, and cost so much until now."""
        now, last, metrics = time.monotonic(), self._last[index], self._metrics
        if last is None:
            metrics.first_token.observe(now - self._began)
            self._first_s = self._first_s or now - self._began
        else:
            metrics.between_tokens.observe(now - last)
        self._last[index] = now
        usage = self._usages[index]
        self._usages[index] = replace(usage, completion_tokens=usage.completion_tokens + tokens, cost=cost)

    def ended(self, index: int, end: End) -> None:
        """An answer is complete. The last one's end settles the account: a client that has its answer finds it charged."""
        self._usages[index], self._reasons[index] = end.usage, end.finish_reason
        self._metrics.whole.observe(time.monotonic() - self._began)
        self._open -= 1
        if not self._open:
            self.close()

    def close(self, accepted: bool = True) -> None:
        """Nothing more comes."""
        if self._closed:
            return
        self._closed = True
        usage = total(self._usages, self._n) if accepted else Usage()
        self._authenticator.charge(self._caller.principal, usage)
        if not accepted:
            return
        self._metrics.count(usage, self._reasons)
        fields = {
            "request_id": self._caller.request_id, "principal": self._caller.principal.id, "finish_reasons": self._reasons,
            "prompt_tokens": usage.prompt_tokens, "cached_tokens": usage.cached_tokens, "completion_tokens": usage.completion_tokens,
            "reasoning_tokens": usage.reasoning_tokens, "cpu_seconds": round(usage.cost.cpu_seconds, 4),
            "first_token_seconds": self._first_s and round(self._first_s, 4),
        }  # fmt: skip
        log.info("answered", extra={"fields": fields})
