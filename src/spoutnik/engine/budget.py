"""Budgets for thinking and answer: when the one is spent and the thinking is open, it is closed; when the other is, the answer ends."""

from collections import deque
from collections.abc import Callable, Sequence

from spoutnik.engine.detokenizer import Detokenizer
from spoutnik.engine.request import Request
from spoutnik.text.reasoning import ThinkParser, starts_thinking


class Budget:
    """Follows one request with a `thinking_budget` or `max_answer_tokens`. Whether its thinking is open is read off the text, prompt
    included.
    """

    def __init__(self, request: Request, decode: Callable[[Sequence[int]], str]):
        self._left, self._end = request.thinking_budget, request.thinking_end
        self._most, self._answer = request.max_answer_tokens, 0
        self._parser = ThinkParser(starts_thinking(decode(request.prompt_ids)))
        self._text = Detokenizer(decode)
        self._forced: deque[int] = deque()
        self._look()

    @property
    def forced(self) -> int | None:
        """The token that must come next, if any."""
        return self._forced[0] if self._forced else None

    @property
    def spent(self) -> bool:
        """Whether the answer has all the tokens that it may have."""
        return self._most is not None and self._answer >= self._most

    def take(self, token: int) -> None:
        """The next token."""
        if self._forced:
            self._forced.popleft()
        if self._left is None and self._most is None:
            return
        thinking = self._parser.thinking
        self._parser.feed(self._text.feed(token))
        self._answer = 0 if thinking or self._parser.thinking else self._answer + 1
        if self._left is not None:
            self._left -= 1
            self._look()

    def _look(self) -> None:
        if self._left is not None and self._left <= 0 and self._parser.thinking:
            self._forced.extend(self._end)
            self._left = None
