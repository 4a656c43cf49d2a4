"""The guard around every optimiser step."""

import math

import pytest
import torch
from safetensors.torch import load_file

from spoutnik.errors import UserError
from spoutnik.run.record import read
from spoutnik.train.optim import Optimizer
from spoutnik.train.state import TrainState
from spoutnik.train.update import apply_update

BATCH = {"ids": torch.tensor([[3, 1, 4]])}


@pytest.fixture
def state(model):
    return TrainState(model, Optimizer(model, 1e-2, 0.1))


def fill(model, value, last=None):
    for parameter in model.parameters():
        parameter.grad = torch.full_like(parameter, value)
    if last is not None:
        parameter.grad.view(-1)[-1] = last


def update(state, context, loss=1.0, grad_clip=1.0, most=3):
    return apply_update(state, loss, 1.0, grad_clip, most, context, BATCH)


def weights(state):
    return torch.cat([parameter.detach().flatten() for parameter in state.model.parameters()])


@pytest.mark.parametrize(("loss", "bad"), [(math.nan, None), (math.inf, None), (1.0, math.nan), (1.0, math.inf), (1.0, -math.inf)], ids=str)
def test_what_is_not_finite_changes_no_weight_and_leaves_its_batch(state, context, loss, bad):
    before = weights(state)
    fill(state.model, 0.01, bad)
    update(state, context, loss)
    assert torch.equal(weights(state), before)
    assert not any(state.optimizer.state_of(parameter) for parameter in state.model.parameters())
    assert all(parameter.grad is None for parameter in state.model.parameters())
    assert state.bad_steps == 1
    (file,) = context.directory.glob("bad-batch-*")
    assert torch.equal(load_file(file)["ids"], BATCH["ids"])
    (warning,) = [event for event in read(context.record.path) if event["event"] == "warning"]
    assert warning["step"] == 1
    assert file.name in warning["text"]


def test_too_many_in_a_row_end_the_run_and_say_where_the_batches_are(state, context):
    for _ in range(2):
        update(state, context, math.nan)
        state.step += 1
    with pytest.raises(UserError, match="3 steps in a row") as caught:
        update(state, context, math.nan)
    assert str(context.directory) in str(caught.value)
    assert len(list(context.directory.glob("bad-batch-*"))) == 3


def test_a_good_step_starts_the_count_anew(state, context):
    for _ in range(4):
        update(state, context, math.nan, most=2)
        fill(state.model, 0.01)
        update(state, context, 1.0, most=2)
    assert state.bad_steps == 0


def test_gradients_are_clipped_to_the_norm_and_the_norm_before_is_returned(state, context, monkeypatch):
    seen = []
    monkeypatch.setattr(state.optimizer, "step", lambda scale: seen.extend(parameter.grad.norm() for parameter in state.model.parameters()))
    fill(state.model, 0.5)
    expected = 0.5 * math.sqrt(sum(parameter.numel() for parameter in state.model.parameters()))
    assert update(state, context, grad_clip=0.1) == pytest.approx(expected, rel=1e-4)
    assert float(torch.stack(seen).norm()) == pytest.approx(0.1, rel=1e-4)
