"""A checkpoint as a teacher: it answers through the engine, and says how likely tokens are by its own modules."""

import functools
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Self

import torch
from torch import Tensor

from spoutnik.checkpoint.load import open_model
from spoutnik.device import computing_device
from spoutnik.engine.generator import Engine
from spoutnik.engine.request import Completion, Request
from spoutnik.run import interrupt
from spoutnik.teacher.base import Answer, Done, Failure, Provenance, Question, Sampling, Usage
from spoutnik.text import reasoning

CHUNK = 64


class LocalTeacher:
    """See `Teacher` and `Distributions`. Equal questions and sample numbers get equal answers; `seed` draws others."""

    provenance: Provenance | None = None

    def __init__(self, name: str, path: str | Path, seed: int = 0):
        self.name, self._seed = name, seed
        self.model, self.tokenizer = open_model(path, device=computing_device())
        self.model.requires_grad_(False)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: object) -> None:
        """Nothing is kept open."""

    @property
    def fingerprint(self) -> str:
        return self.tokenizer.fingerprint()

    def answers(self, questions: Sequence[Question], sampling: Sampling, done: Done) -> list[Answer | Failure]:
        results: list[Answer | Failure] = []
        for start in range(0, len(questions), CHUNK):
            interrupt.check()
            part = questions[start : start + CHUNK]
            prompts = [self.tokenizer.render(list(question.messages)) for question in part]
            requests = [
                Request(self.tokenizer.encode(prompt), sampling.max_tokens, sampling.temperature, seed=self._draw(prompt, question.sample))
                for prompt, question in zip(prompts, part, strict=True)
            ]
            for prompt, completion in zip(prompts, self._engine.generate(requests), strict=True):
                results.append(self._answer(prompt, completion))
                done(len(results) - 1, results[-1])
        return results

    @property
    def vocab_size(self) -> int:
        """Logits of the model, which may be more than tokens of the tokenizer."""
        return self.model.config.vocab_size

    @torch.no_grad()
    def logprobs(self, ids_BT: Tensor, mask_BT: Tensor) -> Tensor:
        """[N, V], float32; a place without predecessor cannot be masked."""
        hidden_BTD = self.model.hidden(ids_BT[:, :-1])
        return self.model.head(hidden_BTD[mask_BT[:, 1:] > 0]).float().log_softmax(-1)

    @functools.cached_property
    def _engine(self) -> Engine:
        return Engine(self.model, self.tokenizer, max_batch=CHUNK)

    def _draw(self, prompt: str, sample: int) -> int:
        """A seed that depends on the question alone, not on its company."""
        return int.from_bytes(hashlib.blake2b(f"{self._seed}/{sample}/{prompt}".encode(), digest_size=4).digest(), "big")

    def _answer(self, prompt: str, completion: Completion) -> Answer:
        thoughts, text = reasoning.split(completion.text, reasoning.starts_thinking(prompt))
        usage = Usage(completion.prompt_tokens, len(completion.token_ids))
        return Answer(text.strip(), thoughts.strip(), "length" if completion.finish_reason == "length" else "stop", usage, model=self.name)
