"""The sampler's support and routing, found again by the trainer."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.autograd import gradcheck

from spoutnik.engine.request import Request
from spoutnik.engine.sampler import SamplingParameters, sample
from spoutnik.model.moe import Routing
from spoutnik.train.as_sampled import log_mass, rerouted, support_of


def normal(*shape, seed=0, scale=1.0):
    return scale * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def sets(support):
    return [{token for token in row if token >= 0} for row in support.tokens.tolist()]


@given(st.integers(2, 40), st.floats(0.05, 1.0), st.integers(0, 12), st.integers(0, 1000), st.floats(0.3, 4.0))
def test_the_support_is_the_fewest_likeliest_tokens_that_hold_top_p_of_the_top_k(vocabulary, top_p, top_k, seed, scale):
    logits_NV = normal(3, vocabulary, seed=seed, scale=scale)
    support = support_of(logits_NV, logits_NV.argmax(-1), top_p, top_k)
    for logits_V, found in zip(logits_NV, sets(support), strict=True):
        order = logits_V.argsort(descending=True)[: top_k or vocabulary]
        shares = logits_V.double().softmax(-1)[order]
        before = (shares.cumsum(0) - shares) / shares.sum()
        assert {*order[before < top_p - 1e-6].tolist()} <= found <= {*order[before < top_p + 1e-6].tolist()}


@pytest.mark.parametrize("settings", [{"top_p": 0.7}, {"top_k": 5}, {"top_k": 9, "top_p": 0.6}], ids=str)
def test_every_token_that_the_sampler_draws_is_in_the_support_and_every_token_of_it_is_drawn(settings):
    logits_V = normal(60, seed=3)
    requests = [Request([0], seed=seed, **settings) for seed in range(4000)]
    drawn, logprobs = sample(logits_V.expand(4000, -1), SamplingParameters.of(requests, torch.device("cpu")), [7] * 4000)
    support = support_of(logits_V[None], torch.tensor(drawn[:1]), settings.get("top_p", 1.0), settings.get("top_k", 0))
    assert sets(support)[0] == set(drawn)
    restricted = {token: logprob - float(support.log_mass) for token, logprob in zip(drawn, logprobs, strict=True)}
    assert sum(torch.tensor(logprob).exp() for logprob in restricted.values()) == pytest.approx(1.0, abs=1e-5)


def test_a_drawn_token_counts_as_allowed_even_where_rounding_puts_it_outside():
    support = support_of(torch.tensor([[5.0, 1.0, 0.0], [0.0, 5.0, 1.0]]), torch.tensor([2, 1]), top_p=0.5, top_k=0)
    assert sets(support) == [{0, 2}, {1}]


def test_log_mass_renormalises_as_a_masked_softmax_does_and_so_does_its_gradient():
    logits_NV, tokens_NM = normal(3, 6).double().requires_grad_(), torch.tensor([[0, 2, -1], [5, -1, -1], [1, 3, 4]], dtype=torch.int32)
    assert gradcheck(lambda logits_NV: log_mass(logits_NV, tokens_NM), logits_NV)
    outside_NV = torch.ones(3, 6, dtype=torch.bool)
    for row, tokens in enumerate(tokens_NM.tolist()):
        outside_NV[row, [token for token in tokens if token >= 0]] = False
    masked = logits_NV.masked_fill(outside_NV, -torch.inf).log_softmax(-1)[[0, 1, 2], [2, 5, 4]]
    found = logits_NV.log_softmax(-1)[[0, 1, 2], [2, 5, 4]] - log_mass(logits_NV, tokens_NM)
    torch.testing.assert_close(found, masked)
    torch.testing.assert_close(*(torch.autograd.grad(values.sum(), logits_NV, retain_graph=True)[0] for values in (found, masked)))


def test_choices_that_the_routers_would_make_differently_are_counted_in_any_order(model):
    ids_BT = torch.randint(0, 200, (1, 6), generator=torch.Generator().manual_seed(0))
    routing = Routing()
    model.hidden(ids_BT, routing=routing)
    everywhere = torch.ones(6, dtype=torch.bool)
    routing.experts_TK = [experts_TK.flip(-1) for experts_TK in routing.experts_TK]
    assert rerouted(model, routing, everywhere) == 0.0
    experts, (token_TK,) = model.config.n_routed_experts, routing.experts_TK
    other = next(expert for expert in range(experts) if expert not in token_TK[2].tolist())
    token_TK[2, 0] = other
    assert rerouted(model, routing, everywhere) == pytest.approx(1 / token_TK.numel())
    assert rerouted(model, routing, torch.arange(6) != 2) == 0.0
