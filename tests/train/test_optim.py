"""Which parameter goes to which optimiser, and Muon against a plain reference."""

import math

import pytest
import torch
from tiny_models import tiny_model

from spoutnik.train.optim import MUON_RMS, Muon, Optimizer, orthogonalise


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def groups(optimizer):
    """Name of the torch optimiser and weight decay, by the parameter's id."""
    return {
        id(parameter): (type(part).__name__, group["weight_decay"])
        for part in optimizer.parts
        for group in part.param_groups
        for parameter in group["params"]
    }


def test_every_parameter_has_one_place_and_only_hidden_matrices_go_to_muon():
    model = tiny_model("deepseek-v3")
    optimizer = Optimizer(model, 1e-3, 0.1, muon=True)
    place = groups(optimizer)
    listed = [id(p) for part in optimizer.parts for group in part.param_groups for p in group["params"]]
    assert len(listed) == len(set(listed)) == len(list(model.parameters()))
    for name, parameter in model.named_parameters():
        if parameter.ndim == 1:
            expected = ("AdamW", 0.0)
        elif name in ("model.embed_tokens.weight", "lm_head.weight") or name.endswith("mlp.gate.weight"):
            expected = ("AdamW", 0.1)
        else:
            expected = ("Muon", 0.1)
        assert place[id(parameter)] == expected, name


def test_a_tied_embedding_is_stepped_once():
    model = tiny_model("smollm2")
    optimizer = Optimizer(model, 1e-3, 0.0, muon=True)
    listed = [p for part in optimizer.parts for group in part.param_groups for p in group["params"]]
    assert sum(p is model.model.embed_tokens.weight for p in listed) == 1
    assert groups(optimizer)[id(model.lm_head.weight)][0] == "AdamW"


def plain_orthogonal(matrix):
    """Jordan's iteration on one matrix, in float64."""
    x = matrix.double()
    tall = x.shape[0] > x.shape[1]
    x = x.T if tall else x
    x = x / x.norm()
    for _ in range(5):
        gram = x @ x.T
        x = 3.4445 * x + (-4.7750 * gram + 2.0315 * gram @ gram) @ x
    return x.T if tall else x


@pytest.mark.parametrize("shape", [(6, 6), (4, 9), (9, 4), (3, 5, 8), (3, 8, 5)])
def test_muon_is_its_plain_reference_for_matrices_and_stacked_experts(shape):
    rate, decay, momentum = 0.02, 0.1, 0.95
    parameter = torch.nn.Parameter(normal(*shape))
    optimizer = Muon([parameter], rate, decay, momentum)
    stacked = parameter.detach().clone().reshape(-1, *shape[-2:])
    expected, buffers = list(stacked.double()), [torch.zeros(shape[-2:], dtype=torch.float64) for _ in stacked]
    for step in range(3):
        parameter.grad = normal(*shape, seed=step + 1)
        for index, grad in enumerate(parameter.grad.reshape(-1, *shape[-2:]).double()):
            buffers[index] = momentum * buffers[index] + (1 - momentum) * grad
            update = plain_orthogonal((1 - momentum) * grad + momentum * buffers[index])
            expected[index] = expected[index] * (1 - rate * decay) - rate * MUON_RMS * math.sqrt(max(shape[-2:])) * update
        optimizer.step()
    torch.testing.assert_close(parameter.detach().reshape(-1, *shape[-2:]).double(), torch.stack(expected), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("shape", [(16, 16), (8, 32), (32, 8), (4, 16, 24)])
def test_the_update_is_nearly_orthogonal_and_as_large_as_adamws(shape):
    update = orthogonalise(normal(*shape))
    singular = torch.linalg.svdvals(update)
    assert float(singular.max()) < 1.3
    assert float(singular.median()) > 0.6
    scaled = update * MUON_RMS * max(shape[-2:]) ** 0.5
    assert float(scaled.pow(2).mean().sqrt()) == pytest.approx(MUON_RMS, rel=0.25)


def test_a_zero_gradient_is_no_division_by_zero():
    assert torch.equal(orthogonalise(torch.zeros(3, 4, 4)), torch.zeros(3, 4, 4))


@pytest.mark.parametrize("muon", [False, True])
def test_only_matrices_decay_and_the_schedule_scales_the_rate(muon):
    model = tiny_model("llama")
    optimizer = Optimizer(model, 0.5, 0.2, muon=muon)
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step(0.1)
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.detach(), before[name] * (1.0 if parameter.ndim == 1 else 1 - 0.5 * 0.1 * 0.2))
        assert parameter.grad is None
