"""Filling in the middle: a text with a gap, written with the tokens that a model was trained to see gaps by."""

from spoutnik.serve.errors import InvalidRequestError
from spoutnik.text.tokenizer import Tokenizer

FAMILIES = {
    "DeepSeek": ("<｜fim▁begin｜>", "<｜fim▁hole｜>", "<｜fim▁end｜>"),  # noqa: RUF001
    "Qwen": ("<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>"),
    "StarCoder": ("<fim_prefix>", "<fim_suffix>", "<fim_middle>"),
}
"""What stands before the text, in the place of the gap, and at the end, where the missing part is to be written."""


def with_gap(prefix: str, suffix: str, tokenizer: Tokenizer) -> str:
    """The prompt that asks for what stands between. Raises InvalidRequestError where the vocabulary has no such tokens."""
    for begin, gap, end in FAMILIES.values():
        if all(tokenizer.backend.token_to_id(mark) is not None for mark in (begin, gap, end)):
            return f"{begin}{prefix}{gap}{suffix}{end}"
    raise InvalidRequestError(
        f"suffix asks to fill a gap, but this model's vocabulary has no tokens for that (those of {', '.join(FAMILIES)} do); leave it out.",
        param="suffix",
    )
