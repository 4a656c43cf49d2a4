import pytest
import torch
from configurations import PUBLISHED, configurations
from hypothesis import given, settings
from tiny_models import RAW, tiny_config, tiny_model
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from spoutnik.model.config import ModelConfig
from spoutnik.model.flops import forward_flops, mtp_parameters, parameters, training_flops
from spoutnik.model.transformer import CausalLM


def published(name: str) -> ModelConfig:
    return ModelConfig.from_hf(PUBLISHED[name])


@settings(deadline=None, max_examples=60)
@given(config=configurations())
def test_counted_from_sizes_equals_counted_in_the_model(config: ModelConfig) -> None:
    with torch.device("meta"):
        model = CausalLM(config)
    assert parameters(config).total + mtp_parameters(config).total == sum(parameter.numel() for parameter in model.parameters())
    assert parameters(config).active <= parameters(config).total


@pytest.mark.parametrize(
    ("name", "total", "active"),
    [("DeepSeek-V3", 671.03, 37.55), ("DeepSeek-V2", 235.74, 21.38), ("DeepSeek-V2-Lite", 15.71, 2.66), ("SmolLM2-135M", 0.1345, 0.1345)],
)
def test_published_sizes(name: str, total: float, active: float) -> None:
    counted = parameters(published(name))
    assert counted.total / 1e9 == pytest.approx(total, rel=4e-4)
    assert counted.active / 1e9 == pytest.approx(active, rel=2e-3)


def test_v3s_multi_token_prediction_adds_eleven_billion() -> None:
    assert mtp_parameters(published("DeepSeek-V3")).total / 1e9 == pytest.approx(11.61, abs=0.01)
    assert mtp_parameters(published("DeepSeek-V2")) == (0, 0)


def test_training_cost_of_a_token_at_4k() -> None:
    """V3: 250.4 GFLOP causal, 281.2 with every key, which reproduce its published utilisation; V2: 155.3."""
    config = published("DeepSeek-V3").with_(num_nextn_predict_layers=0)
    assert training_flops(config, 1, 4096) / 1e9 == pytest.approx(250.4, abs=0.1)
    assert 3 * forward_flops(config, 1, 4096) / 1e9 == pytest.approx(281.2, abs=0.1)
    assert training_flops(published("DeepSeek-V2"), 1, 4096) / 1e9 == pytest.approx(155.3, abs=0.1)


def test_multi_token_prediction_costs_a_layer_a_projection_and_a_head() -> None:
    config = published("DeepSeek-V3")
    extra = training_flops(config, 1, 4096) - training_flops(config.with_(num_nextn_predict_layers=0), 1, 4096)
    layer = 3 * 2 * (mtp_parameters(config).active + config.vocab_size * config.hidden_size) + 3 * 2 * 4097 / 2 * 128 * 320
    assert extra == pytest.approx(layer, rel=1e-3)


def test_a_hand_count() -> None:
    config = ModelConfig("llama", 10, 4, 6, 1, 2, 1)  # 2 query heads and 1 key-value head of width 2
    matrices = 4 * 4 + 4 * 2 + 4 * 2 + 4 * 4 + 3 * 4 * 6 + 4 * 10
    assert forward_flops(config, 1, 0) == 2 * matrices
    assert forward_flops(config, 3, 7) == 3 * (2 * matrices + 2 * 2 * (2 * 7 * 2))
    assert training_flops(config, 5, 3) == 3 * forward_flops(config, 5, 2)


def test_a_window_bounds_what_attention_costs() -> None:
    config = tiny_config("mistral")
    assert forward_flops(config, 1, 500) == forward_flops(config, 1, 5)
    keys = [min(position + 1, 5) for position in range(20)]
    assert training_flops(config, 20, 20) == pytest.approx(3 * sum(forward_flops(config, 1, seen) for seen in keys))


@pytest.mark.parametrize("name", RAW)
def test_the_forward_pass_multiplies_what_we_say(name: str) -> None:
    """Against torch's own counter, which counts masked keys too and sees attention and experts only where they are plain matmuls."""
    model, tokens = tiny_model(name), 4
    for module in model.modules():
        if hasattr(module, "implementation"):
            module.implementation = "loop"
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter, torch.no_grad():
        model(torch.randint(0, 97, (1, tokens)))
    assert counter.get_total_flops() == forward_flops(model.config, tokens, tokens)
