"""Contestants in processes of their own, stopped while it is not their turn: an idle engine's threads must not take cores from others.

A process answers lines: a Job as JSON comes in, a Timing as JSON goes out. Everything else that it prints goes to the error output.
"""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Protocol

from contestants.job import Job, Timing

HERE = Path(__file__).resolve().parent.parent
WARM_UP = Job(2, 40, 4, seed=-1)


class Contestant(Protocol):
    """An engine with a model in one format."""

    name: str
    notes: list[str]
    """What a reader of its figures must know."""

    def run(self, job: Job) -> Timing:
        """Does a job. Raises OSError or RuntimeError with the reason if the engine fails."""
        ...

    def start_command(self) -> tuple[list[str], dict[str, str]]:
        """A command whose first output is the first token after a fresh start, and what it needs in its environment."""
        ...

    def close(self) -> None:
        """Ends what runs."""
        ...


class Worker:
    """A contestant that lives in another process, made at its first job: `python -m contestants.MODULE ARGUMENTS`."""

    def __init__(self, name: str, module: str, arguments: Sequence[str], python: str = sys.executable, environment: Mapping[str, str] = {}):
        self.name, self.notes = name, list[str]()
        self._command = [python, "-m", f"contestants.{module}", *arguments]
        self._environment = {**environment, "PYTHONPATH": os.pathsep.join([str(HERE), os.environ.get("PYTHONPATH", "")])}
        self._process: subprocess.Popen[str] | None = None

    def run(self, job: Job) -> Timing:
        if self._process is None:
            self._process = subprocess.Popen(
                self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True,
                env={**os.environ, **self._environment},
            )  # fmt: skip
            self._ask(WARM_UP)
        else:
            os.killpg(self._process.pid, signal.SIGCONT)
        timing = self._ask(job)
        os.killpg(self._process.pid, signal.SIGSTOP)
        return timing

    def start_command(self) -> tuple[list[str], dict[str, str]]:
        return [*self._command, "--start"], self._environment

    def close(self) -> None:
        if self._process is not None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None

    def _ask(self, job: Job) -> Timing:
        assert self._process is not None
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps(asdict(job)) + "\n")
            self._process.stdin.flush()
            answer = json.loads(self._process.stdout.readline() or "{}")
        except BrokenPipeError:
            answer = {}
        if "first" not in answer:
            self.close()
            raise RuntimeError(answer.get("error", "it ended before its time"))
        return Timing(**answer)


def serve(run: Callable[[], Callable[[Job], Timing]]) -> None:
    """A worker's side: makes the engine, then answers jobs until the input ends."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    try:
        engine = run()
        for line in sys.stdin:
            print(json.dumps(asdict(engine(Job(**json.loads(line))))), file=answers, flush=True)
    except Exception as error:  # the reason goes into the table
        print(json.dumps({"error": f"{type(error).__name__}: {error}".splitlines()[0][:200]}), file=answers, flush=True)
        raise
