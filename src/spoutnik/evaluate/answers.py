"""Graded answers, whoever gave them, and the file that keeps them: what is in it is neither generated nor asked for again."""

import dataclasses
import hashlib
import json
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from spoutnik.run.record import Record, read
from spoutnik.tasks.base import Problem

Place = tuple[int, int]
"""(problem, sample)"""
SHORTENED = 40


@dataclass(frozen=True)
class Answered:
    """One answer to one problem.

    `text` is as the model wrote it; what a provider shows apart is put together in R1's form. `answer` is the final answer that the
    verifier saw, `vote` the form in which it is counted (see `voting`). `fault` says why the verifier gave no verdict, `failure` why no
    answer came: both count as wrong. `tokens` were written, with the thinking; `tokens_known` is False where a provider did not say and the
    most that there can have been stands here. `cost`, in billionths, is a remote model's. `seconds` and `joules` are what the machine spent
    since the answer before: only their sums mean something.
    """

    problem: int
    sample: int
    prompt: str
    text: str = ""
    answer: str | None = None
    vote: str | None = None
    correct: bool = False
    format: float | None = 0.0
    finish: Literal["stop", "length", "refused", "failed"] = "stop"
    fault: str | None = None
    failure: str | None = None
    prompt_tokens: int = 0
    tokens: int = 0
    tokens_known: bool = True
    cost: int | None = None
    seconds: float = 0.0
    joules: float = 0.0
    energy_source: str | None = None
    steps: int = 0
    right_steps: int = 0
    supported: bool = False
    scores: dict[str, Any] = dataclasses.field(default_factory=dict)
    """What a task of lm-evaluation-harness says, by "metric,filter" (see `tasks.harness`); such a task looks at no form."""
    time: float = 0.0
    """When it was written down, in seconds since the epoch."""

    @property
    def place(self) -> Place:
        return self.problem, self.sample


class AnswerFile:
    """One model's answers to one task, a JSON object a line. Of several lines for one place the last counts.

    `decisive` is all that decides an answer but the problem and the sample's number, so that no answer is taken for that of another model,
    task or setting, while more problems, or more answers to each, go on in the same file.
    """

    def __init__(self, folder: Path, model: str, task: str, decisive: dict[str, Any]):
        digest = hashlib.blake2b(json.dumps(decisive, sort_keys=True).encode(), digest_size=4).hexdigest()
        self.path = folder / f"{_short(model)}--{_short(task)}--{digest}.jsonl"
        self._record = Record(self.path)
        self._labels = {"model": model, "task": task}
        self._known = self._read()

    def missing(self, problems: Sequence[Problem], samples: int) -> list[Place]:
        """The places without an answer, problem by problem: new ones, those that failed, and those of a problem that is another now."""
        places = [(number, sample) for number in range(len(problems)) for sample in range(samples)]
        return [place for place in places if not self._answers(place, problems[place[0]])]

    def take(self, problems: int, samples: int) -> list[list[Answered]]:
        """The answers to each of the first `problems`, which must all be there."""
        return [[self._known[number, sample] for sample in range(samples)] for number in range(problems)]

    def add(self, answer: Answered) -> None:
        """Writes an answer down; it is with the operating system when this returns."""
        answer = dataclasses.replace(answer, time=round(time.time(), 3))
        self._record.append({**self._labels, **dataclasses.asdict(answer)})
        self._known[answer.place] = answer

    def _answers(self, place: Place, problem: Problem) -> bool:
        found = self._known.get(place)
        return found is not None and found.failure is None and found.prompt == problem.prompt

    def _read(self) -> dict[Place, Answered]:
        names = {field.name for field in dataclasses.fields(Answered)}
        rows = read(self.path) if self.path.exists() else []
        answers = [Answered(**{key: value for key, value in row.items() if key in names}) for row in rows]
        return {answer.place: answer for answer in answers}


def _short(name: str) -> str:
    """The end of a name as a part of a file's name."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name)[-SHORTENED:].strip("-.") or "model"
