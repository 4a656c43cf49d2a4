"""Pretraining: the whole loss against finite differences and against its formula; a step that is pure, falls and repeats to the bit."""

import math

import pytest
import torch
from tiny_models import randomise
from torch import Tensor
from torch.autograd import gradcheck

from spoutnik.data.tokens import TokenFile, write_tokens
from spoutnik.errors import UserError
from spoutnik.model.config import ModelConfig
from spoutnik.model.init import initialise
from spoutnik.model.moe import Routing
from spoutnik.model.transformer import CausalLM
from spoutnik.recipe.schema import PretrainStage
from spoutnik.train import pretrain
from spoutnik.train.balance import ExpertLoad
from spoutnik.train.losses import batch_balance_loss
from spoutnik.train.optim import Optimizer
from spoutnik.train.pretrain import pretrain_losses, pretrain_step
from spoutnik.train.state import TrainState

SMALLEST = {
    "model_type": "deepseek_v3", "vocab_size": 7, "hidden_size": 4, "intermediate_size": 5, "num_hidden_layers": 2,
    "num_attention_heads": 2, "q_lora_rank": 3, "kv_lora_rank": 3, "qk_nope_head_dim": 2, "qk_rope_head_dim": 2,
    "v_head_dim": 2, "n_routed_experts": 4, "n_shared_experts": 1, "num_experts_per_tok": 2, "moe_intermediate_size": 3,
    "first_k_dense_replace": 1, "n_group": 2, "topk_group": 1, "num_nextn_predict_layers": 2,
}  # fmt: skip


def stage(**changes):
    settings = {"steps": 40, "batch_tokens": 128, "sequence_length": 32, "learning_rate": 0.01}
    family = {"family": "deepseek_v3", "depth": 2}
    return PretrainStage.model_validate({"name": "stage", "data": "corpus", "model": family, **settings, **changes})


@pytest.fixture
def tokens(tmp_path):
    """Documents that count upwards, so that there is something easy to learn."""
    documents = [[(start + place) % 50 for place in range(40)] for start in range(60)]
    write_tokens(tmp_path / "tokens.bin", documents, 300)
    return TokenFile(tmp_path / "tokens.bin", 300)


def start(config, optimizer="adamw"):
    model = CausalLM(config)
    initialise(model, seed=1)
    return TrainState(model, Optimizer(model, 0.01, 0.1, muon=optimizer == "muon"))


def test_gradient_of_the_whole_loss_with_mtp_and_balance():
    model = CausalLM(ModelConfig.from_hf(SMALLEST)).double()
    randomise(model, std=0.7)
    ids_BT = torch.tensor([[1, 5, 2, 2, 6], [3, 0, 4, 1, 5]])
    names = [name for name, _ in model.named_parameters()]
    values = [value.detach().clone().requires_grad_() for value in model.parameters()]
    settings = stage(mtp_weight=0.4, balance={"sequence_loss": 0.5, "batch_loss": 0.3})

    def total(*weights: Tensor) -> Tensor:
        with torch.nn.utils.stateless._reparametrize_module(model, dict(zip(names, weights, strict=True))):
            return pretrain_losses(model, ids_BT, settings, ExpertLoad())[0]

    assert total(*values).dtype == torch.float64
    assert gradcheck(total, values, fast_mode=True)


def test_the_total_is_equation_25_written_out():
    model = CausalLM(ModelConfig.from_hf(SMALLEST))
    randomise(model, std=0.5)
    ids_BT = torch.tensor([[1, 5, 2, 2, 6, 3], [3, 0, 4, 1, 5, 5]])
    total, ce, mtp, balance = pretrain_losses(model, ids_BT, stage(mtp_weight=0.4, balance={"sequence_loss": 0.5}), ExpertLoad()).tolist()
    hidden_BTD = model.hidden(ids_BT)
    logits_BTV = model.head(hidden_BTD)
    first_BTD = model.predict_further(hidden_BTD[:, :5], ids_BT[:, 1:])
    second_BTD = model.predict_further(first_BTD[:, :4], ids_BT[:, 2:], depth=1)

    def cross_entropy(logits_BTV, ahead):
        losses = [-logits_BTV[row, place].log_softmax(-1)[ids_BT[row, place + ahead]] for row in range(2) for place in range(6 - ahead)]
        return float(torch.stack(losses).mean().detach())

    assert ce == pytest.approx(cross_entropy(logits_BTV, 1), abs=1e-5)
    assert mtp == pytest.approx((cross_entropy(model.head(first_BTD), 2) + cross_entropy(model.head(second_BTD), 3)) / 2, abs=1e-5)
    assert total == pytest.approx(ce + 0.4 * mtp + 0.5 * balance, abs=1e-5)


def test_the_balance_loss_over_the_batch_joins_the_total_by_its_weight():
    model = CausalLM(ModelConfig.from_hf(SMALLEST))
    randomise(model, std=0.5)
    ids_BT = torch.tensor([[1, 5, 2, 2, 6, 3], [3, 0, 4, 1, 5, 5]])
    totals = [pretrain_losses(model, ids_BT, stage(balance={"batch_loss": weight}), ExpertLoad()).tolist()[0] for weight in (0.0, 2.0)]
    routing = Routing()
    hidden_BTD = model.hidden(ids_BT, routing=routing)
    for depth in range(2):
        hidden_BTD = model.predict_further(hidden_BTD[:, :-1], ids_BT[:, 1 + depth :], routing=routing, depth=depth)
    losses = [batch_balance_loss(*pair) for pair in zip(routing.scores_TE, routing.experts_TK, strict=True)]
    assert totals[1] - totals[0] == pytest.approx(2 * torch.stack(losses).mean().item(), abs=1e-5)


def test_every_router_is_counted_those_of_further_prediction_too():
    model = CausalLM(ModelConfig.from_hf(SMALLEST))
    randomise(model)
    load = ExpertLoad()
    pretrain_losses(model, torch.tensor([[1, 5, 2, 2, 6, 3]]), stage(), load)
    assert {layer: int(counts_E.sum()) for layer, counts_E in load.counts_E.items()} == {1: 12, 2: 10, 3: 8}


def test_without_weight_further_prediction_is_not_computed():
    model = CausalLM(ModelConfig.from_hf(SMALLEST))
    randomise(model)
    pretrain_losses(model, torch.tensor([[1, 5, 2]]), stage(mtp_weight=0.0), ExpertLoad())[0].backward()
    assert all(parameter.grad is None for layer in model.model.layers[2:] for parameter in layer.parameters())


def test_the_gradient_does_not_depend_on_the_micro_batches(config, context, tokens, monkeypatch):
    found = []

    def keep(state, *_):
        found.append({name: parameter.grad.clone() for name, parameter in state.model.named_parameters() if parameter.grad is not None})
        return 0.0

    monkeypatch.setattr(pretrain, "apply_update", keep)
    metrics = []
    for size in (128, 32):
        monkeypatch.setattr(pretrain, "MICRO_BATCH_TOKENS", size)
        metrics.append(pretrain_step(start(config), stage(balance={"sequence_loss": 0.1}), context, tokens))
    for name in found[0]:
        torch.testing.assert_close(found[1][name], found[0][name], rtol=1e-4, atol=1e-6)
    assert metrics[1]["loss"] == pytest.approx(metrics[0]["loss"], rel=1e-5)
    assert metrics[1]["max_violation"] == metrics[0]["max_violation"]


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_a_tiny_model_learns_and_two_runs_are_bit_equal(config, context, tokens, optimizer):
    runs = []
    for _ in range(2):
        state = start(config, optimizer)
        losses = [pretrain_step(state, stage(optimizer=optimizer), context, tokens)["ce"] for _ in range(25)]
        runs.append((losses, state.model.state_dict()))
    assert runs[0][0] == runs[1][0]
    assert all(torch.equal(tensor, runs[1][1][name]) for name, tensor in runs[0][1].items())
    assert runs[0][0][0] == pytest.approx(math.log(config.vocab_size), rel=0.15)
    assert runs[0][0][-1] < 0.6 * runs[0][0][0]


def test_a_bad_step_moves_neither_weights_nor_router_biases_and_the_batch_is_kept(config, context, tokens):
    state = start(config)
    pretrain_step(state, stage(), context, tokens)
    with torch.no_grad():
        state.model.model.norm.weight[0] = math.inf
    before = {name: tensor.clone() for name, tensor in state.model.state_dict().items()}
    metrics = pretrain_step(state, stage(max_bad_steps=2), context, tokens)
    assert not math.isfinite(metrics["loss"])
    assert all(torch.equal(tensor, before[name]) for name, tensor in state.model.state_dict().items())
    assert len(list(context.directory.glob("bad-batch-00000002-*"))) == 1
    assert state.step == 2
    with pytest.raises(UserError, match="2 steps in a row"):
        pretrain_step(state, stage(max_bad_steps=2), context, tokens)
