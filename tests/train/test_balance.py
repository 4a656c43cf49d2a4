"""Expert balance without an auxiliary loss."""

import pytest
import torch
from tiny_models import tiny_model

from spoutnik.model.moe import Routing
from spoutnik.train.balance import ExpertLoad, balance_losses
from spoutnik.train.losses import sequence_balance_loss


def routing_of(experts_TK, layer=1, experts=4):
    routing = Routing()
    chosen_TK = torch.tensor(experts_TK)
    scores_TE = torch.rand(len(experts_TK), experts, generator=torch.Generator().manual_seed(0))
    routing.add(layer, scores_TE, chosen_TK)
    return routing


def test_the_bias_rises_for_idle_experts_and_falls_for_busy_ones_by_the_rate():
    model = tiny_model("deepseek-v3", n_routed_experts=4, n_group=2)
    bias_E = model.model.layers[1].mlp.gate.e_score_correction_bias
    before_E = bias_E.clone()
    load = ExpertLoad()
    load.add(routing_of([[0, 1], [0, 1], [0, 2], [0, 2]]))  # loads 4, 2, 2, 0; mean 2
    load.update_bias(model, 0.01)
    torch.testing.assert_close(bias_E - before_E, torch.tensor([-0.01, 0.0, 0.0, 0.01]))


def test_loads_add_up_over_micro_batches():
    load = ExpertLoad()
    load.add(routing_of([[0, 1], [2, 3]]))
    load.add(routing_of([[0, 1]]))
    assert load.counts_E[1].tolist() == [2, 2, 1, 1]


def test_repeated_updates_even_out_the_load():
    model = tiny_model("deepseek-v3")
    ids_BT = torch.randint(0, 97, (8, 16), generator=torch.Generator().manual_seed(0))

    def violation():
        routing, load = Routing(), ExpertLoad()
        model.hidden(ids_BT, routing=routing)
        load.add(routing)
        return load

    with torch.no_grad():
        before = violation().metrics()["max_violation"]
        for _ in range(60):
            violation().update_bias(model, 0.02)
        assert violation().metrics()["max_violation"] < 0.5 * before


def test_metrics_name_the_worst_layer_the_dead_experts_and_the_shares():
    load = ExpertLoad()
    load.add(routing_of([[0, 1], [0, 1], [0, 2], [0, 2]], layer=1))
    load.add(routing_of([[0, 1], [2, 3], [0, 1], [2, 3]], layer=2))
    metrics = load.metrics()
    assert metrics["max_violation"] == 1.0
    assert metrics["dead_experts"] == 1
    assert metrics["load"] == [[0.5, 0.25, 0.25, 0.0], [0.25, 0.25, 0.25, 0.25]]
    assert ExpertLoad().metrics() == {}


def test_the_sequence_loss_takes_each_row_by_itself():
    scores_TE = torch.rand(6, 4, generator=torch.Generator().manual_seed(0))
    routing = Routing()
    routing.add(1, scores_TE, scores_TE.topk(2).indices)
    routing.add(2, scores_TE.flip(0), scores_TE.flip(0).topk(2).indices)
    rows = [sequence_balance_loss(part[None], 2) for part in scores_TE.split(2)]
    assert float(balance_losses(routing, rows=3, top_k=2)[0]) == pytest.approx(float(torch.stack(rows).mean()))
