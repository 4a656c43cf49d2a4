"""Answers to a task of lm-evaluation-harness, here and over the network, one line a document as for any other task.

What a document's requests bring is graded by the harness's own filters and metrics. Its figures are those that the harness would print,
and besides, each document that is right or wrong is a problem like any other: intervals, pairs and costs are worked out the same way.
"""

import dataclasses
import json
from collections.abc import Iterator, Sequence
from typing import Any

from spoutnik.engine.generator import Engine
from spoutnik.engine.request import Completion
from spoutnik.errors import UserError
from spoutnik.evaluate.answers import Answered, Place
from spoutnik.evaluate.figures import Measure
from spoutnik.evaluate.local import answers_of, charged
from spoutnik.evaluate.remote import Judge
from spoutnik.evaluate.results import Table
from spoutnik.evaluate.statistics import mean_interval
from spoutnik.recipe.tables import Price
from spoutnik.run import interrupt
from spoutnik.run.ledger import CostMeter
from spoutnik.tasks.base import Problem
from spoutnik.tasks.harness import HarnessTask
from spoutnik.teacher.base import Answer, Question, Sampling
from spoutnik.text import reasoning
from spoutnik.train.state import stream_seed

TOGETHER = 32
"""So many documents' likelihoods are worked out at a time."""


def harness_here(
    engine: Engine, task: HarnessTask, problems: Sequence[Problem], places: Sequence[Place], sampling: Sampling, seed: int, price: Price
) -> Iterator[Answered]:
    """A local model's answers; see `local.answer_here`."""
    from spoutnik.evaluate.harness import EngineLM

    lm = EngineLM(engine, task.source)
    requests = task.requests(len(problems), lm.apply_chat_template if task.chat else None)
    if not task.generates:
        yield from _scored(lm, task, problems, places, requests, price)
        return
    settings = task.settings(sampling.max_tokens, sampling.temperature)
    contexts = [each[0].args[0] for each in requests]
    asked = {place: lm.request(contexts[place[0]], settings, stream_seed(seed, *place)) for place in places}

    def judged(place: Place, completion: Completion) -> Answered:
        number = place[0]
        thinking = task.chat and reasoning.starts_thinking(contexts[number])
        said = lm.text(completion, settings["until"])
        found = _graded(task, problems[number], place, requests[number], said, reasoning.split(said, thinking)[1] if task.chat else said)
        return dataclasses.replace(
            found, finish="length" if completion.finish_reason == "length" else "stop", tokens=len(completion.token_ids),
            prompt_tokens=completion.prompt_tokens,
        )  # fmt: skip

    yield from answers_of(engine, asked, judged, 1, price)


def chat_requests(task: HarnessTask, count: int) -> list[list[Any]]:
    """The requests of the first `count` documents as conversations (JSON), for whom no template of ours writes down.

    Raises UserError for a task that begins the answers itself.
    """
    if task.begins_answers:
        raise UserError(f"The task {task.source!r} begins each answer itself (gen_prefix), which not all servers go on from; take another.")
    return task.requests(count, lambda messages, add_generation_prompt=True: json.dumps(messages))


def harness_questions(requests: Sequence[Sequence[Any]], places: Sequence[Place]) -> list[Question]:
    """What a remote model is asked."""
    conversations = [tuple(json.loads(each[0].args[0])) for each in requests]
    return [Question(conversations[number], sample) for number, sample in places]


def harness_sampling(task: HarnessTask, sampling: Sampling) -> Sampling:
    """The task's own length and temperature where it has them."""
    settings = task.settings(sampling.max_tokens, sampling.temperature)
    return Sampling(settings["max_gen_toks"], settings.get("temperature", 0.0))


def harness_judge(task: HarnessTask, problems: Sequence[Problem], requests: Sequence[Sequence[Any]], sampling: Sampling) -> Judge:
    """Grades a remote model's answers. They are cut at the task's stop strings here: the server is not told them."""
    from spoutnik.evaluate.harness import until_stop

    until = [text for text in task.settings(sampling.max_tokens, sampling.temperature)["until"] if text]

    def judged(place: Place, answer: Answer) -> Answered:
        content = until_stop(reasoning.split(answer.text, thinking=False)[1].strip(), until)
        whole = f"{reasoning.OPEN}\n{answer.reasoning}\n{reasoning.CLOSE}\n{answer.text}" if answer.reasoning else answer.text
        found = _graded(task, problems[place[0]], place, requests[place[0]], whole, content)
        return dataclasses.replace(
            found, finish=answer.finish_reason, tokens=answer.usage.completion_tokens, tokens_known=answer.usage.known,
            prompt_tokens=answer.usage.prompt_tokens, cost=answer.cost,
        )  # fmt: skip

    return judged


def decided(task: HarnessTask, tables: dict[str, Table]) -> dict[str, Table] | None:
    """The tables with each answer right or wrong by the same metric for every model; None where the task has no such metric."""
    flat = [answer for table in tables.values() for each in table for answer in each]
    key = task.deciding([answer.scores for answer in flat if answer.scores])
    if key is None:
        return None

    def settle(answer: Answered) -> Answered:
        return dataclasses.replace(answer, correct=bool(answer.scores.get(key)))

    return {model: [[settle(answer) for answer in each] for each in table] for model, table in tables.items()}


def measures_of(task: HarnessTask, label: str, tables: dict[str, Table]) -> list[Measure]:
    """Every metric of the task for every model, as the harness aggregates it, over the answers that came."""
    found = []
    for model, table in tables.items():
        keys = dict.fromkeys(key for each in table for answer in each for key in answer.scores)
        for key in keys:
            problems = [[answer.scores[key] for answer in each if key in answer.scores] for each in table]
            values = [value for each in problems for value in each]
            means = [sum(each) / len(each) for each in problems if each] if task.is_mean(key) else []
            low, high = mean_interval(means, max(map(len, problems))) if means else (None, None)
            metric, _, chosen = key.rpartition(",")
            found.append(
                Measure(
                    model=model, task=label, metric=metric, filter=chosen, n=len(values), value=task.aggregate(key, values), low=low,
                    high=high, higher_is_better=task.higher_is_better(key),
                )
            )  # fmt: skip
    return found


def _scored(
    lm: Any, task: HarnessTask, problems: Sequence[Problem], places: Sequence[Place], requests: Sequence[Sequence[Any]], price: Price
) -> Iterator[Answered]:
    """By likelihoods. The answer is the continuation that is likeliest; a text that is scored whole has none."""
    meter = CostMeter()
    for start in range(0, len(places), TOGETHER):
        interrupt.check()
        part = places[start : start + TOGETHER]
        asked = [request for number, _ in part for request in requests[number]]
        results = iter(getattr(lm, asked[0].request_type)(asked, disable_tqdm=True))
        for number, sample in part:
            found = [next(results) for _ in requests[number]]
            said = max(zip(found, requests[number], strict=True), key=lambda pair: pair[0])[1].args[-1] if len(found) > 1 else ""
            answer = _graded(task, problems[number], (number, sample), requests[number], said, *found)
            read = sum(len(lm.tok_encode("".join(request.args))) for request in requests[number])
            yield charged(dataclasses.replace(answer, answer=said.strip() or None, prompt_tokens=read), meter, price)


def _graded(task: HarnessTask, problem: Problem, place: Place, requests: Sequence[Any], text: str, *responses: Any) -> Answered:
    """What the harness says of the responses; a metric that fails on them is a fault."""
    try:
        scores, answer = task.grade(requests, responses)
    except Exception as error:  # a task file's own functions may raise anything
        return Answered(*place, problem.prompt, text, format=None, fault=f"{type(error).__name__}: {error}"[:500])
    key = task.deciding([scores])
    vote = " ".join(answer.split()).casefold() if answer and answer != "[invalid]" else None
    return Answered(*place, problem.prompt, text, answer, vote, bool(key and scores[key]), format=None, scores=scores)
