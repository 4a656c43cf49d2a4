"""A local model's answers, written down as they end: a stop loses only what was being generated at that moment."""

import dataclasses
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

from spoutnik.engine.generator import Engine
from spoutnik.engine.request import Completion, Request
from spoutnik.evaluate.answers import Answered, Place
from spoutnik.evaluate.voting import ballot
from spoutnik.recipe.tables import Price
from spoutnik.run import interrupt
from spoutnik.run.ledger import CostMeter, Costs
from spoutnik.tasks.base import Problem, Task
from spoutnik.tasks.reward import find_answer
from spoutnik.teacher.base import Sampling
from spoutnik.text import reasoning
from spoutnik.train.rollouts import examine
from spoutnik.train.state import stream_seed
from spoutnik.train.taught import INSTRUCTION


def answer_here(
    engine: Engine, task: Task, problems: Sequence[Problem], places: Sequence[Place], sampling: Sampling, seed: int, price: Price,
    instruct: bool = False,
) -> Iterator[Answered]:  # fmt: skip
    """Answers as they end. Each is drawn from `seed` and its place alone, whatever else is asked.

    `instruct` tells the model what remote ones are told (INSTRUCTION). `price` is for the watts of a core where no counter can be read.
    Raises KeyboardInterrupt after a step once a stop was asked for.
    """
    system = [{"role": "system", "content": INSTRUCTION}] if instruct else []
    prompts = [engine.tokenizer.render([*system, {"role": "user", "content": problem.prompt}]) for problem in problems]
    encoded = [engine.tokenizer.encode(prompt) for prompt in prompts]
    asked = {
        place: Request(encoded[place[0]], sampling.max_tokens, sampling.temperature, seed=stream_seed(seed, *place)) for place in places
    }

    def judged(place: Place, completion: Completion) -> Answered:
        number = place[0]
        return _judged(task, problems[number], place, completion, reasoning.starts_thinking(prompts[number]))

    return answers_of(engine, asked, judged, getattr(task, "graders", 1), price)


def answers_of(
    engine: Engine, asked: Mapping[Place, Request], judged: Callable[[Place, Completion], Answered], graders: int, price: Price
) -> Iterator[Answered]:
    """The engine's answers as they end, judged beside it by so many threads, with what the machine spent on them."""
    meter, judging = CostMeter(), deque[Future[Answered]]()
    with ThreadPoolExecutor(graders) as threads:
        try:
            places = {engine.add(request): place for place, request in asked.items()}
            while engine.busy or judging:
                interrupt.check()
                for event in engine.step() if engine.busy else ():
                    if event.completion is not None:
                        judging.append(threads.submit(judged, places[event.request_id], event.completion))
                while judging and (judging[0].done() or not engine.busy):
                    yield charged(judging.popleft().result(), meter, price)
        finally:
            if engine.busy:
                engine.reset()


def _judged(task: Task, problem: Problem, place: Place, completion: Completion, thinking: bool) -> Answered:
    found = examine(task, problem, completion.text, thinking)
    answer = find_answer(task, problem, reasoning.split(completion.text, thinking)[1])
    return Answered(
        *place, problem.prompt, completion.text, answer, ballot(problem, answer) if answer is not None else None,
        found.reward.accuracy > 0, found.reward.format, "length" if completion.finish_reason == "length" else "stop", found.reward.fault,
        tokens=len(completion.token_ids), prompt_tokens=completion.prompt_tokens, steps=found.steps, right_steps=found.right_steps,
        supported=found.supported,
    )  # fmt: skip


def charged(answer: Answered, meter: CostMeter, price: Price) -> Answered:
    """The answer with what was spent since the last one."""
    spent = Costs()
    meter.charge(spent, price)
    return dataclasses.replace(answer, seconds=spent.wall_s, joules=spent.energy_joules, energy_source=spent.energy_source)
