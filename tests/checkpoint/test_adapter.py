"""What is read of an adapter's folder is what PEFT means by it; all else is refused in one sentence."""

import json
import math
import re

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file
from tiny_adapters import CONFIG, matrices, write_adapter
from tiny_models import tiny_model

from spoutnik.checkpoint.adapter import read_adapter
from spoutnik.errors import UserError

MODEL = tiny_model("llama-3")
TENSORS = matrices(MODEL)
Q0, K0 = "model.layers.0.self_attn.q_proj", "model.layers.0.self_attn.k_proj"
A, B = (f"base_model.model.{Q0}.lora_{letter}.weight" for letter in "AB")


def scales(folder, **changes):
    adapter = read_adapter(write_adapter(folder, TENSORS, **changes), MODEL)
    return {name: change.scale for name, change in adapter.modules.items()}


def test_every_module_in_the_file_has_its_matrices_and_alpha_over_rank(tmp_path):
    adapter = read_adapter(write_adapter(tmp_path, TENSORS), MODEL)
    assert len(adapter.modules) == 7 * 3
    assert torch.equal(adapter.modules[Q0].down, TENSORS[A])
    assert torch.equal(adapter.modules[Q0].up, TENSORS[B])
    assert {change.scale for change in adapter.modules.values()} == {2.0}


def test_rslora_divides_by_the_root_of_the_rank(tmp_path):
    assert {*scales(tmp_path, use_rslora=True).values()} == {6 / math.sqrt(3)}


def test_patterns_name_modules_by_their_ends_or_as_a_whole_and_the_first_that_does_counts(tmp_path):
    found = scales(tmp_path, alpha_pattern={f"^{Q0}": 9, "q_proj": 3, "layers.0.self_attn.k_proj": 12})
    assert (found[Q0], found[Q0.replace("0", "1")], found[K0], found[K0.replace("0", "1")]) == (3, 1, 4, 2)


def test_a_rank_of_its_own_is_in_the_scale(tmp_path):
    tensors = TENSORS | matrices(MODEL, lambda name: name.endswith("q_proj"), rank=5)
    adapter = read_adapter(write_adapter(tmp_path, tensors, rank_pattern={"q_proj": 5}), MODEL)
    assert (adapter.modules[Q0].scale, adapter.modules[K0].scale) == (6 / 5, 2)


@pytest.mark.parametrize(("stored", "kept"), [("float32", "float32"), ("bfloat16", "bfloat16"), ("float16", "float32")])
def test_matrices_stay_as_they_are_stored_but_for_float16(stored, kept, tmp_path):
    tensors = {name: tensor.to(getattr(torch, stored)) for name, tensor in TENSORS.items()}
    change = read_adapter(write_adapter(tmp_path, tensors), MODEL).modules[Q0]
    assert change.down.dtype == change.up.dtype == getattr(torch, kept)
    assert torch.equal(change.down.to(tensors[A].dtype), tensors[A])


def test_the_fingerprint_is_that_of_the_content_and_not_of_the_folder(tmp_path):
    def fingerprint(folder, tensors=TENSORS, **changes):
        return read_adapter(write_adapter(tmp_path / folder, tensors, **changes), MODEL).fingerprint

    first = fingerprint("first")
    assert fingerprint("copy", lora_dropout=0.5) == first
    changed = TENSORS[B].clone()
    changed[-1, -1] += 1e-3
    moved = {name.replace("layers.0.", "layers.1."): tensor for name, tensor in TENSORS.items() if "layers.1." not in name}
    others = [
        fingerprint("value", TENSORS | {B: changed}),
        fingerprint("scale", lora_alpha=7),
        fingerprint("fewer", {name: tensor for name, tensor in TENSORS.items() if "q_proj" not in name}),
        fingerprint("dtype", {name: tensor.bfloat16() for name, tensor in TENSORS.items()}),
        fingerprint("module", moved),
    ]
    assert len({first, *others}) == 6


EXTRA = {
    "the head": {
        "base_model.model.lm_head.lora_A.weight": torch.zeros(3, 48),
        "base_model.model.lm_head.lora_B.weight": torch.zeros(97, 3),
    },
    "an embedding": {"base_model.model.model.embed_tokens.lora_embedding_A": torch.zeros(3, 97)},
    "a whole module": {"base_model.model.model.norm.weight": torch.zeros(48)},
    "DoRA's magnitudes": {f"base_model.model.{Q0}.lora_magnitude_vector": torch.zeros(48)},
    "a bias": {f"base_model.model.{Q0}.lora_B.bias": torch.zeros(48)},
    "another architecture": {
        "base_model.model.h.0.c_attn.lora_A.weight": torch.zeros(3, 48),
        "base_model.model.h.0.c_attn.lora_B.weight": torch.zeros(48, 3),
    },
    "NaN": {A: TENSORS[A] * torch.nan},
    "another width": {A: torch.zeros(3, 64)},
    "another rank": {A: torch.zeros(4, 48), B: torch.zeros(48, 4)},
    "whole numbers": {A: torch.zeros(3, 48, dtype=torch.int8)},
}


@pytest.mark.parametrize("what", EXTRA)
def test_tensors_that_are_no_change_of_this_models_projections_are_refused(what, tmp_path):
    with pytest.raises(UserError, match="adapter_model") as caught:
        read_adapter(write_adapter(tmp_path, TENSORS | EXTRA[what]), MODEL)
    assert re.fullmatch(r"[^\n]+[.]", str(caught.value))


def test_the_layer_that_guesses_ahead_is_refused(tmp_path):
    """No trainer of adapters runs it: what it guesses for an adapter's tokens is the base's guess."""
    model = tiny_model("deepseek-v3")
    last, further = (f"layers.{model.config.num_hidden_layers - back}." for back in (1, 0))
    tensors = {
        name.replace(last, further): tensor for name, tensor in matrices(model, lambda name: last in name and "self_attn" in name).items()
    }
    with pytest.raises(UserError, match=further):
        read_adapter(write_adapter(tmp_path, tensors), model)


def test_routed_experts_are_refused_and_shared_ones_are_not(tmp_path):
    model = tiny_model("deepseek-v3")
    shared = matrices(model, lambda name: "shared_experts" in name)
    assert len(read_adapter(write_adapter(tmp_path / "shared", shared), model).modules) == 2 * 3
    expert = {name.replace("shared_experts", "experts.0"): tensor for name, tensor in shared.items()}
    with pytest.raises(UserError, match=r"experts\.0\.down_proj.*routed experts"):
        read_adapter(write_adapter(tmp_path / "expert", expert), model)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"peft_type": "LOHA"}, "'LOHA'; only LORA"),
        ({"use_dora": True}, "use_dora"),
        ({"bias": "all"}, "bias = 'all'"),
        ({"lora_bias": True}, "lora_bias"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save"),
        ({"trainable_token_indices": [1]}, "trainable_token_indices"),
        ({"layer_replication": [[0, 2], [1, 3]]}, "layer_replication"),
        ({"init_lora_weights": "pissa"}, "'pissa', which changes the base"),
        ({"invented_later": {"on": 1}}, "invented_later"),
        ({"r": 0}, "r = 0"),
        ({"lora_alpha": "16"}, "lora_alpha = '16'"),
        ({"lora_alpha": True}, "lora_alpha = True"),
        ({"rank_pattern": [3]}, "rank_pattern"),
        ({"alpha_pattern": {"q_proj": None}}, "q_proj = None"),
        ({"alpha_pattern": {".*q_proj": 3}}, r"pattern '\.\*q_proj'"),
        ({"alpha_pattern": {"(m+)+!": 3}}, "pattern"),
    ],
)
def test_a_configuration_that_says_more_than_we_do_is_refused(changes, message, tmp_path):
    with pytest.raises(UserError, match=message):
        read_adapter(write_adapter(tmp_path, TENSORS, **changes), MODEL)


def test_a_folder_without_its_files_is_refused_and_no_pickle_is_opened(tmp_path):
    with pytest.raises(UserError, match=r"no adapter_config\.json"):
        read_adapter(tmp_path, MODEL)
    write_adapter(tmp_path, {})
    with pytest.raises(UserError, match="no tensors"):
        read_adapter(tmp_path, MODEL)
    (tmp_path / "adapter_model.safetensors").rename(tmp_path / "adapter_model.bin")
    with pytest.raises(UserError, match="pickle file is never opened"):
        read_adapter(tmp_path, MODEL)
    save_file({A: TENSORS[A]}, tmp_path / "adapter_model.safetensors")
    with pytest.raises(UserError, match="needs A and B"):
        read_adapter(tmp_path, MODEL)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=5), inner, max_size=2),
    max_leaves=4,
)


@given(st.dictionaries(st.sampled_from([*CONFIG, "lora_bias", "else"]), JSON, max_size=3))
def test_whatever_a_configuration_holds_it_is_read_or_refused(tmp_path_factory, changes):
    folder = tmp_path_factory.getbasetemp() / "any adapter"
    if not folder.exists():
        write_adapter(folder, {A: TENSORS[A], B: TENSORS[B]})
    (folder / "adapter_config.json").write_text(json.dumps(CONFIG | changes))
    try:
        adapter = read_adapter(folder, MODEL)
    except UserError:
        return
    assert 0 < adapter.modules[Q0].scale < math.inf
