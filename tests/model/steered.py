"""Requests that steer their draws, and engines of a random model for them; for several tests."""

from functools import cache

import numpy as np
import pytest
from tiny_models import foresee, randomise, tiny_model

from spoutnik.engine.generator import Engine
from spoutnik.engine.kernels.build import compiler
from spoutnik.engine.kernels.runner import KernelRunner
from spoutnik.engine.torch_runner import TorchRunner
from spoutnik.text.tokenizer import train_bpe

TOKENIZER = train_bpe(["the cat sat on the mat and the dog ran, 1 2 3 four five. " * 20], vocab_size=320)
WORDS = TOKENIZER.encode("the cat sat on the mat")
VOCAB, CONTEXT = TOKENIZER.vocab_size, 96
needs_kernels = pytest.mark.skipif(compiler() is None, reason="no C++ compiler here")
every_runner = pytest.mark.parametrize("kind", ["torch", pytest.param("kernels", marks=needs_kernels)])


@cache
def model(family="llama-3"):
    made = tiny_model(family, vocab_size=VOCAB, max_position_embeddings=CONTEXT)
    randomise(made, std=0.12)
    if made.config.num_nextn_predict_layers:
        foresee(made, 0.02)
    return made.eval()


def engine(kind, of=None, max_batch=8):
    made = of or model()
    length = made.config.max_position_embeddings
    runner = TorchRunner(made, max_batch, length) if kind == "torch" else KernelRunner(made, "float32", max_batch, length)
    return Engine(made, TOKENIZER, max_batch, length, runner)


class Cycle:
    """Allows the tokens of one set after the other; None is everything."""

    def __init__(self, *sets, after=None):
        self.sets, self.after, self.seen = sets, after, []

    @property
    def finished(self):
        return len(self.seen) == self.after

    def allowed(self):
        tokens = self.sets[len(self.seen) % len(self.sets)]
        if tokens is None:
            return None
        bits = np.zeros(-(-VOCAB // 32) * 32, np.uint8)
        bits[list(tokens)] = 1
        return np.packbits(bits, bitorder="little").view(np.uint32)

    def advance(self, token):
        self.seen.append(token)


OPTIONS = {
    "penalties": {"presence_penalty": 1.5, "frequency_penalty": -0.7, "repetition_penalty": 1.3},
    "bias": {"logit_bias": {5: 4.0, 60: -100.0}},
    "min_p": {"min_p": 0.3, "temperature": 1.5},
    "truncated": {"min_p": 0.05, "top_k": 20, "top_p": 0.9, "frequency_penalty": 0.5},
    "greedy": {"temperature": 0.0, "presence_penalty": 2.0, "repetition_penalty": 1.8},
    "tops": {"top_logprobs": 7, "temperature": 0.7},
}
