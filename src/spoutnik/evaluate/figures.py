"""The form of an evaluation's results: what `spoutnik eval --json` prints and evaluation.json holds.

Shares are between 0 and 1, intervals are 95 %. A number that is not known or makes no sense (a cost without a price) is null. Within
a version fields are only added; a reader passes over those that it does not know.
"""

from typing import Literal

from pydantic import BaseModel, ConfigDict

VERSION = 1


class Figures(BaseModel):
    model_config = ConfigDict(frozen=True)


class Estimate(Figures):
    """A measured value and its 95 % interval."""

    value: float
    low: float
    high: float


class Price(Figures):
    """What a remote model charges for a million tokens. `cached` is None where the provider has no other price for cached prompts."""

    prompt: float
    completion: float
    cached: float | None
    currency: str


class Model(Figures):
    """Who was evaluated. `name` is what results and pairs call it.

    `id` is the provider's name of a remote model, or where a local one lies. `dialect`, `endpoint` and `price` are remote models' only.
    """

    name: str
    kind: Literal["local", "remote"]
    id: str
    dialect: str | None = None
    endpoint: str | None = None
    price: Price | None = None


class Task(Figures):
    """On what. `name` is what results call it: the task with the options that tell it from others."""

    name: str
    split: str
    problems: int


class Result(Figures):
    """One model on one task: `n` problems, `k` answers to each.

    An answer that never came (`failed`), that the verifier could not judge (`faulted`) or that has no result counts as wrong. `pass_at` has
    the unbiased estimates at 1, 2, 4, ... and k; `pass_at_k` is its last, and None, as `cons_at_k` is, for one answer each. Whatever is
    "per solved" is the sum over all answers, divided by the right ones: what a right answer takes on average.

    Tokens are those written, thinking included, as the model's own tokenizer or its provider counts them, of the answers that came. `cost`
    is in `currency`: a remote model's bill for these answers, whenever it was paid (`cost_basis` "billed"), or what the machine cost for a
    local one's at the given price ("machine"). `energy_kwh` is a local model's, and `energy_source` says whether it was measured. `date` is
    the day on which the last of the answers was written down (UTC).
    """

    model: str
    task: str
    date: str
    n: int
    k: int
    correct: int
    pass_at_1: Estimate
    pass_at_k: Estimate | None
    cons_at_k: Estimate | None
    pass_at: dict[int, Estimate]
    format: float | None
    truncated: float
    refused: int
    faulted: int
    failed: int
    faithful_steps: float | None
    supported: float | None
    tokens_per_answer: float | None
    tokens_per_solved: float | None
    cost: float | None
    cost_per_answer: float | None
    cost_per_solved: float | None
    cost_basis: Literal["billed", "machine"] | None
    currency: str | None
    usage_unknown: int
    """Answers whose provider did not say what they used; the most that they can have used is in tokens and cost."""
    energy_kwh: float | None
    energy_kwh_per_solved: float | None
    energy_source: str | None
    wall_s: float | None
    """Seconds that a local model's answers took."""


class Pair(Figures):
    """Two models on the same problems of a task: pass@1 of `a` less that of `b`.

    `p` is two-sided and exact: of McNemar's test for one answer to a problem, else of the test that flips the signs of the problems'
    differences. `p_holm` is corrected for all pairs of the task (Holm 1979), None where there is only one.
    """

    task: str
    a: str
    b: str
    n: int
    difference: Estimate
    better: int
    worse: int
    """Problems on which `a` has more right answers than `b`, and fewer."""
    p: float
    p_holm: float | None
    test: Literal["mcnemar-exact", "sign-flip-exact"]


class Measure(Figures):
    """A metric of a task of lm-evaluation-harness for one model, as the harness aggregates it over `n` answers.

    The interval counts problems; it is None where the metric is no mean of the problems', as a perplexity is.
    """

    model: str
    task: str
    metric: str
    filter: str
    n: int
    value: float
    low: float | None
    high: float | None
    higher_is_better: bool | None


class Clean(Figures):
    """A model's pass@1 on all problems of a task, and on the `n` that were not found in training data (None where none is left)."""

    model: str
    n: int
    all: Estimate
    clean: Estimate | None


class Contamination(Figures):
    """What the training data `data` share with a task's problems, by runs of 13 words (see `contaminated`).

    `contaminated` problems share a run that few others have, or stand there whole, from their first word to their last, as `whole` of them
    do; `wording` more share only wording that many problems have. `not_looked_into` names what the data were made of that is not known.
    `models` are those that the data matter to: a run's own, or for data that the user named all of them.
    """

    task: str
    data: list[str]
    not_looked_into: list[str]
    problems: int
    contaminated: int
    whole: int
    wording: int
    models: list[Clean]


class General(Figures):
    """A local model on general text; see `perplexity`."""

    model: str
    text: str
    windows: int
    tokens: int
    bytes: int
    nats_per_token: float
    nats_per_byte: float
    perplexity: float


class Evaluation(Figures):
    """All of it. `date` is when this was written (UTC, ISO 8601)."""

    version: int = VERSION
    date: str
    spoutnik: str
    seed: int
    temperature: float
    max_new_tokens: int
    dtype: str
    models: list[Model]
    tasks: list[Task]
    results: list[Result]
    pairs: list[Pair]
    texts: list[General] = []
    measures: list[Measure] = []
    contaminations: list[Contamination] = []
