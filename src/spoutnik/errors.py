"""The one exception that a user is meant to read."""

from typing import Any


class Phrase:
    """Words with blanks in braces and the values that fill them, so that a reader's language can take the words' place.

    Without values the words stay as they are, braces included.
    """

    def __init__(self, words: str, /, **values: Any):
        self.words, self.values = words, values

    def __str__(self) -> str:
        return self.words.format(**self.values) if self.values else self.words


class UserError(Exception):
    """A fault of input, not of the program: the message is one sentence saying what was found, what was expected and what to do.

    The command line prints it without a traceback and exits with status 1. `phrase` is the sentence before its blanks are filled; a
    value may be a Phrase itself.
    """

    def __init__(self, words: str, /, **values: Any):
        super().__init__(words)
        self.phrase = Phrase(words, **values)

    def __str__(self) -> str:
        return str(self.phrase)
