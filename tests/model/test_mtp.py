import torch
from tiny_models import error, randomise, tiny_model
from torch import Tensor

from spoutnik.model.config import ModelConfig
from spoutnik.model.transformer import CausalLM

IDS_BT = torch.tensor([[3, 14, 15, 92, 65, 35, 8], [27, 1, 82, 81, 8, 2, 84]])


def test_embedding_comes_first_in_eh_proj() -> None:
    model = tiny_model("deepseek-v3")
    layer, size = model.model.layers[3], model.config.hidden_size
    hidden_BTD = model.hidden(IDS_BT[:, :-1])
    with torch.no_grad():
        layer.eh_proj.weight[:, :size] = 0
    assert torch.equal(model.predict_further(hidden_BTD, IDS_BT[:, 1:]), model.predict_further(hidden_BTD, IDS_BT[:, 1:].flip(0)))
    assert not torch.equal(model.predict_further(hidden_BTD, IDS_BT[:, 1:]), model.predict_further(hidden_BTD.flip(0), IDS_BT[:, 1:]))


def test_embedding_and_head_are_the_main_models_and_the_norm_is_its_own() -> None:
    model = tiny_model("deepseek-v3")
    own = {name for name, _ in model.named_parameters() if name.startswith("model.layers.3.")}
    assert {"model.layers.3.shared_head.norm.weight", "model.layers.3.enorm.weight", "model.layers.3.hnorm.weight"} <= own
    assert not any("embed_tokens" in name or "shared_head.head" in name for name in own)
    model.head(model.predict_further(model.hidden(IDS_BT[:, :-1]).detach(), IDS_BT[:, 1:])).sum().backward()
    touched = {name for name, parameter in model.named_parameters() if parameter.grad is not None}
    assert touched == own | {"model.embed_tokens.weight", "lm_head.weight"}


def test_the_main_model_does_not_run_it() -> None:
    model = tiny_model("deepseek-v3")
    before = model(IDS_BT)
    before.sum().backward()
    assert all(parameter.grad is None for parameter in model.model.layers[3].parameters())
    randomise(model.model.layers[3], seed=9)
    assert torch.equal(model(IDS_BT), before)


def test_it_sees_no_token_later_than_the_next() -> None:
    model = tiny_model("deepseek-v3")
    changed_BT = IDS_BT.clone()
    changed_BT[:, 5:] = 0
    with torch.no_grad():
        first, second = (model.predict_further(model.hidden(ids[:, :-1]), ids[:, 1:]) for ids in (IDS_BT, changed_BT))
    assert error(second[:, :4], first[:, :4]) < 1e-5
    assert error(second[:, 4:], first[:, 4:]) > 1e-2


def test_a_second_layer_follows_the_first() -> None:
    model = tiny_model("deepseek-v3", num_nextn_predict_layers=2)
    first = model.predict_further(model.hidden(IDS_BT[:, :-2]), IDS_BT[:, 1:-1])
    second = model.predict_further(first, IDS_BT[:, 2:], depth=1)
    second.sum().backward()
    assert all(parameter.grad is not None for parameter in model.model.layers[3].parameters() if parameter.ndim == 1)
    assert second.shape == (2, 5, model.config.hidden_size)


def test_gradients_of_the_whole_layer() -> None:
    config = ModelConfig.from_hf(
        {
            "model_type": "deepseek_v3", "vocab_size": 7, "hidden_size": 4, "intermediate_size": 5, "num_hidden_layers": 1,
            "num_attention_heads": 2, "q_lora_rank": 3, "kv_lora_rank": 3, "qk_nope_head_dim": 2, "qk_rope_head_dim": 2,
            "v_head_dim": 2, "n_routed_experts": 4, "n_shared_experts": 1, "num_experts_per_tok": 2, "moe_intermediate_size": 3,
            "first_k_dense_replace": 1, "n_group": 2, "topk_group": 1, "num_nextn_predict_layers": 1,
        }
    )  # fmt: skip
    model = CausalLM(config).double()
    randomise(model, std=0.7)
    layer = model.model.layers[1]
    names = [name for name, _ in layer.named_parameters()]
    values = [value.detach().clone().requires_grad_() for value in layer.parameters()]
    hidden_BTD = torch.randn(1, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1)).requires_grad_()
    next_ids_BT = torch.tensor([[1, 5, 2, 2]])

    def function(hidden: Tensor, *weights: Tensor) -> Tensor:
        prefixed = {f"model.layers.1.{name}": weight for name, weight in zip(names, weights, strict=True)}
        with torch.nn.utils.stateless._reparametrize_module(model, prefixed):
            return model.head(model.predict_further(hidden, next_ids_BT))

    assert torch.autograd.gradcheck(function, [hidden_BTD, *values])
