"""Sizes of published models against what their makers and our own counter say."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spoutnik.errors import UserError
from spoutnik.model import flops
from spoutnik.model.config import ModelConfig
from spoutnik.plan.chips import chip
from spoutnik.plan.components import counts, forward_at
from spoutnik.plan.families import EXPERTS, GATED, OTHER_NAMES, PLAIN, WHOLE
from spoutnik.plan.models import catalogue, from_hf, open_model, title_of, trained_as


@pytest.mark.parametrize("name", list(catalogue()))
def test_every_model_of_the_catalogue_opens_and_is_counted(name):
    model = open_model(name)
    found = counts(model)
    assert 0 < found.active_parameters <= found.parameters
    if isinstance(model, ModelConfig):
        assert (found.parameters, found.active_parameters) == flops.parameters(model)
        assert found.mtp_parameters == flops.mtp_parameters(model).total
        assert found.training(mtp=True) == pytest.approx(flops.training_flops(model, 1, found.sequence_length), rel=1e-12)
        assert forward_at(model, 3000) == pytest.approx(flops.forward_flops(model, 1, 3000), rel=1e-12)


PUBLISHED = {
    "deepseek-v3": 671.0, "deepseek-v2": 235.7, "deepseek-v2-lite": 15.71, "llama-1-65b": 65.29, "llama-2-7b": 6.738, "llama-2-70b": 68.98,
    "llama-3.1-8b": 8.03, "llama-3.1-70b": 70.55, "llama-3.1-405b": 405.9, "llama-3.2-1b": 1.236, "llama-3.2-3b": 3.213,
    "mistral-7b": 7.242, "mistral-large-2": 122.6, "mixtral-8x7b": 46.70, "qwen2.5-0.5b": 0.494, "qwen2.5-7b": 7.616, "qwen2.5-72b": 72.71,
    "qwen3-8b": 8.191, "qwen3-235b-a22b": 235.1, "smollm2-135m": 0.1345, "gpt-2-xl": 1.558, "gpt-3": 174.6, "bloom": 176.25,
    "palm-540b": 540.35, "pythia-12b": 11.85, "olmo-2-7b": 7.299, "smollm3-3b": 3.075,
}  # fmt: skip


@pytest.mark.parametrize("name", list(PUBLISHED))
def test_total_parameters_are_the_published_ones(name):
    assert counts(open_model(name)).parameters / 1e9 == pytest.approx(PUBLISHED[name], rel=1e-3)


def test_operations_a_token_are_deepseeks_own():
    v3 = counts(open_model("deepseek-v3"), 4096)
    assert v3.training() / 1e9 == pytest.approx(250.4, abs=0.1)
    assert v3.training(causal=False) / 1e9 == pytest.approx(281.2, abs=0.1)
    assert counts(open_model("deepseek-v2"), 4096).training() / 1e9 == pytest.approx(155.3, abs=0.1)


def test_components_are_those_that_a_hand_counts():
    v3 = counts(open_model("deepseek-v3"), 4096)
    attention = 7168 * 1536 + 1536 * 128 * 192 + 7168 * 576 + 512 * 128 * 256 + 128 * 128 * 7168
    assert v3.part("attention projections").parameters == 61 * attention == 61 * (187_107_328 - 1536 - 512)
    assert v3.part("routed experts").parameters == 58 * 256 * 44_040_192
    assert v3.part("routed experts").active_parameters == 58 * 8 * 44_040_192
    assert v3.part("router").parameters == 58 * 256 * 7168
    assert v3.part("attention core").forward_full == 61 * 2 * 4096 * 128 * (192 + 128)
    assert v3.part("head").forward == 2 * 129_280 * 7168
    assert v3.mtp_parameters / 1e9 == pytest.approx(11.6, abs=0.02)
    lite = counts(open_model("deepseek-v2-lite"))
    assert (lite.parameters / 1e9, lite.active_parameters / 1e9) == pytest.approx((15.71, 2.66), abs=0.01)


@pytest.mark.parametrize("name", ["llama-3.1-8b", "llama-3.1-405b", "mistral-large-2", "qwen2.5-72b"])
def test_a_dense_model_costs_what_the_usual_formula_says(name):
    """6 N + 12 L h s without the embedding, every key counted, as PaLM's appendix B and torchtitan have it."""
    model, length = open_model(name), 8192
    found = counts(model, length)
    assert found.training(causal=False) == 6 * found.multiplied_parameters + 12 * model.num_hidden_layers * model.hidden_size * length
    small = model.num_hidden_layers * 5 * model.hidden_size * 3
    assert found.parameters - model.vocab_size * model.hidden_size - found.multiplied_parameters < small


def test_the_installed_model_is_counted_as_its_file_holds_it():
    from spoutnik.checkpoint.find import find
    from spoutnik.checkpoint.gguf import GGUF

    file = GGUF(find("smollm2"))
    held = sum(tensor.shape[0] * (tensor.shape[1] if len(tensor.shape) > 1 else 1) for tensor in file.tensors.values())
    assert counts(open_model("smollm2")).parameters == held == 134_515_008


def test_a_config_json_a_folder_and_a_recipe_are_models(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(open_model("qwen2.5-0.5b").to_hf()))
    assert open_model(str(tmp_path)) == open_model(str(tmp_path / "config.json")) == open_model("qwen2.5-0.5b")
    assert open_model("sputnik:base").vocab_size == 512
    assert open_model("on-policy") == open_model("on-policy:base")


def test_flags_change_a_model_or_make_one():
    assert open_model("deepseek-v3", {"num_hidden_layers": 30, "vocab_size": None}).num_hidden_layers == 30
    sizes = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 128, "vocab_size": 100}
    layer = 4 * 64 * 64 + 3 * 64 * 128 + 2 * 64
    assert counts(open_model(None, sizes)).parameters == 2 * layer + 2 * 100 * 64 + 64
    assert open_model(None, sizes | {"kv_lora_rank": 32}).is_latent
    experts = {"n_routed_experts": 8, "num_experts_per_tok": 2, "moe_intermediate_size": 32}
    mixture = open_model(None, sizes | experts)
    assert counts(mixture).part("routed experts").active_parameters == 2 * 2 * 3 * 64 * 32
    assert open_model(None, sizes | experts | {"kv_lora_rank": 32}).n_routed_experts == 8


@pytest.mark.parametrize(
    ("name", "flags", "says"),
    [
        ("deepseek-v33", {}, "deepseek-v3"),
        ("sputnik:nothing", {}, "one of base"),
        ("hf:nobody/nothing", {}, "fetches nothing"),
        ("gpt-3", {"kv_lora": 3}, "kv_lora is no field"),
        (None, {"hidden_size": 64}, "--num-hidden-layers"),
        (None, {"hidden_size": -1, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 8, "vocab_size": 9}, "-1"),
        ("bloom", {"num_key_value_heads": 5}, "cannot share"),
        ("llama-3.1-8b", {"num_hidden_layers": 10**9}, "10,000 at most"),
        ("mixtral-8x7b", {"q_lora_rank": 7}, "q_lora_rank is no field of a mixtral model"),
    ],
)
def test_what_is_no_model_is_refused_in_a_sentence_that_helps(name, flags, says):
    with pytest.raises(UserError, match=says):
        open_model(name, flags)


def test_an_unknown_family_is_refused_with_those_that_are_known(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "mamba"}))
    with pytest.raises(UserError, match=r"knows .*deepseek_v3.*gpt2"):
        open_model(str(tmp_path))


def test_the_part_that_writes_is_taken_from_a_model_that_also_sees():
    inner = dict(catalogue()["llama-4-scout"].config)
    assert from_hf({"model_type": "llama4", "text_config": inner}) == open_model("llama-4-scout")
    with pytest.raises(UserError, match="interleave_moe_layer_step"):
        from_hf(inner | {"interleave_moe_layer_step": 2})


anything = st.one_of(
    st.none(), st.booleans(), st.integers(-5, 70000), st.floats(), st.text(max_size=3), st.lists(st.integers(), max_size=2)
)
numbers = st.integers(1, 70000)


@given(
    st.sampled_from(GATED + EXPERTS + PLAIN),
    st.dictionaries(st.sampled_from([*WHOLE, *OTHER_NAMES, "use_sliding_window", "text_config"]), st.one_of(numbers, anything)),
)
def test_a_configuration_gives_a_model_that_can_be_counted_or_a_sentence(family, values):
    try:
        model = from_hf({"model_type": family, **values})
    except UserError:
        return
    assert counts(model, 16).training() > 0


def test_a_model_is_planned_as_it_was_trained_where_the_chip_can():
    assert trained_as("deepseek-v3", chip("h800-sxm")) == {"precision": "fp8-kept", "batch_tokens": 15_360 * 4096}
    assert trained_as("deepseek-v3", chip("a100-sxm-80")) == {"batch_tokens": 15_360 * 4096}
    assert trained_as("llama-3.1-405b", chip("h800-sxm")) == trained_as(None, chip("h800-sxm")) == {}


def test_v3_by_its_sizes_costs_what_v3_costs():
    sizes = {
        "hidden_size": 7168, "num_hidden_layers": 61, "num_attention_heads": 128, "intermediate_size": 18432, "vocab_size": 129280,
        "kv_lora_rank": 512, "q_lora_rank": 1536, "n_routed_experts": 256, "n_shared_experts": 1, "num_experts_per_tok": 8,
        "moe_intermediate_size": 2048, "first_k_dense_replace": 3,
    }  # fmt: skip
    made, known = counts(open_model(None, sizes)), counts(open_model("deepseek-v3"))
    assert (made.parameters, made.training()) == (known.parameters, known.training())


def test_a_changed_model_says_so():
    assert title_of("deepseek-v3", {"hidden_size": 4096, "vocab_size": None}) == "DeepSeek-V3 (hidden_size 4096)"


def test_json_that_is_nested_without_end_is_no_model(tmp_path):
    path = tmp_path / "config.json"
    path.write_text("[" * 100_000, encoding="utf-8")
    with pytest.raises(UserError, match="is not JSON"):
        open_model(str(path))
