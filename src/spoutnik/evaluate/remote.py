"""A remote model's answers, by way of the ledger of requests: what was answered once, for whatever purpose, is not paid for again.

Nothing is learnt from these answers, so the provider's terms on training are not asked.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from spoutnik.evaluate.answers import Answered, Place
from spoutnik.evaluate.voting import ballot
from spoutnik.recipe.teachers import TeacherSpec
from spoutnik.run.context import StageContext
from spoutnik.tasks.base import Problem, Task
from spoutnik.tasks.reward import find_answer
from spoutnik.teacher.base import Answer, Failure, Question, Sampling
from spoutnik.teacher.opening import open_examinee, purse_of
from spoutnik.text import reasoning
from spoutnik.train.asking import ask
from spoutnik.train.taught import INSTRUCTION, grade_answer


def questions_of(problems: Sequence[Problem], places: Sequence[Place]) -> list[Question]:
    """What is asked: each problem after the instruction on how to answer."""
    turns = [({"role": "system", "content": INSTRUCTION}, {"role": "user", "content": problem.prompt}) for problem in problems]
    return [Question(turns[number], sample) for number, sample in places]


def answer_there(
    spec: TeacherSpec,
    task: Task,
    problems: Sequence[Problem],
    places: Sequence[Place],
    sampling: Sampling,
    context: StageContext,
    label: str,
) -> list[Answered]:
    """Graded answers, place by place; those that failed are among them. See `RemoteTeacher.answers` for what it raises."""
    with open_examinee(spec, purse_of(context, spec.name)) as model:
        results = ask(model, questions_of(problems, places), sampling, context, label)
    with ThreadPoolExecutor(getattr(task, "graders", 1)) as threads:
        return list(threads.map(lambda place, result: _judged(task, problems[place[0]], place, result), places, results))


def _judged(task: Task, problem: Problem, place: Place, result: Answer | Failure) -> Answered:
    if isinstance(result, Failure):
        return Answered(*place, problem.prompt, finish="failed", failure=result.error)
    found = grade_answer(task, problem, result)
    answer = find_answer(task, problem, reasoning.split(found.text, thinking=False)[1])
    return Answered(
        *place, problem.prompt, found.text, answer, ballot(problem, answer) if answer is not None else None,
        found.reward.accuracy > 0, found.reward.format, result.finish_reason, found.reward.fault,
        tokens=result.usage.completion_tokens, tokens_known=result.usage.known, prompt_tokens=result.usage.prompt_tokens, cost=result.cost,
        steps=found.steps, right_steps=found.right_steps, supported=found.supported,
    )  # fmt: skip
