"""Draws follow the distribution that was asked for, and depend on nothing but logits, seed and position."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from spoutnik.engine.request import Request
from spoutnik.engine.sampler import SamplingParameters, derive_seed, sample, uniforms
from spoutnik.errors import UserError

CPU = torch.device("cpu")


def draw(logits_BV, requests, positions):
    return sample(logits_BV, SamplingParameters.of(requests, CPU), positions)


def request(**settings):
    return Request([0], **settings)


def frequencies(logits_V, rows=20_000, **settings):
    """Relative frequencies of `rows` draws from one row of logits."""
    tokens, _ = draw(logits_V.expand(rows, -1), [request(seed=seed, **settings) for seed in range(rows)], [7] * rows)
    return torch.bincount(torch.tensor(tokens), minlength=len(logits_V)) / rows


def reference(logits_V, temperature=1.0, top_k=0, top_p=1.0):
    """The distribution as the definition has it: sort, cut, renormalise, cut."""
    probabilities = (logits_V.double() / temperature).softmax(-1)
    order = probabilities.argsort(descending=True)
    kept = order[: top_k or len(order)]
    shares = probabilities[kept] / probabilities[kept].sum()
    kept = kept[shares.cumsum(0) - shares < top_p]
    result = torch.zeros_like(probabilities)
    result[kept] = probabilities[kept] / probabilities[kept].sum()
    return result


@pytest.mark.parametrize(
    "settings",
    [{}, {"temperature": 0.5}, {"temperature": 2.0}, {"top_k": 3}, {"top_p": 0.8}, {"top_k": 40, "top_p": 0.5, "temperature": 1.5}],
    ids=str,
)
@pytest.mark.parametrize("vocab_size", [5, 300])
def test_frequencies_are_those_of_the_distribution(vocab_size, settings):
    logits_V = torch.randn(vocab_size, generator=torch.Generator().manual_seed(vocab_size)) * 1.5
    expected = reference(logits_V, **settings)
    found = frequencies(logits_V, **settings)
    assert found[expected == 0].sum() == 0
    assert (found - expected).abs().max() < 5 * float((expected.max() / 20_000) ** 0.5)


def test_a_flat_distribution_over_a_large_vocabulary_still_honours_top_p():
    """More tokens are inside than the sampler looks at first."""
    found = frequencies(torch.linspace(1e-3, 0, 700), rows=4000, top_p=0.9)
    assert found[:629].count_nonzero() > 600
    assert found[631:].sum() == 0


@settings(deadline=None)
@given(st.data())
def test_a_row_is_drawn_the_same_in_any_company(data):
    rows = data.draw(st.integers(2, 8))
    logits_BV = torch.randn(rows, 150, generator=torch.Generator().manual_seed(data.draw(st.integers(0, 99)))) * 3
    requests = [
        request(
            temperature=data.draw(st.sampled_from([0.0, 0.7, 1.0])),
            top_k=data.draw(st.sampled_from([0, 0, 5])),
            top_p=data.draw(st.sampled_from([1.0, 1.0, 0.6])),
            seed=data.draw(st.integers(-(2**70), 2**70)),
        )
        for _ in range(rows)
    ]
    positions = [data.draw(st.integers(0, 1000)) for _ in range(rows)]
    tokens, logprobs = draw(logits_BV, requests, positions)
    for row in range(rows):
        (token,), (logprob,) = draw(logits_BV[row : row + 1], requests[row : row + 1], positions[row : row + 1])
        assert token == tokens[row]
        assert logprob == pytest.approx(logprobs[row], abs=1e-6)


def test_log_probabilities_are_at_the_temperature_and_before_truncation():
    logits_BV = torch.randn(3, 90, generator=torch.Generator().manual_seed(1)) * 2
    requests = [request(temperature=0.7, top_k=4, seed=3), request(seed=4), request(temperature=0)]
    tokens, logprobs = draw(logits_BV, requests, [1, 2, 3])
    for row, temperature in enumerate([0.7, 1.0, 1.0]):
        expected = (logits_BV[row].double() / temperature).log_softmax(-1)[tokens[row]]
        assert logprobs[row] == pytest.approx(float(expected), abs=1e-6)
    assert tokens[2] == int(logits_BV[2].argmax())


def test_a_token_without_probability_is_never_drawn():
    logits_V = torch.full((257,), -torch.inf)
    logits_V[[3, 200]] = 0.0
    assert frequencies(logits_V)[[3, 200]].tolist() == pytest.approx([0.5, 0.5], abs=0.02)
    assert frequencies(logits_V)[[3, 200]].sum() == 1


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
@pytest.mark.parametrize("settings", [{}, {"temperature": 0}, {"top_p": 0.5}], ids=str)
def test_logits_that_are_not_finite_are_a_clear_error(bad, settings):
    logits_BV = torch.zeros(2, 10)
    logits_BV[1, 4] = bad
    with pytest.raises(UserError, match="not finite"):
        draw(logits_BV, [request(**settings)] * 2, [0, 0])


def test_uniforms_are_uniform_and_apart_for_neighbouring_seeds_and_positions():
    seeds, positions = np.meshgrid(np.arange(200, dtype=np.uint64), np.arange(200))
    numbers = uniforms(seeds.ravel(), positions.ravel())
    assert len(np.unique(numbers)) == 200 * 200
    assert ((numbers >= 0) & (numbers < 1)).all()
    counts, _ = np.histogram(numbers, bins=100, range=(0, 1))
    assert ((counts - 400) ** 2 / 400).sum() < 160  # chi-squared, 99 degrees of freedom: one in ten thousand lies above
    grid = numbers.reshape(200, 200)
    for one, next_to_it in ((grid[:-1], grid[1:]), (grid[:, :-1], grid[:, 1:])):
        assert abs(np.corrcoef(one.ravel(), next_to_it.ravel())[0, 1]) < 0.02


def test_derived_seeds_do_not_meet():
    assert len({derive_seed(seed, index) for seed in range(50) for index in range(50)}) == 2500
