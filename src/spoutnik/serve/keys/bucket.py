"""A bucket of tokens: what may be used at once is a minute's worth, and what was used comes back over a minute."""

from spoutnik.serve.allowance import Allowance

MINUTE_S = 60.0


class Bucket:
    """Holds `limit` units and refills evenly within a minute. `now` is a time in seconds that never goes back.

    It may owe: what an answer used is known only when it was given. Over any stretch of time no more is used than the stretch refills and
    the bucket holds, but for what was owed at its end.
    """

    def __init__(self, limit: int, now: float):
        self.limit, self._level, self._then = limit, float(limit), now

    def wait(self, amount: int, now: float) -> float:
        """Seconds until `amount` units are there, 0.0 if they are. More than the bucket holds is let go when it is full."""
        self._refill(now)
        return max(0.0, min(amount, self.limit) - self._level) * MINUTE_S / self.limit

    def take(self, amount: int, now: float) -> None:
        """Uses units, also such as are not there."""
        self._refill(now)
        self._level -= amount

    def allowance(self, now: float) -> Allowance:
        """How it stands."""
        self._refill(now)
        return Allowance(self.limit, max(0, int(self._level)), (self.limit - self._level) * MINUTE_S / self.limit)

    def _refill(self, now: float) -> None:
        self._level = min(self.limit, self._level + (now - self._then) * self.limit / MINUTE_S)
        self._then = now
