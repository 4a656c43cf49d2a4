"""What is saved is all that the next step depends on."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny_models import tiny_model

from spoutnik.train.optim import Optimizer
from spoutnik.train.rl import frozen_copy
from spoutnik.train.state import TrainState, load_state, save_state, stream_seed


def start(name, muon, seed=0):
    model = tiny_model(name, seed)
    return TrainState(model, Optimizer(model, 1e-2, 0.1, muon=muon), reference=frozen_copy(model))


def advance(state, steps):
    for _ in range(steps):
        ids_BT = torch.randint(0, 97, (2, 6), generator=torch.Generator().manual_seed(state.step))
        state.model(ids_BT).logsumexp(-1).mean().backward()
        state.optimizer.step(1.0)
        state.step += 1
    return state


@pytest.mark.parametrize("muon", [False, True])
@pytest.mark.parametrize("name", ["deepseek-v3", "smollm2"])
def test_going_on_from_a_save_is_bit_equal_to_never_having_stopped(tmp_path, name, muon):
    state = advance(start(name, muon), 2)
    state.bad_steps = 2
    save_state(state, tmp_path)
    resumed = load_state(start(name, muon, seed=9), tmp_path)
    assert (resumed.step, resumed.bad_steps) == (2, 2)
    first, second = advance(state, 2), advance(resumed, 2)
    for model, other in ((first.model, second.model), (first.reference, second.reference)):
        tensors, others = model.state_dict(), other.state_dict()
        assert all(torch.equal(tensors[key], others[key]) for key in tensors)
    for parameter, other in zip(first.model.parameters(), second.model.parameters(), strict=True):
        moments, others = first.optimizer.state_of(parameter), second.optimizer.state_of(other)
        assert moments.keys() == others.keys()
        assert all(torch.equal(moments[key], others[key]) for key in moments)


def test_the_router_bias_is_part_of_the_state(tmp_path):
    state = start("deepseek-v3", muon=False)
    save_state(state, tmp_path)
    bias = state.model.model.layers[1].mlp.gate.e_score_correction_bias
    resumed = load_state(start("deepseek-v3", muon=False, seed=9), tmp_path)
    assert torch.equal(resumed.model.model.layers[1].mlp.gate.e_score_correction_bias, bias)


@given(st.lists(st.tuples(st.integers(0, 2**32), st.integers(0, 1000), st.integers(0, 1000)), unique=True, max_size=20))
def test_streams_have_seeds_of_their_own(places):
    seeds = [stream_seed(*place) for place in places]
    assert len(set(seeds)) == len(seeds)
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert seeds == [stream_seed(*place) for place in places]


def test_neighbouring_places_are_not_confused():
    assert stream_seed(1, 23) != stream_seed(12, 3)
