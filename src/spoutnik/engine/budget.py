"""A budget for thinking: when it is spent and the thinking is open, the tokens that close it are forced."""

from collections import deque
from collections.abc import Callable, Sequence

from spoutnik.engine.detokenizer import Detokenizer
from spoutnik.engine.request import Request
from spoutnik.text.reasoning import ThinkParser, starts_thinking


class ThinkingBudget:
    """Follows one request with a `thinking_budget`. Whether its thinking is open is read off the text, prompt included."""

    def __init__(self, request: Request, decode: Callable[[Sequence[int]], str]):
        assert request.thinking_budget is not None
        self._left, self._end = request.thinking_budget, request.thinking_end
        self._parser = ThinkParser(starts_thinking(decode(request.prompt_ids)))
        self._text = Detokenizer(decode)
        self._forced: deque[int] = deque()
        self._spent = False
        self._look()

    @property
    def forced(self) -> int | None:
        """The token that must come next, if any."""
        return self._forced[0] if self._forced else None

    def take(self, token: int) -> None:
        """The next token."""
        if self._forced:
            self._forced.popleft()
        if not self._spent:
            self._left -= 1
            self._parser.feed(self._text.feed(token))
            self._look()

    def _look(self) -> None:
        if self._left <= 0 and self._parser.thinking:
            self._forced.extend(self._end)
            self._spent = True
