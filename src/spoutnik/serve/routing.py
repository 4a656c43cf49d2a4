"""Which of several engines a request goes to: where its prompt is known, unless that one is far busier. Plain Python, no clocks.

An engine is thought to hold the pages of what it was sent, as its own cache would: remembered under the tokens and the page before, and the
ones unused longest forgotten first. If that is wrong, a prompt is computed that might have been found; answers are the same.
"""

from collections import OrderedDict
from collections.abc import Hashable, Iterator, Mapping, Sequence

PAGE = 32
"""Tokens that are remembered or forgotten together."""
REQUEST_TOKENS = 64
"""A request under way weighs as much as so many tokens of a prompt that would have to be computed."""


class Router:
    """Remembers what each engine was sent; engines are numbers."""

    def __init__(self) -> None:
        self._held: dict[int, OrderedDict[int, None]] = {}

    def order(self, owner: Hashable, tokens: Sequence[int], loads: Mapping[int, int]) -> list[int]:
        """The engines of `loads` (requests under way by engine), best first.

        The best one has the least of tokens that it does not know plus `REQUEST_TOKENS` for each request under way: of engines that are
        equally busy the one that knows the longest beginning of the prompt, and one that knows n tokens more than another wins as long as
        it is busier by fewer than n / `REQUEST_TOKENS` requests. Equal ones go by their numbers.
        """
        keys = list(_chain(owner, tokens))
        return sorted(loads, key=lambda engine: (REQUEST_TOKENS * loads[engine] - PAGE * self._known(engine, keys), engine))

    def known(self, engine: int, owner: Hashable, tokens: Sequence[int]) -> int:
        """How many of these tokens, from the first one on, an engine is thought to hold."""
        return PAGE * self._known(engine, list(_chain(owner, tokens)))

    def remember(self, engine: int, owner: Hashable, tokens: Sequence[int], most_pages: int) -> None:
        """An engine that holds at most `most_pages` has read these tokens."""
        held = self._held.setdefault(engine, OrderedDict())
        for key in reversed(list(_chain(owner, tokens))):  # the end is forgotten before the beginning
            held[key] = None
            held.move_to_end(key)
        while len(held) > most_pages:
            held.popitem(last=False)

    def forget(self, engine: int) -> None:
        """An engine begins anew."""
        self._held.pop(engine, None)

    def _known(self, engine: int, keys: Sequence[int]) -> int:
        held = self._held.get(engine, OrderedDict[int, None]())
        return next((place for place, key in enumerate(keys) if key not in held), len(keys))


def _chain(owner: Hashable, tokens: Sequence[int]) -> Iterator[int]:
    """A number for each whole page, made of its tokens and all before."""
    key = hash(owner)
    for start in range(0, len(tokens) - PAGE + 1, PAGE):
        key = hash((key, tuple(tokens[start : start + PAGE])))
        yield key
