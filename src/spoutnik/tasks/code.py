"""Programming problems from a JSONL file in HumanEval's form (arXiv 2107.03374): the reward is that the tests pass in the sandbox."""

import functools
import json
import random
import re
from dataclasses import dataclass, field
from pathlib import Path

from spoutnik.errors import UserError
from spoutnik.sandbox.limits import Limits
from spoutnik.sandbox.pool import SandboxPool, shared_pool
from spoutnik.tasks import code_wire
from spoutnik.tasks.base import Problem, no_trace
from spoutnik.tasks.reward import ANSWER_TAGS, extract_answer
from spoutnik.tasks.rows import Rows, records

_FIELDS = ("prompt", "entry_point", "test")
_ASKED = "Write this Python function. Answer with all of its code in one ```python block.\n\n```python\n{prompt}\n```"
_BLOCK = re.compile(r"```[ \t]*\w*[ \t]*\n(.*?)(?:^[ \t]*```|\Z)", re.DOTALL | re.MULTILINE)
_PYTHON_BLOCK = re.compile(r"^[ \t]*```[ \t]*python[ \t]*\n(.*?)^[ \t]*```[ \t]*$", re.DOTALL | re.MULTILINE | re.IGNORECASE)


@dataclass(frozen=True)
class Exercise:
    """A line of the file: the beginning of the code, the function's name, tests, and a solution if the file has one."""

    prompt: str
    entry_point: str
    test: str
    solution: str


@dataclass
class CodeTask:
    """`belongs_to` puts the whole file into one split; "both" lets each prompt's hash decide. `timeout_s` is for all tests of an answer.

    An answer is the only answer block (of it the last fenced block, or all), or where no answer tag stands anywhere, the only ```python
    block, which must be closed. It runs in the sandbox and its tests in a process of their own beside it.
    `protection` is "full", or "landlock" on systems that grant no user namespaces.
    """

    path: str
    belongs_to: str = "both"
    timeout_s: float = 5.0
    protection: str = "full"
    pool: SandboxPool | None = None
    name: str = field(default="", init=False)

    def __post_init__(self) -> None:
        self.name = f"code:{self.path}"
        if not isinstance(self.timeout_s, int | float) or isinstance(self.timeout_s, bool) or not 0.1 <= self.timeout_s <= 600:
            raise UserError(f"task {self.name!r}: option timeout_s is {self.timeout_s!r}; give seconds from 0.1 to 600.")
        # Whitespace is no part of what a problem is: a reformatted copy must not cross to the other split.
        self._rows = Rows(self.name, "code", read_exercises(Path(self.path)), lambda row: " ".join(row.prompt.split()), self.belongs_to)
        self.pool = self.pool or shared_pool(self.protection)

    @property
    def graders(self) -> int:
        """Answers that may be judged at once, from as many threads."""
        assert self.pool is not None
        return self.pool.workers

    def problem(self, split: str, seed: int, index: int) -> Problem:
        row = self._rows.at(split, seed, index)
        data = {"prompt": row.prompt, "entry_point": row.entry_point, "test": row.test, "protection": self.protection}
        return Problem(self.name, split, seed, index, _ASKED.format(prompt=row.prompt.rstrip()), row.solution, data)

    def extract(self, problem: Problem, content: str) -> str | None:
        """The answer in what follows the thinking. The problem asks for one ```python block, so several of them are no answer."""
        if any(tag in content for tag in ANSWER_TAGS):
            return extract_answer(content)
        blocks = _PYTHON_BLOCK.findall(content)
        return blocks[0].strip("\n") or None if len(blocks) == 1 else None

    def verify(self, problem: Problem, answer: str) -> bool:
        """Raises sandbox.pool.SandboxError if the sandbox failed; an answer that hangs, crashes or eats memory is wrong."""
        assert self.pool is not None
        program = f"{wire()}\nserve({problem.data['prompt']!r}, {extract_code(answer)!r}, {problem.data['entry_point']!r})"
        limits = Limits(wall_s=self.timeout_s, cpu_s=self.timeout_s)
        return self.pool.run(f"{wire()}\njudge()", json.dumps(problem.data), partner=program, limits=limits).ok

    def trace(self, problem: Problem, rng: random.Random) -> str:
        raise no_trace(self.name)


def extract_code(text: str) -> str:
    """The last fenced block, closed or not; the whole text if there is none."""
    blocks = _BLOCK.findall(text)
    return blocks[-1] if blocks else text


def read_exercises(path: Path) -> list[Exercise]:
    """All lines; raises UserError with file and line for one that cannot be used. A solution continues the prompt."""
    exercises = []
    for where, record in records(path, ", ".join(map(repr, _FIELDS))):
        for name in _FIELDS:
            if not isinstance(record.get(name), str) or not record[name].strip():
                raise UserError(f"{where}: field {name!r} is missing, empty or no text; HumanEval's form has {', '.join(_FIELDS)}.")
        if not record["entry_point"].isidentifier():
            raise UserError(f"{where}: entry_point is {record['entry_point']!r}; give the name of a function.")
        solution = record.get("canonical_solution")
        whole = record["prompt"] + solution if isinstance(solution, str) else ""
        exercises.append(Exercise(record["prompt"], record["entry_point"], record["test"], whole))
    return exercises


@functools.cache
def wire() -> str:
    """The text that both sides begin with."""
    return Path(code_wire.__file__).read_text(encoding="utf-8")
