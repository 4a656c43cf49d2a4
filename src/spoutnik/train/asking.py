"""A stage asks a teacher: says what it will cost, shows how far it is, and writes down what it did cost."""

import itertools
import sys
from collections.abc import Sequence

from spoutnik.run.context import StageContext
from spoutnik.teacher.base import Answer, Done, Failure, Question, Sampling, Teacher
from spoutnik.teacher.money import BILLIONTHS, money
from spoutnik.teacher.remote import RemoteTeacher


def ask(
    teacher: Teacher,
    questions: Sequence[Question],
    sampling: Sampling,
    context: StageContext,
    about: str = "",
    done: Done = lambda *_: None,
) -> list[Answer | Failure]:
    """`teacher.answers` with an estimate before it, progress on stderr, and an event `teacher` in the record, also when it is stopped.

    `about` tells what a stage asks of one teacher apart.
    """
    came = itertools.count(1)
    remote = teacher if isinstance(teacher, RemoteTeacher) else None
    if remote:
        cap = money(round(remote.spec.max_cost * BILLIONTHS), remote.spec.price.currency)
        print(f"{context.name}: {teacher.name} gets {remote.estimate(questions, sampling)}; max_cost is {cap}", file=sys.stderr, flush=True)
    results: list[Answer | Failure] = []
    said = {"about": about} if about else {}
    try:
        with context.progress(f"{teacher.name}, {about}" if about else context.name, len(questions)) as progress:

            def told(place: int, result: Answer | Failure) -> None:
                done(place, result)
                progress.update(next(came))

            results = teacher.answers(questions, sampling, told)
    finally:
        context.log(
            "teacher", teacher=teacher.name, requests=len(questions), **said, **_figures(results), **(_bill(remote) if remote else {})
        )
    return results


def _figures(results: Sequence[Answer | Failure]) -> dict[str, object]:
    answers = [result for result in results if isinstance(result, Answer)]
    return {
        "answers": len(answers), "failures": len(results) - len(answers),
        "prompt_tokens": sum(answer.usage.prompt_tokens for answer in answers),
        "completion_tokens": sum(answer.usage.completion_tokens for answer in answers),
        "cost": sum(answer.cost for answer in answers) / BILLIONTHS, "usage_unknown": sum(not answer.usage.known for answer in answers),
    }  # fmt: skip


def _bill(teacher: RemoteTeacher) -> dict[str, object]:
    """What the recipe of this name has spent with this teacher so far, in all its runs."""
    totals = teacher.totals()
    return {
        "paid": totals.paid / BILLIONTHS, "possibly_paid": (totals.doubtful + totals.in_flight) / BILLIONTHS,
        "currency": teacher.spec.price.currency, "terms": teacher.provenance["terms"], "accepted": teacher.provenance["accepted"],
    }  # fmt: skip
