"""Text of a growing list of tokens, at a cost per token that does not grow with the list."""

from collections.abc import Callable, Sequence

WINDOW = 16
CUT_CHARACTER = "\ufffd"  # what a decoder writes for bytes that do not (yet) form a character


class Detokenizer:
    """Turns tokens into text as they come, and holds back what a later token may still change.

    That is the start of a character whose bytes are cut across tokens, and the start of what may become a stop string. The pieces that
    `feed` and `close` return join to what decoding all tokens at once gives, cut before the first stop string.
    """

    def __init__(self, decode: Callable[[Sequence[int]], str], stop: Sequence[str] = ()):
        self._decode, self._stop = decode, stop
        self._window: list[int] = []
        self._seen = 0  # characters of the window's text that were taken already
        self._held = ""  # text that may be the beginning of a stop string
        self._pieces: list[str] = []
        self.stop_string: str | None = None

    @property
    def stopped(self) -> bool:
        """Whether a stop string is complete."""
        return self.stop_string is not None

    @property
    def text(self) -> str:
        """All that was returned so far."""
        return "".join(self._pieces)

    def feed(self, token: int) -> str:
        """Takes a token and returns the text that is now certain; sets `stop_string` once one is complete."""
        self._window.append(token)
        text = self._decode(self._window)
        certain = len(text) - text.endswith(CUT_CHARACTER)
        new = text[self._seen : certain]
        self._seen = certain
        if certain == len(text):
            self._window = self._window[-1:]  # one stays, for decoders treat the first token of a text differently
            self._seen = len(self._decode(self._window))
        elif len(self._window) > WINDOW:
            self._window = self._window[-4:]  # a cut character has at most three bytes, and a token at least one
            self._seen = len(self._decode(self._window)) - 1
        self._pieces.append(self._until_stop(new))
        return self._pieces[-1]

    def close(self) -> str:
        """The text still held back, for when no token follows."""
        if not self.stopped:
            self._pieces.append(self._held + self._decode(self._window)[self._seen :])
            self._held, self._window, self._seen = "", [], 0
            return self._pieces[-1]
        return ""

    def _until_stop(self, new: str) -> str:
        text = self._held + new
        found = [(place, stop) for stop in self._stop if (place := text.find(stop)) >= 0]
        if found:
            place, self.stop_string = min(found, key=lambda found: found[0])
            self._held = ""
            return text[:place]
        held = max((_overlap(text, stop) for stop in self._stop), default=0)
        self._held = text[len(text) - held :]
        return text[: len(text) - held]


def _overlap(text: str, stop: str) -> int:
    """Length of the longest end of `text` that begins `stop` without completing it."""
    return next((length for length in range(min(len(text), len(stop) - 1), 0, -1) if text.endswith(stop[:length])), 0)
