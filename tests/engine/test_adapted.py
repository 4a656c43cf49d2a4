"""On the torch modules each row has its own adapter, and outside a step the modules are as they were."""

import pytest
import torch
from tiny_adapters import matrices, merged, write_adapter
from tiny_models import randomise, tiny_model

from spoutnik.checkpoint.adapter import read_adapter
from spoutnik.engine.generator import Engine
from spoutnik.engine.request import Request
from spoutnik.engine.scoring import Given
from spoutnik.engine.torch_runner import TorchRunner
from spoutnik.errors import UserError
from spoutnik.text.tokenizer import train_bpe

TOKENIZER = train_bpe(["the cat sat on the mat and the dog ran, 1 2 3 four five. " * 20], vocab_size=320)
PROMPT, OTHER = TOKENIZER.encode("the cat sat on the mat"), TOKENIZER.encode("a dog")
NAMES = ("red", "", "blue")


def engine(model):
    return Engine(model, TOKENIZER, 8, None, TorchRunner(model, 8, 96))


@pytest.fixture(params=["llama-3", "deepseek-v3"])
def loaded(request, tmp_path):
    """An engine with two adapters, and the merged models by name."""
    model = tiny_model(request.param, vocab_size=TOKENIZER.vocab_size, max_position_embeddings=96)
    randomise(model, std=0.12)
    running, models = engine(model), {"": model}
    for seed, name in enumerate(["red", "blue"], 1):
        tensors = matrices(model, lambda module: "kv_b_proj" not in module, seed=seed)
        adapter = read_adapter(write_adapter(tmp_path / name, tensors), model)
        running.add_adapter(name, adapter)
        models[name] = merged(model, adapter)
    return running, models


def test_rows_of_one_batch_are_answered_as_by_merged_weights(loaded):
    running, models = loaded
    requests = [Request(prompt, 8, temperature=0, adapter=name) for name in NAMES for prompt in (PROMPT, OTHER, PROMPT)]
    for request, made in zip(requests, running.generate(requests), strict=True):
        (expected,) = engine(models[request.adapter]).generate([Request(request.prompt_ids, 8, temperature=0)])
        assert made.token_ids == expected.token_ids
        assert made.logprobs == pytest.approx(expected.logprobs, abs=1e-4)


def test_given_tokens_are_scored_with_their_adapter(loaded):
    running, models = loaded
    scored = running.score([Given([*PROMPT, *OTHER], 3, adapter=name) for name in NAMES])
    for name, logprobs in zip(NAMES, scored, strict=True):
        assert logprobs == pytest.approx(engine(models[name]).score([Given([*PROMPT, *OTHER], 3)])[0], abs=1e-4)


def test_between_steps_the_modules_are_the_base_model(loaded):
    running, models = loaded
    with torch.no_grad():
        before = models[""](torch.tensor([PROMPT]))
        running.add(Request(PROMPT, 8, adapter="red"))
        running.step()
        assert torch.equal(models[""](torch.tensor([PROMPT])), before)
    running.reset()
    running.remove_adapter("red")
    with pytest.raises(UserError, match="no adapter 'red'"):
        running.add(Request(PROMPT, 8, adapter="red"))


def test_what_the_modules_fold_away_is_refused(tmp_path):
    model = tiny_model("deepseek-v3", vocab_size=TOKENIZER.vocab_size)
    adapter = read_adapter(write_adapter(tmp_path, matrices(model)), model)
    running = engine(model)
    with pytest.raises(UserError, match=r"kv_b_proj.*only the C\+\+ kernels"):
        running.add_adapter("red", adapter)
    with pytest.raises(UserError, match="no adapter 'red'"):
        running.add(Request(PROMPT, 8, adapter="red"))
