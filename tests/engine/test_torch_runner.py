"""The torch runner computes a shared prompt once and gives its memory back."""

import pytest
from tiny_models import randomise, tiny_model

from spoutnik.engine.generator import Engine
from spoutnik.engine.request import Request
from spoutnik.engine.torch_runner import TorchRunner
from spoutnik.text.tokenizer import train_bpe

TOKENIZER = train_bpe(["the cat sat on the mat and the dog ran, 1 2 3 four five. " * 20], vocab_size=320)
PROMPT, OTHER = TOKENIZER.encode("the cat sat on the mat"), TOKENIZER.encode("a dog")


@pytest.fixture
def model():
    made = tiny_model("llama-3", vocab_size=TOKENIZER.vocab_size, max_position_embeddings=96)
    randomise(made, std=0.12)
    return made


def test_a_prompt_that_several_requests_share_is_computed_once(model, monkeypatch):
    prefilled = []
    prefill = TorchRunner._prefill_together
    monkeypatch.setattr(
        TorchRunner, "_prefill_together", lambda self, prompts, rows, length: (prefilled.extend(rows), prefill(self, prompts, rows, length))
    )
    requests = [Request(PROMPT, 10 + seed, seed=seed) for seed in range(7)] + [Request(OTHER, 10, seed=9)]
    Engine(model, TOKENIZER, 4, None, TorchRunner(model, 4, 96)).generate(requests)
    assert len(prefilled) == 2, "the later ones find the prompt in a row that still runs"


def test_a_prompt_is_computed_once_for_each_owner(model, monkeypatch):
    prefilled = []
    prefill = TorchRunner._prefill_together
    monkeypatch.setattr(
        TorchRunner, "_prefill_together", lambda self, prompts, rows, length: (prefilled.extend(rows), prefill(self, prompts, rows, length))
    )
    requests = [Request(PROMPT, 5, seed=seed, owner=owner) for seed, owner in enumerate(["mine", "theirs", "mine", "theirs"])]
    Engine(model, TOKENIZER, 4, None, TorchRunner(model, 4, 96)).generate(requests)
    assert prefilled == [0, 1]


def test_an_idle_runner_holds_no_cache(model):
    runner = TorchRunner(model, 4, 96)
    running = Engine(model, TOKENIZER, 4, None, runner)
    running.generate([Request(PROMPT, 3)])
    assert runner._cache._layers == {}

    def interrupt(ended, tokens):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        running.generate([Request(PROMPT)] * 2, progress=interrupt)
    assert runner._cache._layers == {}
