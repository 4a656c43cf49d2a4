"""DPO's stream has the gradient of the published loss."""

import math

import pytest
import torch
from torch.autograd import gradcheck

from spoutnik.train.algorithms.dpo import dpo, margins, preference_loss
from spoutnik.train.algorithms.streams import objective

MASK_BT = torch.tensor([[0.0, 1, 1, 0], [0, 1, 0, 0], [0, 1, 1, 1], [0, 1, 1, 0]], dtype=torch.float64)
REFERENCE_B = torch.tensor([-2.0, -1.0, -3.0, -4.0], dtype=torch.float64)


def logprobs(seed=0):
    return -torch.rand(4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)).mul(3) * MASK_BT


def test_the_loss_by_hand():
    margin_P = torch.tensor([2.0, -1.0], dtype=torch.float64)
    expected = (math.log(1 + math.exp(-0.5 * 2)) + math.log(1 + math.exp(0.5))) / 2
    assert float(preference_loss(margin_P, beta=0.5)) == pytest.approx(expected)
    assert float(preference_loss(torch.zeros(3, dtype=torch.float64), 0.1)) == pytest.approx(math.log(2))


def test_margins_are_what_the_chosen_gained_over_what_the_rejected_gained():
    logprobs_BT = torch.tensor([[-1.0, -0.5], [-2.0, -0.5]], dtype=torch.float64)
    assert margins(logprobs_BT, torch.tensor([-2.0, -2.0], dtype=torch.float64)).tolist() == [0.5 + 0.5]


@pytest.mark.parametrize("beta", [0.1, 2.0])
def test_gradient_of_the_loss(beta):
    assert gradcheck(lambda logprobs_BT: preference_loss(margins(logprobs_BT * MASK_BT, REFERENCE_B), beta), logprobs().requires_grad_())


@pytest.mark.parametrize("beta", [0.1, 2.0])
def test_the_stream_has_the_gradient_of_the_loss(beta):
    printed_BT, streamed_BT = logprobs().requires_grad_(), logprobs().requires_grad_()
    preference_loss(margins(printed_BT * MASK_BT, REFERENCE_B), beta).backward()
    objective(dpo(margins(streamed_BT * MASK_BT, REFERENCE_B), MASK_BT, beta), streamed_BT).backward()
    torch.testing.assert_close(streamed_BT.grad, printed_BT.grad)
    assert torch.equal(streamed_BT.grad != 0, MASK_BT > 0)


def test_a_pair_that_is_settled_weighs_little_and_one_that_is_wrong_much():
    streams = dpo(torch.tensor([30.0, -30.0], dtype=torch.float64), MASK_BT, beta=0.5)
    assert float(streams.ce[0, 1]) < 1e-6
    assert float(streams.ce[2, 1]) == pytest.approx(0.5 / 2)
    assert float(streams.ce[3, 1]) == pytest.approx(-0.5 / 2)
