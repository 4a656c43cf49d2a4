"""Ctrl-C and SIGTERM ask for a stop between steps; a second one stops at once."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_asked = threading.Event()


def asked() -> bool:
    """Whether a stop was asked for."""
    return _asked.is_set()


def check() -> None:
    """Raises KeyboardInterrupt if a stop was asked for: call it where nothing would be lost."""
    if asked():
        raise KeyboardInterrupt


@contextmanager
def between_steps() -> Iterator[None]:
    """Within it, the first SIGINT or SIGTERM sets a flag for `check`; the next raises KeyboardInterrupt wherever the program is."""

    def handle(number: int, frame: FrameType | None) -> None:
        if _asked.is_set():
            raise KeyboardInterrupt
        _asked.set()

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        _asked.clear()
