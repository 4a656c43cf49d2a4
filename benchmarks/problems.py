"""Held-out problems that a model answers greedily: after examples, as a text that it continues, or asked in a conversation."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from spoutnik.engine.generator import Engine
from spoutnik.engine.request import Request
from spoutnik.evaluate.posed import label
from spoutnik.recipe.schema import TaskSpec
from spoutnik.tasks import make
from spoutnik.tasks.base import Problem, Task
from spoutnik.tasks.reward import grade
from spoutnik.text.reasoning import starts_thinking
from spoutnik.text.tokenizer import Tokenizer

DRAWS = 20
"""Problems that are drawn for each that is wanted: of equal ones, the first counts."""
SHORT = 24
"""Most tokens of an answer that follows examples."""


@dataclass(frozen=True)
class Exam:
    """A task, and how it is asked.

    `shots` solved problems of the training split stand before each problem as text, and the next line is the answer. With 0 the model's
    own chat template is used, and the answer must stand in its tags.
    """

    spec: TaskSpec
    shots: int = 0

    @classmethod
    def of(cls, name: str, options: dict[str, Any], shots: int) -> "Exam":
        return cls(TaskSpec.model_validate({"name": name, **options}), shots)

    @property
    def title(self) -> str:
        return label(self.spec) + (f", {self.shots} examples" if self.shots else "")


EASY = (
    Exam.of("arithmetic", {"terms": [2], "high": 40}, 16),
    Exam.of("gym:chain_sum", {"min_terms": 2, "max_terms": 2, "min_digits": 1, "max_digits": 2, "size": 100_000}, 2),
    Exam.of("letters", {"kinds": ["sort"], "items": [3]}, 8),
)
"""What a model of 135 million parameters solves more often than by chance, though seldom: no other task of ours with as many distinct
problems, nor those of reasoning-gym that were tried. The numbers of examples are those with which bfloat16 did best of a few, which favours
it if anything.
"""


def solve(engine: Engine, exam: Exam, most: int, max_new_tokens: int) -> list[bool]:
    """Which of the task's distinct problems, `most` of them if it has so many, the model solves; in the same order for every model."""
    task = make(exam.spec.name, **exam.spec.options)
    problems = distinct(task, most)
    prompts, encoded = ask(engine.tokenizer, task, problems, exam.shots)
    length, stop = (SHORT, ("\n",)) if exam.shots else (max_new_tokens, ())
    completions = engine.generate([Request(ids, length, temperature=0, stop=stop) for ids in encoded])
    texts = [f"<answer>{each.text}</answer>" if exam.shots else each.text for each in completions]
    return [
        grade(task, problem, text, starts_thinking(prompt)).accuracy > 0
        for problem, prompt, text in zip(problems, prompts, texts, strict=True)
    ]


def distinct(task: Task, most: int) -> list[Problem]:
    """Held-out problems without repetition, so that each verdict counts for itself."""
    found: dict[str, Problem] = {}
    for index in range(DRAWS * most):
        problem = task.problem("held-out", 0, index)
        found.setdefault(problem.prompt, problem)
        if len(found) == most:
            break
    return list(found.values())


def ask(tokenizer: Tokenizer, task: Task, problems: Sequence[Problem], shots: int) -> tuple[list[str], list[list[int]]]:
    """Prompts as text and as token ids."""
    if not shots:
        prompts = [tokenizer.render([{"role": "user", "content": problem.prompt}]) for problem in problems]
        return prompts, [tokenizer.encode(prompt) for prompt in prompts]
    examples = [task.problem("train", 0, index) for index in range(shots)]
    head = "".join(f"Question: {example.prompt}\nAnswer: {example.answer}\n\n" for example in examples)
    prompts = [f"{head}Question: {problem.prompt}\nAnswer:" for problem in problems]
    return prompts, [tokenizer.encode(prompt, add_special_tokens=True) for prompt in prompts]
