"""A task's worked traces as data for a cold start: what R1 had people and models write (section 2.3.1), a task may write by itself."""

import random
from dataclasses import dataclass

from spoutnik.errors import UserError
from spoutnik.recipe.schema import TracesStage
from spoutnik.run import interrupt
from spoutnik.run.context import StageContext
from spoutnik.tasks import make
from spoutnik.tasks.base import Problem, Task
from spoutnik.tasks.reward import Reward
from spoutnik.train.kept import row, write_rows
from spoutnik.train.rollouts import examine

CHUNK = 100
"""Problems between two looks at whether a stop was asked for."""


@dataclass(frozen=True)
class Trace:
    """One graded attempt that the task wrote; see `kept.Sample`. Its length is in characters, for it has no tokenizer."""

    problem: Problem
    text: str
    reward: Reward
    steps: int
    right_steps: int
    supported: bool

    @property
    def length(self) -> int:
        return len(self.text)


def run_traces(stage: TracesStage, context: StageContext) -> None:
    """Writes samples.jsonl as a `sample` stage does: one trace a problem. Deterministic, so a killed stage just starts again."""
    task = make(stage.task.name, **stage.task.options)
    traces: list[Trace] = []
    with context.progress(context.name, stage.problems) as progress:
        while len(traces) < stage.problems:
            interrupt.check()
            upto = min(len(traces) + CHUNK, stage.problems)
            traces += [write_trace(task, stage.task.split, context.seed, index) for index in range(len(traces), upto)]
            progress.update(len(traces), {})
    right = [bool(trace.reward.accuracy and trace.reward.format) for trace in traces]
    rows = [row(trace) for trace, good in zip(traces, right, strict=True) if good or stage.keep == "all"]
    if not rows:
        raise UserError(f"Stage {stage.name!r} kept none of {stage.problems} traces, since all are wrong; write more, or set keep = 'all'.")
    write_rows(rows, context.directory / "samples.jsonl")
    context.log("sample", when="traces", prompt=traces[0].problem.prompt, text=traces[0].text, correct=bool(traces[0].reward.accuracy))
    context.log("step", step=1, accuracy=sum(right) / len(right), kept=len(rows))


def write_trace(task: Task, split: str, seed: int, index: int) -> Trace:
    """The trace of one problem, graded like a model's answer. Raises UserError if the task writes none."""
    problem = task.problem(split, seed, index)
    text = task.trace(problem, random.Random(f"trace/{seed}/{index}"))
    found = examine(task, problem, text, thinking=True)
    return Trace(problem, text, found.reward, found.steps, found.right_steps, found.supported)
