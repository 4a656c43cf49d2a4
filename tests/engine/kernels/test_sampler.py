"""The C++ sampler draws what engine/sampler.py draws, from the same uniform numbers."""

import numpy as np
import pytest
import torch

from spoutnik.engine.kernels.native import DRAW, Chunk, Kind, NativeEngine, Operation, Space
from spoutnik.engine.request import Request
from spoutnik.engine.sampler import SamplingParameters, sample, uniforms

ROWS = 60


def draw(logits_TV, **settings):
    """A program that is nothing but its sampler."""
    rows, vocabulary = logits_TV.shape
    engine = NativeEngine(2)
    table = engine.constant(logits_TV.contiguous())
    empty = {"from_": -1, "to": -1, "constant": -1, "heads": 1}
    operations = [
        Operation(**{**empty, "kind": Kind.EMBED, "to": 0, "constant": table, "width": vocabulary}),
        Operation(**{**empty, "kind": Kind.PICK, "space": Space.PICKED, "from_": 0, "to": 1, "width": vocabulary}),
    ]
    engine.program(operations, [(vocabulary, Space.TOKENS), (vocabulary, Space.PICKED)], 32, rows, rows, 32, 1, vocabulary)
    engine.cache(False, 1, 1, 2, 2, 1)
    draws = np.zeros(rows, DRAW)
    for name, value in {"top_p": 1.0, "forced": -1, **settings}.items():
        draws[name] = value
    return engine.step([Chunk(range(rows), 0, [])], range(rows), draws)[0]


@pytest.mark.parametrize("vocabulary", [5, 200, 3001])
@pytest.mark.parametrize(
    "settings",
    [{}, {"temperature": 0.0}, {"temperature": 0.6}, {"top_k": 4}, {"top_p": 0.7}, {"top_k": 9, "top_p": 0.5, "temperature": 1.7}],
)
def test_tokens_and_log_probabilities_are_those_of_the_torch_sampler(vocabulary, settings):
    logits_TV = torch.randn(ROWS, vocabulary, generator=torch.Generator().manual_seed(vocabulary)) * 3
    requests = [Request([1], seed=seed, **settings) for seed in range(ROWS)]
    tokens, logprobs = sample(logits_TV, SamplingParameters.of(requests, torch.device("cpu")), [7] * ROWS)
    uniform = uniforms(np.arange(ROWS, dtype=np.uint64), [7] * ROWS)
    drawn = draw(logits_TV, **{"temperature": 1.0, **settings}, uniform=uniform)
    assert drawn["token"].tolist() == tokens
    assert drawn["logprob"].tolist() == pytest.approx(logprobs, abs=2e-6)


def test_a_forced_token_is_only_scored():
    logits_TV = torch.randn(4, 50, generator=torch.Generator().manual_seed(0))
    drawn = draw(logits_TV, forced=[3, 0, 49, 7], temperature=0.5)
    assert drawn["token"].tolist() == [3, 0, 49, 7]
    expected = (logits_TV / 0.5).log_softmax(-1)[torch.arange(4), [3, 0, 49, 7]]
    assert drawn["logprob"].tolist() == pytest.approx(expected.tolist(), abs=1e-6)


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_logits_that_are_not_finite_are_reported(bad):
    logits_TV = torch.zeros(3, 40)
    logits_TV[1, 33] = bad
    assert draw(logits_TV, temperature=1.0)["token"].tolist()[1] == -1


@pytest.mark.parametrize("settings", [{}, {"top_p": 0.7}])
def test_by_seed_and_position_it_draws_with_the_same_numbers(settings):
    logits_TV = torch.randn(ROWS, 200, generator=torch.Generator().manual_seed(0)) * 3
    requests = [Request([1], seed=seed * 2**58 + seed, **settings) for seed in range(ROWS)]
    tokens, _ = sample(logits_TV, SamplingParameters.of(requests, torch.device("cpu")), range(1, ROWS + 1))
    drawn = draw(logits_TV, **settings, temperature=1.0, uniform=-1, seed=[request.seed % 2**64 for request in requests])
    assert drawn["token"].tolist() == tokens
