"""The one reader of think tags: rewards, chat, server and reports all use it.

A reasoning model writes `reasoning</think>content`, with `<think>` before it when the rendered prompt does not already end in one
(DeepSeek-R1's own template puts it in the prompt, so completions hold only the closing tag). The rules:

- Started inside thinking, everything before the first `</think>` is reasoning.
- Started outside, an opening `<think>` counts only as the first thing after white space.
- Only the first think block counts; later tags are plain content.

No other character is lost, moved or trimmed, and how the text is cut into pieces never changes the result.
"""

OPEN, CLOSE = "<think>", "</think>"

# What begins the assistant's turn in the chat formats of the model families that we load.
ASSISTANT_TURNS = (
    "<｜Assistant｜>",  # noqa: RUF001
    "<|im_start|>assistant",
    "<|start_header_id|>assistant",
    "<|assistant|>",
    "[/INST]",
    "Assistant:",
)


class ThinkParser:
    """Splits a stream of text into reasoning and content.

    `thinking` says whether the prompt left a `<think>` open (see `starts_thinking`). Text that may turn out to be part of a tag is held
    back until it is decided; `close` releases what is left.
    """

    def __init__(self, thinking: bool) -> None:
        self._undecided = not thinking
        self._thinking = thinking
        self._held = ""

    @property
    def thinking(self) -> bool:
        """Whether what was fed so far ends within the thinking."""
        return self._thinking

    def feed(self, text: str) -> tuple[str, str]:
        """Returns what this piece added to (reasoning, content)."""
        self._held += text
        if self._undecided and not self._decide():
            return "", ""
        if self._thinking:
            return self._read_thinking()
        return "", self._release()

    def close(self) -> tuple[str, str]:
        """Returns what was still held back: the text has ended, so a half-written tag is text."""
        rest = self._release()
        return (rest, "") if self._thinking else ("", rest)

    def _decide(self) -> bool:
        """Settles whether the text opens with `<think>`; False while more text is needed to tell."""
        start = self._held.lstrip()
        if len(start) < len(OPEN) and OPEN.startswith(start):
            return False
        self._undecided = False
        if start.startswith(OPEN):
            self._thinking = True
            self._held = start[len(OPEN) :]
        return True

    def _read_thinking(self) -> tuple[str, str]:
        reasoning, tag, content = self._held.partition(CLOSE)
        if tag:
            self._thinking, self._held = False, ""
            return reasoning, content
        safe = len(self._held) - overlap(self._held, CLOSE)
        reasoning, self._held = self._held[:safe], self._held[safe:]
        return reasoning, ""

    def _release(self) -> str:
        text, self._held = self._held, ""
        return text


def split(text: str, thinking: bool) -> tuple[str, str]:
    """Returns (reasoning, content) of a whole text."""
    parser = ThinkParser(thinking)
    reasoning, content = parser.feed(text)
    last_reasoning, last_content = parser.close()
    return reasoning + last_reasoning, content + last_content


def starts_thinking(prompt: str) -> bool:
    """Whether the rendered prompt leaves a `<think>` open for the model to continue.

    True when the last `<think>` comes after the last `</think>` and after the start of the last assistant turn, so that a user who writes
    `<think>` does not change the mode. A prompt without any known turn marker is one turn.
    """
    turn = max(prompt.rfind(marker) for marker in ASSISTANT_TURNS)
    return prompt.rfind(OPEN) > max(prompt.rfind(CLOSE), turn)


def overlap(text: str, tag: str) -> int:
    """Length of the longest end of `text` that could be the start of `tag` and is not all of it."""
    return next((size for size in range(min(len(tag) - 1, len(text)), 0, -1) if tag.startswith(text[-size:])), 0)
