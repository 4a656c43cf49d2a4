"""A remote model's answers, by way of the ledger of requests: what was answered once, for whatever purpose, is not paid for again.

Each is graded and written down when it comes. Nothing is learnt from these answers, so the provider's terms on training are not asked.
"""

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

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

Judge = Callable[[Place, Answer], Answered]


def questions_of(problems: Sequence[Problem], places: Sequence[Place]) -> list[Question]:
    """What is asked: each problem after the instruction on how to answer."""
    turns = [({"role": "system", "content": INSTRUCTION}, {"role": "user", "content": problem.prompt}) for problem in problems]
    return [Question(turns[number], sample) for number, sample in places]


def judge_of(task: Task, problems: Sequence[Problem]) -> Judge:
    """Grades by the task's verifier."""

    def judged(place: Place, answer: Answer) -> Answered:
        return _judged(task, problems[place[0]], place, answer)

    return judged


def answer_there(
    spec: TeacherSpec,
    questions: Sequence[Question],
    places: Sequence[Place],
    sampling: Sampling,
    judged: Judge,
    graders: int,
    keep: Callable[[Answered], None],
    context: StageContext,
    label: str,
) -> None:
    """Asks a question for each place and hands every answer to `keep`, judged by one of so many threads; those that failed, too.

    See `RemoteTeacher.answers` for what it raises; what came until then was kept.
    """
    writing, judging = threading.Lock(), list[Future[None]]()

    def arrived(index: int, result: Answer | Failure) -> None:
        judging.append(threads.submit(settle, index, result))

    def settle(index: int, result: Answer | Failure) -> None:
        place = places[index]
        if isinstance(result, Failure):
            asked = questions[index].messages[-1]["content"]
            answer = Answered(*place, asked, finish="failed", failure=result.error)
        else:
            answer = judged(place, result)
        with writing:
            keep(answer)

    with open_examinee(spec, purse_of(context, spec.name)) as model, ThreadPoolExecutor(graders) as threads:
        ask(model, questions, sampling, context, label, arrived)
    for each in judging:
        each.result()


def _judged(task: Task, problem: Problem, place: Place, result: Answer) -> Answered:
    found = grade_answer(task, problem, result)
    answer = find_answer(task, problem, reasoning.split(found.text, thinking=False)[1])
    return Answered(
        *place, problem.prompt, found.text, answer, ballot(problem, answer) if answer is not None else None,
        found.reward.accuracy > 0, found.reward.format, result.finish_reason, found.reward.fault,
        tokens=result.usage.completion_tokens, tokens_known=result.usage.known, prompt_tokens=result.usage.prompt_tokens, cost=result.cost,
        steps=found.steps, right_steps=found.right_steps, supported=found.supported,
    )  # fmt: skip
