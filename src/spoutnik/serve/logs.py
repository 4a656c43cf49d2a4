"""Logs as one JSON object a line, without a word of any prompt or answer.

What a fault says may quote what it failed on, and libraries log what they hold. So of an exception its kind and its places in the code are
logged, never its words; and of other libraries' records that there was one.
"""

import json
import logging
import sys
import traceback
from datetime import UTC, datetime

OURS = ("spoutnik", "uvicorn")
"""Loggers whose messages are known to quote nothing."""
NOT_SHOWN = "(words of another library, which may quote a request)"


class JsonFormatter(logging.Formatter):
    """time (UTC), level, logger, message, what `extra={"fields": {...}}` adds, and kind and places of an exception if there is one."""

    def format(self, record: logging.LogRecord) -> str:
        entry = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(), "logger": record.name,
            "message": record.getMessage() if record.name.split(".")[0] in OURS else NOT_SHOWN, **getattr(record, "fields", {}),
        }  # fmt: skip
        if record.exc_info and record.exc_info[1] is not None:
            error = record.exc_info[1]
            entry["exception"] = type(error).__name__
            entry["traceback"] = [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in traceback.extract_tb(error.__traceback__)]
        return json.dumps(entry, ensure_ascii=False, default=str)


def log_to_stderr(level: int = logging.INFO) -> None:
    """Everything that is logged in this process, from `level` on."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter())
    logging.basicConfig(level=level, handlers=[handler], force=True)
    logging.getLogger("uvicorn").setLevel(logging.WARNING)
