"""Chat templates in a process of their own: whatever a template does, it ends after some seconds and within some memory.

A template comes with a model from strangers. Jinja's sandbox keeps it from the program's objects, but not from nested loops or texts that
double, and within a server one such render would stop all others. So a server has `TemplateProcess` render: a process that holds nothing
but Jinja, with the kernel's limit on memory, and, where the kernel grants it, a filter that leaves it reading and writing what is open.
"""

import json
import os
import struct
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import spoutnik
from spoutnik.errors import UserError
from spoutnik.text.template import MAX_RENDERED_CHARS, render

MOST_BYTES = 1 << 29
"""Of memory, all in all."""
BOOT = "import sys; sys.path.insert(0, sys.argv[1]); from spoutnik.text.template_process import main; main()"
_LENGTH = struct.Struct("<Q")


class TemplateProcess:
    """Renders one template at a time, for any thread; begins when first needed, and anew when it had to be ended. Close it."""

    def __init__(self, seconds: float = 10.0):
        self._seconds = seconds
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None

    def render(self, template: str, messages: Sequence[Mapping[str, Any]], /, **variables: Any) -> str:
        """As `template.render`, but for JSON alone. Raises UserError, also where the template takes too long or too much."""
        request = json.dumps([template, messages, variables]).encode()
        with self._lock:
            process = self._process = self._process or _start()
            assert process.stdin is not None
            assert process.stdout is not None
            watch = threading.Timer(self._seconds, process.kill)
            watch.start()
            try:
                _write(process.stdin, request)
                reply = _read(process.stdout, 6 * MAX_RENDERED_CHARS + 1024)  # an escaped character takes six bytes
            except OSError:
                reply = None
            finally:
                watch.cancel()
            if reply is None:
                self._end()
        if reply is None:
            raise UserError(
                f"the chat template did not end within {self._seconds:g} s and {MOST_BYTES >> 20} MiB; send less, or use another template."
            )
        answer = json.loads(reply)
        if "error" in answer:
            raise UserError(answer["error"])
        return str(answer["text"])

    def close(self) -> None:
        """Ends the process."""
        with self._lock:
            self._end()

    def _end(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None


def _start() -> "subprocess.Popen[bytes]":
    root = str(Path(spoutnik.__file__).parents[1])
    return subprocess.Popen([sys.executable, "-c", BOOT, root], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)


def _write(stream: IO[bytes], content: bytes) -> None:
    stream.write(_LENGTH.pack(len(content)) + content)
    stream.flush()


def _read(stream: IO[bytes], most: int | None = None) -> bytes | None:
    """What was written; None at the end, and where it is more than expected."""
    head = stream.read(_LENGTH.size)
    if len(head) < _LENGTH.size:
        return None
    (length,) = _LENGTH.unpack(head)
    if most is not None and length > most:
        return None
    content = stream.read(length)
    return content if len(content) == length else None


def main() -> None:
    """The process: reads requests and writes replies until nobody asks any more."""
    import resource
    import signal

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the server's, which lets answers end
    resource.setrlimit(resource.RLIMIT_AS, (MOST_BYTES, MOST_BYTES))
    render("{% for m in messages %}{{ m | tojson }}{{ strftime_now('%H') }}{% endfor %}", [{"role": "user", "content": "é"}])
    _shut_in()
    while (request := _read(sys.stdin.buffer)) is not None:
        try:
            template, messages, variables = json.loads(request)
            reply = {"text": render(template, messages, **variables)}
        except UserError as error:
            reply = {"error": str(error)}
        except Exception as error:
            reply = {"error": f"the chat template failed on these messages ({type(error).__name__}); use another template."}
        _write(sys.stdout.buffer, json.dumps(reply).encode())


def _shut_in() -> None:
    """From here on nothing can be opened, run or reached, where the kernel has filters."""
    from spoutnik.sandbox import linux, seccomp

    try:
        linux.die_with_parent()
        linux.no_new_privileges()
        linux.filter_system_calls(seccomp.build(alone=os.getpid()))
    except (OSError, KeyError):
        return
