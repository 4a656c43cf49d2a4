"""Questions and answers from a JSONL file, as a task.

A line is an object with a question and an answer (GSM8K's files: the final answer follows `####`), or a conversation in Hugging Face's
`messages` form, whose first user turn asks and whose last assistant turn answers.
"""

import functools
import importlib.util
import random
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from spoutnik.errors import UserError
from spoutnik.tasks.base import Problem, no_trace
from spoutnik.tasks.rows import Rows, records
from spoutnik.tasks.values import read_number, same_answer
from spoutnik.tasks.workers import VerifierPool, shared_pool
from spoutnik.text import reasoning as think

_CALCULATOR = re.compile(r"<<[^<>]*>>")


@dataclass(frozen=True)
class Row:
    """One usable line."""

    question: str
    answer: str
    working: str
    """How the answer is reached, where the file says it (before `####`); else empty."""


@dataclass
class JsonlTask:
    """`question` and `answer` name the fields. `belongs_to` puts the whole file into one split; "both" lets each question's hash decide.

    Answers are compared as exact numbers where the reference is one, else as mathematics by math-verify in a worker process where that
    package is installed, else as text.
    """

    path: str
    question: str = "question"
    answer: str = "answer"
    belongs_to: str = "both"
    pool: VerifierPool | None = None
    name: str = field(default="", init=False)

    def __post_init__(self) -> None:
        self.name = f"jsonl:{self.path}"
        self._rows = Rows(
            self.name, "jsonl", read_rows(Path(self.path), self.question, self.answer), lambda row: row.question, self.belongs_to
        )

    def problem(self, split: str, seed: int, index: int) -> Problem:
        row = self._rows.at(split, seed, index)
        return Problem(self.name, split, seed, index, row.question, row.answer, {"working": row.working} if row.working else {})

    def verify(self, problem: Problem, answer: str) -> bool:
        if read_number(problem.answer) is not None and read_number(answer) is not None:
            return same_answer(problem.answer, answer)
        if same_answer(problem.answer, answer) or not _has_math_verify():
            return same_answer(problem.answer, answer)
        return (self.pool or shared_pool()).verify("spoutnik.tasks.math_judge:is_same", problem.answer, answer)

    def trace(self, problem: Problem, rng: random.Random) -> str:
        """The file's own solution, without GSM8K's marks for a calculator."""
        if "working" not in problem.data:
            raise no_trace(self.name)
        return f"{problem.data['working']}\n</think>\n<answer>{problem.answer}</answer>"


def read_rows(path: Path, question: str, answer: str) -> list[Row]:
    """All rows of a file; raises UserError with file and line for one that cannot be used. Blank lines are skipped."""
    return [_row(record, where, question, answer) for where, record in records(path, f"{question!r} and {answer!r}")]


def _row(record: dict[str, Any], where: str, question: str, answer: str) -> Row:
    if "messages" in record and question not in record:
        asked, answered = _turns(record["messages"], where)
    else:
        asked, answered = _text(record, question, where), _text(record, answer, where)
    final = final_answer(answered)
    if not asked.strip() or not final:
        raise UserError(f"{where}: the question or the answer is empty; fill it in or remove the line.")
    return Row(asked, final, working(answered))


def final_answer(text: str) -> str:
    """What counts in a reference answer: what follows the last `####` (GSM8K), or the text after the thinking."""
    _, content = think.split(text, thinking=False)
    return content.rpartition("####")[2].strip()


def working(text: str) -> str:
    """What a reference answer writes before its last `####`, without GSM8K's marks for a calculator (`<<3*4=12>>`)."""
    _, content = think.split(text, thinking=False)
    before, mark, _ = content.rpartition("####")
    return _CALCULATOR.sub("", before).strip() if mark else ""


def _text(record: dict[str, Any], name: str, where: str) -> str:
    value = record.get(name)
    if isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)
    if not isinstance(value, str):
        raise UserError(f"{where}: field {name!r} is {'missing' if value is None else type(value).__name__}; it must be text or a number.")
    return value


def _turns(messages: Any, where: str) -> tuple[str, str]:
    """The first user turn and the last assistant turn."""
    turns = [message for message in messages if isinstance(message, dict)] if isinstance(messages, list) else []
    asked = [turn for turn in turns if turn.get("role") == "user"]
    answered = [turn for turn in turns if turn.get("role") == "assistant"]
    if not asked or not answered:
        raise UserError(f"{where}: messages must be a list with a user turn and an assistant turn.")
    return _text(asked[0], "content", where), _text(answered[-1], "content", where)


@functools.cache
def _has_math_verify() -> bool:
    return importlib.util.find_spec("math_verify") is not None
