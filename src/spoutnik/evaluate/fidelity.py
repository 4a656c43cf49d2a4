"""What a changed model keeps of the original: both read the same text, and what they say of each next token is compared."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from spoutnik.engine.generator import Engine
from spoutnik.engine.request import Request
from spoutnik.engine.sampler import derive_seed
from spoutnik.evaluate.statistics import wilson
from spoutnik.model.transformer import CausalLM
from spoutnik.text.tokenizer import Tokenizer

QUESTIONS = (
    "What is the capital of France?",
    "Write a short story about a lighthouse keeper.",
    "Explain why the sky is blue.",
    "I have 3 boxes with 12 pens each and give away 7 pens. How many are left?",
    "Write a Python function that reverses a list.",
    "Name five uses of an old newspaper.",
    "What happened in the year 1957?",
    "Translate into German: the train is late again.",
)
"""What a chat model is asked to write its own text."""
LENGTH, TEMPERATURE = 192, 0.6
"""Tokens of one text, and how the model's own are sampled."""
MOST_TEXTS = 16
HEAD_ROWS = 256
"""Tokens whose logits are made at a time, which bounds their memory."""


@dataclass(frozen=True)
class Passage:
    """Token ids, and from which place on they are compared; the ones before are only read."""

    ids: list[int]
    start: int = 1


@dataclass
class Agreement:
    """Sums over tokens, of what two models say of each: at how many both find the same one likeliest, and the divergence in nats."""

    tokens: int = 0
    same: int = 0
    divergence: float = 0.0

    def add(self, true_NV: Tensor, other_NV: Tensor) -> None:
        """Counts N tokens more, by both models' log-probabilities; the divergence is that of the other from the true one."""
        self.tokens += len(true_NV)
        self.same += int((true_NV.argmax(-1) == other_NV.argmax(-1)).sum())
        self.divergence += float((true_NV.exp() * (true_NV - other_NV)).sum())

    @property
    def greedy(self) -> float:
        """Share of the tokens at which both find the same one likeliest."""
        return self.same / self.tokens

    @property
    def interval(self) -> tuple[float, float]:
        """95 % interval of `greedy`."""
        return wilson(self.same, self.tokens)

    @property
    def kl(self) -> float:
        """Mean divergence, nats a token."""
        return self.divergence / self.tokens


def surprise(logprobs_NV: Tensor, targets_N: Tensor) -> float:
    """Nats, summed: how little the model expected these tokens. Its perplexity is e to their mean."""
    return -float(logprobs_NV.gather(1, targets_N[:, None]).sum())


@dataclass(frozen=True)
class Fidelity:
    """`greedy` is the share of tokens at which both find the same one likeliest, `low` to `high` its 95 % interval.

    `kl` is the mean divergence of the changed model's distribution from the original's, in nats a token. The perplexities are of the
    same tokens.
    """

    tokens: int
    greedy: float
    low: float
    high: float
    kl: float
    perplexity_original: float
    perplexity_changed: float


def own_passages(model: CausalLM, tokenizer: Tokenizer, seed: int = 0) -> list[Passage]:
    """Text that the model writes: answers to QUESTIONS if it has a chat template, else whatever follows the beginning of a text."""
    if tokenizer.chat_template is not None:
        prompts = [tokenizer.encode(tokenizer.render([{"role": "user", "content": question}])) for question in QUESTIONS]
    else:
        begin = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.encode("\n")[0]
        prompts = [[begin]] * len(QUESTIONS)
    room = model.config.max_position_embeddings
    requests = [Request(ids, LENGTH, TEMPERATURE, seed=derive_seed(seed, index)) for index, ids in enumerate(prompts) if len(ids) < room]
    completions = Engine(model, tokenizer, len(requests), room).generate(requests)
    return [
        Passage([*request.prompt_ids, *completion.token_ids], len(request.prompt_ids))
        for request, completion in zip(requests, completions, strict=True)
    ]


def passages_of(text: str, model: CausalLM, tokenizer: Tokenizer) -> list[Passage]:
    """The first MOST_TEXTS stretches of a text, each as long as a model's own; shorter if the context is."""
    ids = tokenizer.encode(text)
    length = min(LENGTH, model.config.max_position_embeddings)
    stretches = [ids[start : start + length] for start in range(0, len(ids), length)]
    return [Passage(stretch) for stretch in stretches[:MOST_TEXTS] if len(stretch) > 1]


@torch.inference_mode()
def compare(original: CausalLM, changed: CausalLM, passages: Sequence[Passage]) -> Fidelity:
    """Teacher-forced: whatever a model would say, the text goes on as it stands."""
    agreement, surprises = Agreement(), [0.0, 0.0]
    for passage in passages:
        targets = torch.tensor(passage.ids[passage.start :], device=original.lm_head.weight.device)
        hidden = [_hidden(model, passage) for model in (original, changed)]
        for rows in torch.arange(len(targets)).split(HEAD_ROWS):
            both = [model.head(states[rows]).log_softmax(-1) for model, states in zip((original, changed), hidden, strict=True)]
            agreement.add(*both)
            surprises = [so_far + surprise(each, targets[rows]) for so_far, each in zip(surprises, both, strict=True)]
    perplexities = [math.exp(total / agreement.tokens) for total in surprises]
    return Fidelity(agreement.tokens, agreement.greedy, *agreement.interval, agreement.kl, *perplexities)


def _hidden(model: CausalLM, passage: Passage) -> Tensor:
    """States [N, D] from which the compared tokens are predicted."""
    return model.hidden(torch.tensor([passage.ids[:-1]], device=model.lm_head.weight.device))[0, passage.start - 1 :]
