"""Rollouts: a policy's answers to problems, graded. One engine makes all of a stage's and follows the weights in place."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from spoutnik.engine.generator import Engine
from spoutnik.engine.request import Completion, Request
from spoutnik.engine.runner import choose_runner
from spoutnik.model.transformer import CausalLM
from spoutnik.recipe.tables import Dtype
from spoutnik.tasks.base import Problem, Task
from spoutnik.tasks.faithful import answer_value, check_steps, supported
from spoutnik.tasks.reward import Reward, find_answer, grade
from spoutnik.text import reasoning
from spoutnik.text.tokenizer import Tokenizer
from spoutnik.train.state import stream_seed

MAX_BATCH = 512


@dataclass(frozen=True)
class Rollout:
    """One answer and what it earned. `logprobs` are the sampler's, at the sampling temperature, before top_p and top_k.

    `steps` sums are written in the thinking, `right_steps` of them are right, and `supported` says that a right one reaches the answer.
    """

    problem: Problem
    prompt_ids: list[int]
    token_ids: list[int]
    logprobs: list[float]
    text: str
    truncated: bool
    reward: Reward
    steps: int
    right_steps: int
    supported: bool

    @property
    def length(self) -> int:
        return len(self.token_ids)


def rollout_engine(model: CausalLM, tokenizer: Tokenizer, answers: int, dtype: Dtype = "float32") -> Engine:
    """The engine of a stage that asks for so many answers at a time, for a model of float32 weights, which kernels may round to `dtype`.

    Whoever changes the weights calls its `refresh`.
    """
    max_batch = min(MAX_BATCH, answers)
    runner = choose_runner(model, max_batch, model.config.max_position_embeddings, "bfloat16" if dtype == "bfloat16" else None)
    return Engine(model, tokenizer, max_batch, runner=runner)


def sample_rollouts(
    engine: Engine, task: Task, problems: Sequence[Problem], group: int, temperature: float, max_new_tokens: int, seed: int,
    top_p: float = 1.0, top_k: int = 0,
) -> list[Rollout]:  # fmt: skip
    """`group` answers to each problem, problem by problem. Equal arguments and weights give equal answers."""
    tokenizer = engine.tokenizer
    prompts = [tokenizer.render([{"role": "user", "content": problem.prompt}]) for problem in problems]
    encoded = [tokenizer.encode(prompt) for prompt in prompts]
    requests = [
        Request(ids, max_new_tokens, temperature, top_p, top_k, seed=stream_seed(seed, place, sample))
        for place, ids in enumerate(encoded)
        for sample in range(group)
    ]
    completions = engine.generate(requests)

    def judged(index: int) -> Rollout:
        place = index // group
        return judge(task, problems[place], prompts[place], encoded[place], completions[index])

    with ThreadPoolExecutor(getattr(task, "graders", 1)) as threads:
        return list(threads.map(judged, range(len(completions))))


def judge(task: Task, problem: Problem, prompt: str, prompt_ids: list[int], completion: Completion) -> Rollout:
    """Grades one completion and checks whether its thinking holds."""
    found = examine(task, problem, completion.text, reasoning.starts_thinking(prompt))
    return Rollout(
        problem, prompt_ids, completion.token_ids, completion.logprobs, completion.text, completion.finish_reason == "length",
        found.reward, found.steps, found.right_steps, found.supported,
    )  # fmt: skip


@dataclass(frozen=True)
class Examined:
    """What a text earned, and whether its thinking holds; see `Rollout`."""

    reward: Reward
    steps: int
    right_steps: int
    supported: bool


def examine(task: Task, problem: Problem, text: str, thinking: bool) -> Examined:
    """Grades a text, whoever wrote it; `thinking` says that its prompt already opened `<think>`."""
    thoughts, content = reasoning.split(text, thinking)
    check, answer = check_steps(thoughts), find_answer(task, problem, content)
    value = answer_value(answer) if answer is not None else None
    holds = value is not None and supported(thoughts, value)
    return Examined(grade(task, problem, text, thinking), check.steps, check.right, holds)


def rollout_metrics(rollouts: Sequence[Rollout]) -> dict[str, float]:
    """Means over rollouts; `faithful` is the share of written sums that are right (absent where none is written)."""
    count = len(rollouts)
    written = sum(rollout.steps for rollout in rollouts)
    metrics = {
        "accuracy": sum(rollout.reward.accuracy for rollout in rollouts) / count,
        "format": sum(rollout.reward.format for rollout in rollouts) / count,
        "language": sum(rollout.reward.language for rollout in rollouts) / count,
        "response_length": sum(len(rollout.token_ids) for rollout in rollouts) / count,
        "truncated": sum(rollout.truncated for rollout in rollouts) / count,
        "faulted": float(sum(rollout.reward.faulted for rollout in rollouts)),
    }
    return metrics | ({"faithful": sum(rollout.right_steps for rollout in rollouts) / written} if written else {})
