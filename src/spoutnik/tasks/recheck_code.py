"""The second judge of programs: other inputs than those that were rewarded, held against the file's own solution.

A policy that is paid for passing tests may learn to write what passes these tests and nothing else. So the tests' inputs are changed a
little, and the solution says what is right for them. An answer that agrees on all is right, one that agrees on fewer than half is not, and
between them nothing is said: a solution is no judge of inputs that the problem never meant, and a program that knows the tests by heart
agrees on hardly any.
"""

import functools
import json
import re
from pathlib import Path

from spoutnik.sandbox.limits import Limits
from spoutnik.sandbox.pool import shared_pool
from spoutnik.tasks import code_wire
from spoutnik.tasks.base import Problem

_FENCE = "```"
_LABEL = re.compile(r"\w*[ \t]*\n")
LIMITS = Limits(wall_s=10.0, cpu_s=10.0)


def second_run(problem: Problem, answer: str) -> bool | None:
    """Whether a program does on other inputs what the solution does. None where it partly does, without a solution, or where time is up."""
    if not problem.answer.strip():
        return None
    task = {**problem.data, "solution": problem.answer}
    program = f"{_wire()}\nserve({problem.data['prompt']!r}, {answer!r}, {problem.data['entry_point']!r})"
    pool = shared_pool(problem.data["protection"])
    result = pool.run(f"{_wire()}\ncompare()", json.dumps(task), partner=program, limits=LIMITS)
    return {code_wire.AGREES: True, code_wire.DIFFERS: False}.get(result.status) if result.outcome == "exited" else None


def code_of(content: str) -> str | None:
    """The program in what follows the thinking: in the only answer block, or without its tags in the only block of Python."""
    if "<answer>" in content or "</answer>" in content:
        before, opened, rest = content.partition("<answer>")
        inside, closed, after = rest.partition("</answer>")
        if not opened or not closed or "answer>" in before + inside + after:
            return None
        pieces = inside.split(_FENCE)
        return inside if len(pieces) < 2 else _LABEL.sub("", pieces[2 * ((len(pieces) - 2) // 2) + 1], count=1)
    pieces = content.split(_FENCE)
    blocks = [piece for piece in pieces[1::2] if piece[:6].lower() == "python" and piece[6:].lstrip(" \t")[:1] == "\n"]
    return blocks[0].partition("\n")[2] if len(blocks) == 1 and len(pieces) % 2 == 1 else None


@functools.cache
def _wire() -> str:
    """The text that both programs begin with."""
    return Path(code_wire.__file__).read_text(encoding="utf-8")
