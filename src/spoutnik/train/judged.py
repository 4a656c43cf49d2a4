"""Distillation by a judge: the student answers, an older and stronger model grades, and the best answers become data for the student."""

import dataclasses
import json
from dataclasses import dataclass, field
from pathlib import Path

from spoutnik.errors import UserError
from spoutnik.recipe.judge import JudgeStage
from spoutnik.run.context import StageContext
from spoutnik.run.stage import run_stage
from spoutnik.teacher.base import Answer, Failure, Question, Sampling, Usage
from spoutnik.teacher.card import KEY
from spoutnik.teacher.grading import judge_question, mark, read_grade
from spoutnik.teacher.local import LocalTeacher
from spoutnik.teacher.opening import open_teacher
from spoutnik.teacher.questions import read_prompts
from spoutnik.text import reasoning
from spoutnik.train.asking import ask
from spoutnik.train.kept import write_rows
from spoutnik.train.state import stream_seed

CHUNK = 32


@dataclass
class Written:
    """The student's answers so far, question by question; a step is a chunk of questions."""

    step: int = 0
    answers: list[list[Answer]] = field(default_factory=list)


@dataclass
class Tally:
    """What became of the answers, or of the pairs: nobody guesses a grade that cannot be read."""

    asked: int = 0
    graded: int = 0
    unreadable: int = 0
    failed: int = 0
    unfinished: int = 0
    points: int = 0

    def figures(self, numbers: bool) -> dict[str, float]:
        """For the record: the counts, and the mean grade where grades are `numbers`."""
        counts = {"asked": self.asked, "graded": self.graded, "unreadable": self.unreadable, "failed": self.failed}
        mean = {"grade": self.points / self.graded} if numbers and self.graded else {}
        return {**counts, "unfinished": self.unfinished, **mean}


@dataclass(frozen=True)
class Case:
    """What is put before the judge at once: the question's place, and which of its answers in which order."""

    place: int
    order: tuple[int, ...]


Grades = dict[Case, str]


def run_judge(stage: JudgeStage, context: StageContext) -> None:
    """Writes samples.jsonl (`prompt`, `completion`, `grade`): what the teacher prefers of the student's answers."""
    prompts = read_prompts(Path(stage.questions))[: stage.problems]
    written, tally = _let_answer(stage, prompts, context), Tally()
    cases = [Case(place, order) for place, answers in enumerate(written) for order in _orders(answers, stage, tally)]
    grades = _let_grade(stage, prompts, written, cases, tally, context)
    rows: list[dict[str, object]] = []
    for place, prompt in enumerate(prompts):
        choice = _better(place, grades) if stage.scale == "a/b" else _best(place, len(written[place]), grades, stage.keep_from)
        if choice is not None:
            index, grade = choice
            rows.append({"prompt": prompt, "completion": _whole(written[place][index]), "grade": grade, "judge": stage.teacher})
    teachers = context.lineage.get("teachers", [])
    rows = [{**row, KEY: teachers} for row in rows] if teachers else rows
    context.log("judged", **tally.figures(stage.scale == "0-10"), kept=len(rows))
    if not rows:
        raise UserError(
            f"Stage {stage.name!r} kept no answer to {len(prompts)} questions ({tally.graded} of {tally.asked} gradings could be read, "
            f"{tally.unfinished} answers were unfinished); lower `keep_from`, raise `max_new_tokens` or `judge_tokens`, or another judge."
        )
    write_rows(rows, context.directory / "samples.jsonl")


def _let_answer(stage: JudgeStage, prompts: list[str], context: StageContext) -> list[list[Answer]]:
    student = LocalTeacher(stage.from_, context.resolve(stage.from_), context.seed)
    count, sampling = stage.samples_per_problem, Sampling(stage.max_new_tokens, stage.temperature)

    def advance(state: Written) -> dict[str, object]:
        part = prompts[state.step * CHUNK : (state.step + 1) * CHUNK]
        questions = [Question(({"role": "user", "content": prompt},), sample) for prompt in part for sample in range(count)]
        answers = [answer for answer in student.answers(questions, sampling, lambda place, result: None) if isinstance(answer, Answer)]
        state.answers += [answers[start : start + count] for start in range(0, len(answers), count)]
        state.step += 1
        tokens = sum(answer.usage.completion_tokens for answer in answers)
        context.ledger.add(tokens)
        return {"answers": len(state.answers) * count, "tokens": tokens}

    return run_stage(context, -(-len(prompts) // CHUNK), Written, advance, _save, _load).answers


def _orders(answers: list[Answer], stage: JudgeStage, tally: Tally) -> list[tuple[int, ...]]:
    """Which answers, in which order, are put before the judge at once. Two are compared both ways round, for judges favour a place."""
    finished = [index for index, answer in enumerate(answers) if answer.finish_reason == "stop" and answer.text]
    tally.unfinished += len(answers) - len(finished)
    if stage.scale == "0-10":
        return [(index,) for index in finished]
    return [(0, 1), (1, 0)] if len(finished) == 2 and answers[0].text != answers[1].text else []


def _let_grade(
    stage: JudgeStage, prompts: list[str], written: list[list[Answer]], cases: list[Case], tally: Tally, context: StageContext
) -> Grades:
    texts = [[written[case.place][index].text for index in case.order] for case in cases]
    questions = [judge_question(prompts[case.place], quoted, stage.rubric, stage.scale) for case, quoted in zip(cases, texts, strict=True)]
    with open_teacher(stage.teacher, context, stream_seed(context.seed, 0)) as teacher:
        results = ask(teacher, questions, Sampling(stage.judge_tokens, stage.judge_temperature), context)
    grades = {}
    for case, quoted, result in zip(cases, texts, results, strict=True):
        grade = _read(result, mark(prompts[case.place], quoted, stage.rubric), stage, tally)
        if grade is not None:
            grades[case] = grade
    return grades


def _read(result: Answer | Failure, number: str, stage: JudgeStage, tally: Tally) -> str | None:
    tally.asked += 1
    if isinstance(result, Failure):
        tally.failed += 1
        return None
    grade = read_grade(result, number, stage.scale)
    if grade is None:
        tally.unreadable += 1
        return None
    tally.graded += 1
    tally.points += int(grade) if stage.scale == "0-10" else 0
    return grade


def _best(place: int, count: int, grades: Grades, keep_from: int) -> tuple[int, object] | None:
    """(index, grade) of the first answer with the highest grade, if that is high enough."""
    graded = [(int(grades[case]), -index) for index in range(count) if (case := Case(place, (index,))) in grades]
    grade, index = max(graded, default=(-1, 0))
    return (-index, grade) if grade >= keep_from else None


def _better(place: int, grades: Grades) -> tuple[int, object] | None:
    """The answer that was preferred in either place."""
    first, second = grades.get(Case(place, (0, 1))), grades.get(Case(place, (1, 0)))
    if first is None or second is None or first == second:
        return None
    return (0 if first == "A" else 1, "better")


def _whole(answer: Answer) -> str:
    return f"{reasoning.OPEN}\n{answer.reasoning}\n{reasoning.CLOSE}\n{answer.text}" if answer.reasoning else answer.text


def _save(state: Written, folder: Path) -> None:
    content = [[dataclasses.asdict(answer) for answer in answers] for answers in state.answers]
    (folder / "answers.json").write_text(json.dumps({"step": state.step, "answers": content}), encoding="utf-8")


def _load(folder: Path) -> Written:
    content = json.loads((folder / "answers.json").read_text(encoding="utf-8"))
    return Written(
        content["step"], [[Answer(**{**answer, "usage": Usage(**answer["usage"])}) for answer in answers] for answers in content["answers"]]
    )
