"""What an evaluation asks: a task of the recipe with its problems, and how a model over the network is asked them."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from spoutnik.errors import UserError
from spoutnik.evaluate.answers import Place
from spoutnik.evaluate.remote import Judge, judge_of, questions_of
from spoutnik.recipe.schema import EvalStage, TaskSpec
from spoutnik.tasks import make
from spoutnik.tasks.base import Problem, Task
from spoutnik.tasks.harness import HarnessTask
from spoutnik.teacher.base import Question, Sampling
from spoutnik.train.taught import INSTRUCTION

VIEWS = ("metric", "filter")
"""Options of lm-evaluation-harness's tasks that decide how answers are read, not what is answered."""


@dataclass(frozen=True)
class Posed:
    """A task and its problems, the same for every model. `label` is its name in the results."""

    spec: TaskSpec
    task: Task
    problems: list[Problem]

    @property
    def label(self) -> str:
        return label(self.spec)

    @property
    def harness(self) -> HarnessTask | None:
        return self.task if isinstance(self.task, HarnessTask) else None

    @property
    def kept_as(self) -> str:
        """The name of what is answered, whatever is read out of the answers."""
        return label(self.spec, without=VIEWS if self.harness else ())

    @property
    def decisive(self) -> dict[str, Any]:
        """All of the task that decides an answer; of a harness's task also the sizes and times of its files."""
        if not self.harness:
            return {"task": [self.spec.name, self.spec.options, self.spec.split]}
        options = {key: value for key, value in self.spec.options.items() if key not in VIEWS}
        files = [Path(file) for file in (self.harness.source, self.harness.data, self.harness.examples) if file and Path(file).is_file()]
        stamps = [[file.name, file.stat().st_size, file.stat().st_mtime_ns] for file in files]
        return {"task": [self.spec.name, options, self.spec.split], "files of the task": stamps}

    def for_remote(self, places: Sequence[Place], sampling: Sampling) -> tuple[list[Question], Sampling, Judge]:
        """What a model over the network is asked, how, and how its answers are graded."""
        if not self.harness:
            return questions_of(self.problems, places), sampling, judge_of(self.task, self.problems)
        from spoutnik.evaluate.harness_answers import chat_requests, harness_judge, harness_questions, harness_sampling

        requests, own = chat_requests(self.harness, len(self.problems)), harness_sampling(self.harness, sampling)
        return harness_questions(requests, places), own, harness_judge(self.harness, self.problems, requests, sampling)


def pose(spec: TaskSpec) -> Posed:
    """Problems are drawn with seed 0, so that every run sees the same ones; a harness's task has no more than its documents."""
    task = make(spec.name, **spec.options)
    if not spec.problems:
        raise UserError(f"The evaluation on {spec.name!r} does not say how many problems; set `problems`.")
    count = task.available(spec.problems) if isinstance(task, HarnessTask) else spec.problems
    return Posed(spec, task, [task.problem(spec.split, 0, index) for index in range(count)])


def label(spec: TaskSpec, without: Sequence[str] = ()) -> str:
    """The task's name with the options that tell it from others of that name."""
    hidden = ("trace_options", *without)
    options = ", ".join(f"{key} {value}" for key, value in spec.options.items() if key not in hidden)
    return f"{spec.name} ({options})" if options else spec.name


def planned_questions(stage: EvalStage) -> list[tuple[list[Question], Sampling]]:
    """All that a stage asks each remote model, by how it is asked."""
    plans: dict[Sampling, list[Question]] = {}
    for spec in stage.tasks:
        posed = pose(spec)
        places = [(number, sample) for number in range(len(posed.problems)) for sample in range(stage.samples_per_problem)]
        questions, sampling, _ = posed.for_remote(places, Sampling(stage.max_new_tokens, stage.temperature))
        plans.setdefault(sampling, []).extend(questions)
    return [(questions, sampling) for sampling, questions in plans.items()]


def instruction(remote: bool, stage: EvalStage, posed: Posed) -> str | None:
    """What a model is told before the problem; a harness's task says all itself."""
    return INSTRUCTION if (remote or stage.instruct) and not posed.harness else None
