import pytest
import torch
from tiny_models import error, randomise, tiny_config, tiny_model
from torch import Tensor
from torch.func import functional_call

from spoutnik.model.config import ModelConfig
from spoutnik.model.experts import IMPLEMENTATIONS
from spoutnik.model.moe import MoE, Router, Routing


def router(**changes: object) -> Router:
    """A V3 router over 8 experts in 4 groups of 2 whose scores are the sigmoid of its input, one channel an expert."""
    gate = Router(tiny_config("deepseek-v3", hidden_size=8, num_experts_per_tok=2, topk_group=1, **changes))
    with torch.no_grad():
        gate.weight.copy_(torch.eye(8))
    return gate


def logits_of(*scores: float) -> Tensor:
    return torch.logit(torch.tensor([scores]))


def chosen(gate: Router, hidden_TD: Tensor) -> set[int]:
    return set(gate(hidden_TD)[1][0].tolist())


def test_a_group_scores_the_sum_of_its_two_best() -> None:
    best_alone, best_together = (0.9, 0.1), (0.6, 0.6)
    assert chosen(router(), logits_of(*best_alone, *best_together, 0.2, 0.2, 0.2, 0.2)) == {2, 3}


def test_v2_groups_score_their_best_expert() -> None:
    gate = Router(tiny_config("deepseek-v2", hidden_size=8, num_experts_per_tok=2, topk_group=1))
    with torch.no_grad():
        gate.weight.copy_(torch.eye(8))
    assert chosen(gate, torch.tensor([[3.0, 0.0, 2.5, 2.5, 0.0, 0.0, 0.0, 0.0]])) == {0, 1}


def test_closed_groups_stay_closed_when_every_biased_score_is_negative() -> None:
    gate = router()
    gate.e_score_correction_bias.fill_(-2.0)
    hidden_TD = logits_of(0.9, 0.8, 0.1, 0.1, 0.3, 0.3, 0.2, 0.2)
    assert chosen(gate, hidden_TD) == {0, 1}, "a mask of 0 instead of -inf would prefer the closed groups"


def test_the_bias_selects_and_never_weighs() -> None:
    gate = router(routed_scaling_factor=2.5)
    hidden_TD = logits_of(0.9, 0.8, 0.3, 0.1, 0.2, 0.2, 0.2, 0.2)
    gate.e_score_correction_bias[2:4] = 5.0
    scores_TE, experts_TK, weights_TK = gate(hidden_TD)
    by_expert = dict(zip(experts_TK[0].tolist(), weights_TK[0].tolist(), strict=True))
    assert by_expert == pytest.approx({2: 2.5 * 0.3 / 0.4, 3: 2.5 * 0.1 / 0.4})
    assert torch.allclose(scores_TE, hidden_TD.sigmoid())


def test_normalised_weights_sum_to_the_scaling_factor() -> None:
    weights_TK = router(routed_scaling_factor=2.5)(torch.randn(9, 8))[2]
    assert torch.allclose(weights_TK.sum(-1), torch.full((9,), 2.5))


def test_the_bias_gets_no_gradient_and_the_gate_does() -> None:
    gate = router()
    gate(torch.randn(5, 8))[2].square().sum().backward()
    assert not gate.e_score_correction_bias.requires_grad
    assert gate.weight.grad is not None
    assert gate.weight.grad.abs().sum() > 0


def test_scores_are_float32_for_bfloat16_input_and_under_autocast() -> None:
    gate = Router(tiny_config("deepseek-v3"))
    randomise(gate)
    hidden_TD = torch.randn(30, 48)
    with torch.autocast("cpu", torch.bfloat16):
        scores_TE, _, weights_TK = gate(hidden_TD)
    assert scores_TE.dtype == weights_TK.dtype == torch.float32
    assert torch.equal(scores_TE, gate(hidden_TD)[0])
    gate.to(torch.bfloat16)
    scores_TE = gate(hidden_TD.bfloat16())[0]
    assert scores_TE.dtype == torch.float32
    assert torch.equal(scores_TE, (hidden_TD.bfloat16().float() @ gate.weight.float().T).sigmoid())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_the_bias_stays_float32_to_the_bit_whatever_the_model_is_cast_to(dtype: torch.dtype) -> None:
    model = tiny_model("deepseek-v3")
    names = [name for name, _ in model.named_buffers() if name.endswith("e_score_correction_bias")]
    before = {name: model.get_buffer(name).clone() for name in names}
    assert len(names) == 3
    model.to(dtype)
    assert model.lm_head.weight.dtype == dtype
    for name in names:
        assert model.get_buffer(name).dtype == torch.float32
        assert torch.equal(model.get_buffer(name), before[name])
        assert name in model.state_dict()


def test_a_model_cast_on_the_meta_device_materialises_with_a_float32_bias() -> None:
    with torch.device("meta"):
        gate = Router(tiny_config("deepseek-v3"))
    gate.to(torch.bfloat16).to_empty(device="cpu")
    assert gate.weight.dtype == torch.bfloat16
    assert (gate.e_score_correction_bias.dtype, gate.e_score_correction_bias.device.type) == (torch.float32, "cpu")


def tiny_moe(**changes: object) -> MoE:
    config = ModelConfig.from_hf(
        {
            "model_type": "deepseek_v3", "vocab_size": 7, "hidden_size": 4, "intermediate_size": 8, "num_hidden_layers": 1,
            "num_attention_heads": 1, "kv_lora_rank": 3, "qk_nope_head_dim": 2, "qk_rope_head_dim": 2, "v_head_dim": 3,
            "n_routed_experts": 4, "n_shared_experts": 1, "num_experts_per_tok": 2, "moe_intermediate_size": 3, "n_group": 2,
            "topk_group": 1, "routed_scaling_factor": 2.5, **changes,
        }
    )  # fmt: skip
    moe = MoE(config, 0).double()
    randomise(moe, std=0.7)
    return moe


def test_gradients_of_the_routers_weights() -> None:
    gate = tiny_moe().gate
    hidden_TD = torch.randn(3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(3)).requires_grad_()
    weight = gate.weight.detach().clone().requires_grad_()

    def function(hidden: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        scores_TE, _, weights_TK = functional_call(gate, {"weight": value}, (hidden,))
        return scores_TE, weights_TK

    assert torch.autograd.gradcheck(function, [hidden_TD, weight])


@pytest.mark.parametrize("implementation", ["loop", "padded"])
@pytest.mark.parametrize("shared", [0, 1])
def test_gradients_of_the_whole_mixture(implementation: str, shared: int) -> None:
    moe = tiny_moe(n_shared_experts=shared)
    moe.experts.implementation = implementation
    names = [name for name, _ in moe.named_parameters()]
    values = [value.detach().clone().requires_grad_() for value in moe.parameters()]
    x_BTD = torch.randn(1, 5, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(4)).requires_grad_()
    scores_TE = moe.gate(x_BTD.flatten(0, 1))[0] + moe.gate.e_score_correction_bias
    assert (scores_TE.sort(-1).values.diff(dim=-1) > 1e-3).all(), "a tie would make the selection jump"

    def function(x: Tensor, *weights: Tensor) -> Tensor:
        return functional_call(moe, dict(zip(names, weights, strict=True)), (x, None))

    assert torch.autograd.gradcheck(function, [x_BTD, *values])


def test_shared_experts_stand_outside_the_gating() -> None:
    moe = tiny_moe()
    x_BTD = torch.randn(1, 5, 4, dtype=torch.float64)
    with torch.no_grad():
        moe.experts.down_proj.zero_()
        assert torch.equal(moe(x_BTD, None), moe.shared_experts(x_BTD))


def test_routing_notes_each_layers_scores_and_choices() -> None:
    model, routing = tiny_model("deepseek-v3"), Routing()
    hidden_BTD = model.hidden(torch.randint(0, 97, (2, 6)), routing=routing)
    model.predict_further(hidden_BTD, torch.randint(0, 97, (2, 6)), routing=routing)
    assert routing.layers == [1, 2, 3]
    assert all(scores.shape == (12, 8) and scores.requires_grad for scores in routing.scores_TE)
    assert all(experts.shape == (12, 3) and experts.dtype == torch.int64 for experts in routing.experts_TK)


def test_the_implementation_never_changes_the_model() -> None:
    model = tiny_model("deepseek-v3")
    ids_BT = torch.randint(0, 97, (2, 9))
    logits = {}
    for name in IMPLEMENTATIONS:
        for module in model.modules():
            if isinstance(module, MoE):
                module.experts.implementation = name
        logits[name] = model(ids_BT)
    assert all(error(value, logits["loop"]) < 1e-5 for value in logits.values())


@pytest.mark.parametrize("name", ["deepseek-v3", "deepseek-v2"])
def test_a_replayed_routing_chooses_as_before_and_weighs_by_the_scores_of_now(name: str) -> None:
    model = tiny_model(name)
    ids_BT = torch.randint(0, model.config.vocab_size, (2, 7), generator=torch.Generator().manual_seed(1))
    before, own, replayed = Routing(), Routing(), Routing()
    out_BTV = model(ids_BT, routing=before)
    assert torch.equal(model(ids_BT, routing=Routing(before)), out_BTV), "nothing has changed yet"
    randomise(model, seed=9)
    model(ids_BT, routing=own)
    replayed = Routing(before)
    model(ids_BT, routing=replayed).square().sum().backward()
    assert replayed.layers == before.layers
    for kept_TK, told_TK, own_TK in zip(before.experts_TK, replayed.experts_TK, own.experts_TK, strict=True):
        assert torch.equal(told_TK, kept_TK)
        assert not torch.equal(own_TK, kept_TK)
    first = replayed.layers[0]
    gate = model.model.layers[first].mlp.gate
    assert float(gate.weight.grad.abs().sum()) > 0, "the weights of the experts are still the router's"
    hidden_TD = torch.randn(5, model.config.hidden_size, dtype=gate.weight.dtype, generator=torch.Generator().manual_seed(2))
    _, own_TK, weights_TK = gate(hidden_TD)
    _, told_TK, same_TK = gate(hidden_TD, own_TK.flip(-1))
    assert torch.equal(told_TK, own_TK.flip(-1))
    torch.testing.assert_close(same_TK.flip(-1), weights_TK)
