"""Runs inside a verifier process: compares two answers as mathematics with math-verify."""

from math_verify import parse, verify


def is_same(reference: str, answer: str) -> bool:
    """Whether `answer` means the same as `reference` (LaTeX or plain). The library's own timers stay off: our clock is outside."""
    wanted, given = (parse(_in_math(text), parsing_timeout=None, raise_on_error=True) for text in (reference, answer))
    if not wanted:
        raise ValueError(f"the reference answer {reference!r} cannot be read")
    return bool(verify(wanted, given, timeout_seconds=None, raise_on_error=True))


def _in_math(text: str) -> str:
    return text if "$" in text or "\\boxed" in text else f"${text}$"
