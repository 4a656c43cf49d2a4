"""Shared by tests of stages: a stage's context, a small tokenizer, a V3 model that trains in milliseconds, and a server to ask."""

import random
from pathlib import Path

import pytest
import torch
from http_server import Server
from hypothesis import HealthCheck, settings

from spoutnik.model.config import ModelConfig
from spoutnik.model.depth import depth_config
from spoutnik.model.init import initialise
from spoutnik.model.transformer import CausalLM
from spoutnik.recipe import Price
from spoutnik.run.context import StageContext
from spoutnik.run.ledger import Ledger
from spoutnik.run.record import Record
from spoutnik.tasks import make
from spoutnik.text.tokenizer import Tokenizer, train_bpe

settings.register_profile("spoutnik", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("spoutnik")  # a busy machine is no failure

TINY = {
    "hidden_size": 32, "intermediate_size": 48, "q_lora_rank": 16, "kv_lora_rank": 8, "qk_nope_head_dim": 8, "qk_rope_head_dim": 8,
    "v_head_dim": 8, "moe_intermediate_size": 16, "max_position_embeddings": 256,
}  # fmt: skip


@pytest.fixture
def context(tmp_path):
    """The context of a stage `stage` in an empty run folder; names resolve to paths as they are."""
    folder = tmp_path / "stages" / "stage"
    folder.mkdir(parents=True)
    record, ledger = Record(tmp_path / "record.jsonl"), Ledger(folder / "ledger.json", Price())
    return StageContext("stage", folder, tmp_path / "checkpoints" / "stage", Path, record, ledger, seed=5, save_every_steps=1000)


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    task = make("countdown", numbers=[2], high=9)
    problems = [task.problem("train", 0, index) for index in range(60)]
    return train_bpe([problem.prompt + task.trace(problem, random.Random(problem.index)) for problem in problems], 300, digits=1)


@pytest.fixture
def config(tokenizer) -> ModelConfig:
    """Two layers, the second of experts, and a multi-token prediction layer."""
    return depth_config("deepseek_v3", 2, tokenizer.vocab_size).with_(**TINY, eos_token_id=tokenizer.eos_token_id)


@pytest.fixture
def model(config) -> CausalLM:
    model = CausalLM(config)
    initialise(model, seed=1)
    return model


@pytest.fixture(autouse=True, scope="session")
def _one_thread():
    """Tiny models are slower on several threads, and equal work shall give equal bits."""
    torch.set_num_threads(1)


@pytest.fixture
def server():
    """A server on loopback that speaks the teachers' dialects."""
    made = Server()
    yield made
    made.close()
