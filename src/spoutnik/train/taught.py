"""Rejection sampling from a teacher over the network: its answers to training problems, and only what the verifier accepts becomes data."""

from collections.abc import Sequence
from dataclasses import dataclass

from spoutnik.recipe.schema import SampleStage
from spoutnik.run import interrupt
from spoutnik.run.context import StageContext
from spoutnik.tasks import make
from spoutnik.tasks.base import Problem, Task
from spoutnik.tasks.reward import Reward
from spoutnik.teacher.base import Answer, Failure, Question, Sampling
from spoutnik.teacher.card import KEY
from spoutnik.teacher.opening import open_remote, purse_of
from spoutnik.text import reasoning
from spoutnik.train.asking import ask
from spoutnik.train.kept import kept, nothing_kept, write_rows
from spoutnik.train.rollouts import examine

INSTRUCTION = "Think step by step. Then write your final answer, alone, between <answer> and </answer>, and nothing after it."
"""Tells a stranger what our own models were taught; it is no part of the data."""


@dataclass(frozen=True)
class Taught:
    """One graded answer of a teacher, in R1's form. See `kept.Sample`."""

    problem: Problem
    text: str
    length: int
    truncated: bool
    reward: Reward
    steps: int
    right_steps: int
    supported: bool


@dataclass(frozen=True)
class Plan:
    """What a stage asks: each problem `samples_per_problem` times, problem by problem."""

    task: Task
    problems: list[Problem]
    questions: list[Question]
    sampling: Sampling


def plan(stage: SampleStage, seed: int) -> Plan:
    """Known before anything is asked; `seed` is the stage's."""
    task = make(stage.task.name, **stage.task.options)
    problems = [task.problem(stage.task.split, seed, index) for index in range(stage.problems)]
    turns = [({"role": "system", "content": INSTRUCTION}, {"role": "user", "content": problem.prompt}) for problem in problems]
    questions = [Question(messages, sample) for messages in turns for sample in range(stage.samples_per_problem)]
    return Plan(task, problems, questions, Sampling(stage.max_new_tokens, stage.temperature))


def sample_teacher(stage: SampleStage, context: StageContext) -> None:
    """Writes samples.jsonl from the answers of the recipe's teacher `from`. What was answered before costs nothing: see the ledger."""
    asked, count = plan(stage, context.seed), stage.samples_per_problem
    context.record.truncate_stage(context.name, 0)
    with open_remote(context.teachers[stage.from_], purse_of(context, stage.from_)) as teacher:
        results = ask(teacher, asked.questions, asked.sampling, context)
    teachers = context.lineage.get(KEY, [teacher.provenance])
    rows: list[dict[str, object]] = []
    graded: list[Taught] = []
    for place, problem in enumerate(asked.problems):
        interrupt.check()
        answers = [result for result in results[place * count : (place + 1) * count] if isinstance(result, Answer)]
        samples = [grade_answer(asked.task, problem, answer) for answer in answers]
        graded += samples
        rows += kept(samples, stage, teachers)
    context.ledger.add(tokens=sum(sample.length for sample in graded))
    context.log("step", step=1, **_metrics(graded, results), kept=len(rows))
    if not rows:
        raise nothing_kept(stage, "take a stronger one")
    write_rows(rows, context.directory / "samples.jsonl")


def grade_answer(task: Task, problem: Problem, answer: Answer) -> Taught:
    """What the verifier says. An answer that was cut off, or refused, is ill-formed whatever it holds."""
    text = in_r1_form(answer)
    verdict = examine(task, problem, text, thinking=False)
    whole = verdict.reward if answer.finish_reason == "stop" else Reward(verdict.reward.accuracy, 0.0, verdict.reward.language)
    truncated = answer.finish_reason == "length"
    return Taught(
        problem, text, answer.usage.completion_tokens, truncated, whole, verdict.steps, verdict.right_steps, verdict.supported
    )  # fmt: skip


def in_r1_form(answer: Answer) -> str:
    """`<think>`, the thinking, `</think>`, the answer block (or a program in its fences): the form in which our models answer.

    Thinking that the server shows apart, or at the start of its text, stands for itself, and what is said between it and the answer is left
    out. Of a teacher that shows none, what it wrote before the answer is the thinking.
    """
    inline, text = reasoning.split(answer.text, thinking=False)
    thoughts = answer.reasoning or inline
    place = next((text.index(mark) for mark in ("<answer>", "```python") if mark in text), len(text))
    if not thoughts.strip():
        thoughts = text[:place]
    return f"{reasoning.OPEN}\n{thoughts.strip()}\n{reasoning.CLOSE}\n{text[place:].strip()}"


def _metrics(graded: Sequence[Taught], results: Sequence[Answer | Failure]) -> dict[str, float]:
    count = max(len(graded), 1)
    return {
        "accuracy": sum(sample.reward.accuracy for sample in graded) / count,
        "format": sum(sample.reward.format for sample in graded) / count,
        "response_length": sum(sample.length for sample in graded) / count,
        "truncated": sum(sample.truncated for sample in graded) / count,
        "faulted": float(sum(sample.reward.faulted for sample in graded)),
        "failed": float(sum(isinstance(result, Failure) for result in results)),
    }
