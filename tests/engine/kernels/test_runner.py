"""The kernel runner computes what is new, shares what is known, follows the weights, and never runs out of pages."""

import pytest
import torch
from tiny_models import randomise, tiny_model

from spoutnik.engine.generator import Engine
from spoutnik.engine.kernels.runner import KernelRunner
from spoutnik.engine.request import Request
from spoutnik.text.tokenizer import train_bpe

TOKENIZER = train_bpe(["the cat sat on the mat and the dog ran, 1 2 3 four five. " * 20], vocab_size=320)
PROMPT = (TOKENIZER.encode("the cat sat on the mat and the dog ran, ") * 9)[:75]


def engine(precision="float32", max_batch=4, cache_bytes=1 << 30, family="llama-3", std=0.12):
    model = tiny_model(family, vocab_size=TOKENIZER.vocab_size, max_position_embeddings=128)
    randomise(model, std=std)
    runner = KernelRunner(model, precision, max_batch, 128, cache_bytes)
    return Engine(model, TOKENIZER, max_batch, 128, runner)


@pytest.fixture
def computed(monkeypatch):
    """Counts the prompt tokens that are computed."""
    seen = []
    original = KernelRunner._cache_chunks
    monkeypatch.setattr(
        KernelRunner,
        "_cache_chunks",
        lambda self, chunks: (seen.append(sum(len(chunk.tokens) for chunk in chunks)), original(self, chunks)),
    )
    return seen


@pytest.mark.parametrize("family", ["llama-3", "deepseek-v3"])
@pytest.mark.parametrize("precision", ["float32", "bfloat16", "int8", "int4"])
def test_a_prompt_found_in_the_cache_gives_the_same_bits_as_one_computed(family, precision, computed):
    running = engine(precision, family=family)
    (first,) = running.generate([Request(PROMPT, 12, seed=3)])
    (again,) = running.generate([Request(PROMPT, 12, seed=3)])
    assert computed == [74, 10]
    assert again == first
    longer = Request([*PROMPT, *first.token_ids, 5, 6], 6, seed=4)
    (cached,) = running.generate([longer])
    (fresh,) = engine(precision, family=family).generate([longer])
    assert cached == fresh
    assert computed == [74, 10, 24, 88], "what was generated is found, too"


def test_samples_of_one_prompt_compute_it_once(computed):
    requests = [Request(PROMPT, 8, seed=seed) for seed in range(4)]
    together = engine().generate(requests)
    assert computed == [74]
    assert together == [engine().generate([request])[0] for request in requests]


def test_after_the_weights_changed_nothing_old_is_used(computed):
    running = engine()
    running.generate([Request(PROMPT, 4)])
    with torch.no_grad():
        for parameter in running.model.parameters():
            parameter.mul_(1.1)
    (after,) = running.generate([Request(PROMPT, 4)])
    assert computed == [74, 74]
    fresh = engine(std=0.12)
    with torch.no_grad():
        for parameter in fresh.model.parameters():
            parameter.mul_(1.1)
    assert after == fresh.generate([Request(PROMPT, 4)])[0]


def test_a_fused_optimiser_does_not_go_unnoticed():
    running = engine()
    before = running.generate([Request(PROMPT, 4, temperature=0)])
    parameters = list(running.model.parameters())
    for parameter in parameters:
        parameter.grad = torch.ones_like(parameter)
    torch.optim.AdamW(parameters, lr=1e-2, fused=True).step()
    after = running.generate([Request(PROMPT, 4, temperature=0)])
    assert after[0].logprobs != before[0].logprobs
    assert after == Engine(running.model, TOKENIZER, 4).generate([Request(PROMPT, 4, temperature=0)])


def test_requests_wait_for_pages_and_all_end():
    small = engine(cache_bytes=1)  # room for one sequence of the full length
    assert small.runner.blocks.pages == 4
    requests = [Request([*PROMPT[:40], 5 + index], 30, seed=index) for index in range(5)]
    assert small.generate(requests) == engine().generate(requests)
    assert small.runner.blocks.available == 4


def test_cancelled_requests_give_their_pages_back_within_a_step():
    running = engine()
    everything = running.runner.blocks.available
    ids = [running.add(Request(PROMPT, 40, seed=index)) for index in range(6)]
    running.step()
    for request_id in ids:
        running.cancel(request_id)
    running.step()
    assert not running.busy
    assert running.runner.blocks.available == everything


def test_a_failure_leaves_nothing_that_is_trusted(computed):
    running = engine()

    def interrupt(ended, tokens):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        running.generate([Request(PROMPT, 9)], progress=interrupt)
    assert not running.busy
    running.generate([Request(PROMPT, 4)])
    assert computed == [74, 74]
