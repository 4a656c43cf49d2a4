import pytest
import torch
from torch import Tensor

from spoutnik.model import experts
from spoutnik.model.experts import IMPLEMENTATIONS, choose, grouped, loop, padded

EXPERTS, TOP_K, HIDDEN, WIDTH = 8, 2, 16, 8
# Which experts each token goes to: every load that a router can produce.
LOADS = {
    "even": lambda tokens: torch.arange(tokens * TOP_K).view(tokens, TOP_K) % EXPERTS,
    "random": lambda tokens: torch.rand(tokens, EXPERTS, generator=torch.Generator().manual_seed(0)).topk(TOP_K, -1).indices,
    "some without a token": lambda tokens: torch.stack((torch.arange(tokens) % 3, 5 + torch.arange(tokens) % 2), -1),
    "all to two": lambda tokens: torch.tensor([[6, 1]]).expand(tokens, -1),
}


def inputs(tokens: int, load: str, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)

    def draw(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator).to(dtype).requires_grad_()

    weights_TK = torch.rand(tokens, TOP_K, generator=generator).requires_grad_()
    return (
        draw(tokens, HIDDEN),
        LOADS[load](tokens).contiguous(),
        weights_TK,
        draw(EXPERTS, 2 * WIDTH, HIDDEN),
        draw(EXPERTS, HIDDEN, WIDTH),
    )


@pytest.mark.parametrize("load", LOADS)
@pytest.mark.parametrize("tokens", [0, 1, 37, 200])
@pytest.mark.parametrize("name", ["padded", "grouped"])
def test_every_way_equals_the_loop_in_values_and_gradients(name: str, tokens: int, load: str) -> None:
    arguments = inputs(tokens, load)
    leaves = [value for value in arguments if value.requires_grad]
    weights_TD = torch.randn(tokens, HIDDEN)
    expected, found = loop(*arguments), IMPLEMENTATIONS[name](*arguments)
    assert found.shape == (tokens, HIDDEN)
    assert torch.allclose(found, expected, atol=1e-5, rtol=1e-5)
    expected_gradients = torch.autograd.grad((expected * weights_TD).sum(), leaves)
    for got, want in zip(torch.autograd.grad((found * weights_TD).sum(), leaves), expected_gradients, strict=True):
        assert torch.allclose(got, want, atol=1e-4, rtol=1e-4)


def test_a_badly_unbalanced_call_is_run_by_the_loop_and_an_even_one_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    monkeypatch.setattr(experts, "loop", lambda *arguments: calls.append(1) or loop(*arguments))
    many, tokens = 32, 200
    hidden_TD, weights_TK = torch.randn(tokens, HIDDEN), torch.rand(tokens, TOP_K)
    gate_up, down = torch.randn(many, 2 * WIDTH, HIDDEN), torch.randn(many, HIDDEN, WIDTH)
    padded(hidden_TD, torch.arange(tokens * TOP_K).view(tokens, TOP_K) % many, weights_TK, gate_up, down)
    assert not calls
    crowded_TK = torch.tensor([[6, 1]]).expand(tokens, -1)
    out_TD = padded(hidden_TD, crowded_TK, weights_TK, gate_up, down)
    assert calls == [1]
    assert torch.equal(out_TD, loop(hidden_TD, crowded_TK, weights_TK, gate_up, down))


@pytest.mark.parametrize("name", ["padded", "grouped"])
def test_bfloat16_is_the_loop_within_its_rounding(name: str) -> None:
    arguments = inputs(64, "random", torch.bfloat16)
    found, expected = IMPLEMENTATIONS[name](*arguments), loop(*arguments)
    assert found.dtype == expected.dtype == torch.bfloat16
    assert (found - expected).abs().max() < 0.02 * expected.abs().max()


@pytest.mark.parametrize("name", IMPLEMENTATIONS)
def test_autocast_multiplies_in_bfloat16_and_keeps_float32_gradients(name: str) -> None:
    arguments = inputs(64, "random")
    with torch.autocast("cpu", torch.bfloat16):
        found = IMPLEMENTATIONS[name](*arguments)
    expected = loop(*arguments)
    assert (found - expected).abs().max() < 0.03 * expected.abs().max()
    found.float().sum().backward()
    assert all(value.grad is not None and value.grad.dtype == torch.float32 for value in arguments if value.requires_grad)


def test_no_token_is_dropped_when_one_expert_is_busy() -> None:
    hidden_TD, _, weights_TK, gate_up, down = inputs(30, "random")
    experts_TK = torch.tensor([[0, 1]]).expand(30, -1).contiguous()
    for function in (loop, padded, grouped):
        out_TD = function(hidden_TD, experts_TK, weights_TK, gate_up, down)
        assert (out_TD.abs().sum(-1) > 0).all()


def test_the_choice_can_always_run_and_is_never_blind_to_autocast() -> None:
    for width, dtype in ((8, torch.float32), (3, torch.float32), (8, torch.bfloat16), (5, torch.bfloat16), (3, torch.float64)):
        gate_up, down = torch.randn(EXPERTS, 2 * width, HIDDEN).to(dtype), torch.randn(EXPERTS, HIDDEN, width).to(dtype)
        for tokens in (1, 600):
            hidden_TD, experts_TK, weights_TK = torch.randn(tokens, HIDDEN).to(dtype), LOADS["random"](tokens), torch.rand(tokens, TOP_K)
            name = choose(hidden_TD, experts_TK, gate_up, down)
            assert (name == "grouped") == (width == 8 and (dtype == torch.float32 or tokens == 600))
            expected = loop(hidden_TD, experts_TK, weights_TK, gate_up, down)
            assert torch.allclose(IMPLEMENTATIONS[name](hidden_TD, experts_TK, weights_TK, gate_up, down), expected, rtol=0.05, atol=1.0)
            with torch.autocast("cpu", torch.bfloat16):
                assert choose(hidden_TD, experts_TK, gate_up, down) == "padded"


@pytest.mark.parametrize("name", IMPLEMENTATIONS)
def test_the_same_call_gives_the_same_bits_in_values_and_gradients(name: str) -> None:
    arguments = inputs(600, "random")
    leaves = [value for value in arguments if value.requires_grad]

    def run() -> list[Tensor]:
        out_TD = IMPLEMENTATIONS[name](*arguments)
        return [out_TD, *torch.autograd.grad(out_TD.square().sum(), leaves)]

    first = run()
    for _ in range(3):
        assert all(torch.equal(left, right) for left, right in zip(run(), first, strict=True))
