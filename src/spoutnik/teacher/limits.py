"""How fast a teacher may be asked: at most so many requests and tokens in any minute, and when to come back after a refusal.

A bucket that refills lets twice its size through within the first minute. Here each minute is exact: what was spent is remembered for sixty
seconds, and something new goes only if the sum stays within the limit.
"""

import email.utils
import math
import random
from collections import deque
from collections.abc import Mapping

WINDOW_S = 60.0
JUST_AFTER_S = 0.001
LONGEST_BACKOFF_S = 60.0


class Window:
    """At most `limit` units in any stretch of `WINDOW_S` seconds, both ends included. `now` never goes back."""

    def __init__(self, limit: int):
        self.limit = limit
        self._spent: deque[tuple[float, int]] = deque()
        self._sum = 0

    def wait(self, amount: int, now: float) -> float:
        """Seconds until `amount` units fit; 0.0 if they do. An amount above the limit counts as the whole limit."""
        while self._spent and self._spent[0][0] < now - WINDOW_S:
            self._sum -= self._spent.popleft()[1]
        excess, leaves = self._sum + min(amount, self.limit) - self.limit, None
        for when, spent in self._spent:
            if excess <= 0:
                break
            excess, leaves = excess - spent, when
        return 0.0 if leaves is None else max(leaves + WINDOW_S - now, 0.0) + JUST_AFTER_S

    def spend(self, amount: int, now: float) -> None:
        self._spent.append((now, min(amount, self.limit)))
        self._sum += min(amount, self.limit)

    def take_back(self) -> None:
        """The last spending did not happen."""
        self._sum -= self._spent.pop()[1]


class Pace:
    """The requests and tokens of one teacher within one process, and its wish to be left alone until some moment."""

    def __init__(self, requests_per_minute: int, tokens_per_minute: int):
        self._requests, self._tokens, self._not_before = Window(requests_per_minute), Window(tokens_per_minute), 0.0

    def enter(self, tokens: int, now: float) -> float:
        """0.0 if a request of so many tokens may go now, and it is then counted; else the seconds after which to try again."""
        wait = max(self._requests.wait(1, now), self._tokens.wait(tokens, now), self._not_before - now)
        if wait > 0:
            return wait
        self._requests.spend(1, now)
        self._tokens.spend(tokens, now)
        return 0.0

    def take_back(self) -> None:
        """The request that entered last was not sent."""
        self._requests.take_back()
        self._tokens.take_back()

    def hold(self, seconds: float, now: float) -> None:
        """Nothing goes for so many seconds: the teacher asked for it."""
        self._not_before = max(self._not_before, now + seconds)


def backoff(attempt: int, first_s: float, rng: random.Random) -> float:
    """Seconds to wait after failure number `attempt` (from 0): anywhere between 0 and a bound that doubles, so that clients part ways."""
    return rng.uniform(0, min(first_s * 2**attempt, LONGEST_BACKOFF_S))


def retry_after(headers: Mapping[str, str], wall: float) -> float | None:
    """Seconds that a refusal asks to wait (milliseconds, seconds or a date; RFC 9110, 10.2.3); None if it does not say so.

    `wall` is the time of day, in seconds since the epoch.
    """
    try:
        seconds = float(headers["retry-after-ms"]) / 1000 if "retry-after-ms" in headers else float(headers["retry-after"])
    except KeyError:
        return None
    except ValueError:
        try:
            seconds = email.utils.parsedate_to_datetime(headers.get("retry-after", "")).timestamp() - wall
        except (ValueError, TypeError, OverflowError):
            return None
    return max(seconds, 0.0) if math.isfinite(seconds) else None
