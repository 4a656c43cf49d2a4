"""Text that comes in pieces, without the white space at both ends."""


class Trimmed:
    """Takes the white space from both ends of a text that comes in pieces: what ends a piece waits until more follows."""

    def __init__(self) -> None:
        self._held = ""
        self._begun = False

    def feed(self, piece: str) -> str:
        """What is now known to be of the text."""
        text = self._held + piece if self._begun else piece.lstrip()
        body = text.rstrip()
        self._begun = self._begun or bool(body)
        self._held = text[len(body) :]
        return body
