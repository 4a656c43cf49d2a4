"""The perplexity of general text is that of the model's own distribution, over text that is the same for every model."""

import math

import pytest
import torch

from spoutnik.checkpoint.hf import save_checkpoint
from spoutnik.engine.generator import Engine
from spoutnik.errors import UserError
from spoutnik.evaluate.evaluate import run_eval
from spoutnik.evaluate.perplexity import WINDOW, perplexity, windows
from spoutnik.recipe.schema import EvalStage
from spoutnik.run.record import read
from spoutnik.run.report import render
from spoutnik.run.summary import summarise

TEXT = "The station turned above the plains.\n\nNobody had slept, and the instruments said so.\n\nIt was 4 October."


@pytest.fixture
def source(tmp_path):
    (tmp_path / "text.txt").write_text(TEXT, encoding="utf-8")
    return str(tmp_path / "text.txt")


def test_it_is_what_the_modules_say_of_the_same_tokens(model, tokenizer, source):
    found = perplexity(Engine(model, tokenizer), source, 1000)
    ids = torch.tensor([tokenizer.encode(TEXT)])
    with torch.inference_mode():
        logprobs = model.head(model.hidden(ids[:, :-1]))[0].log_softmax(-1).gather(1, ids[0, 1:, None])
    assert found["tokens"] == ids.shape[1] - 1
    assert found["nats_per_token"] == pytest.approx(-logprobs.mean().item(), abs=1e-4)
    assert found["perplexity"] == pytest.approx(math.exp(found["nats_per_token"]))
    first = tokenizer.decode(ids[0, :1].tolist())
    assert found["bytes"] == len(TEXT.encode()) - len(first.encode())
    assert found["nats_per_byte"] == pytest.approx(found["nats_per_token"] * found["tokens"] / found["bytes"])


def test_a_context_shorter_than_a_window_is_kept(model, tokenizer, source):
    model.config = model.config.with_(max_position_embeddings=16)
    found = perplexity(Engine(model, tokenizer), source, 1000)
    count = len(tokenizer.encode(TEXT))
    assert found["windows"] == -(-count // 16)
    assert found["tokens"] == count - found["windows"]


def test_windows_are_whole_paragraphs_up_to_the_characters_asked_for():
    found = windows("builtin:english", 10_000)
    assert sum(map(len, found)) == 10_000
    assert all(len(window) <= WINDOW or "\n\n" not in window for window in found)
    assert windows("builtin:english", 5000)[:2] == found[:2]
    everything = windows("builtin:english", 10**9)
    assert "\n\n".join(everything).startswith("\n\n".join(found)[:9000])


def test_a_text_shorter_than_asked_for_is_read_once(source):
    assert windows(source, 10_000) == [TEXT]


def test_the_stage_measures_every_model_on_every_text_and_goes_on_where_it_was_stopped(
    model, tokenizer, context, tmp_path, source, monkeypatch
):
    models = [str(tmp_path / name) for name in ("model", "other")]
    for path in models:
        save_checkpoint(model, tokenizer, path)
    task = {"name": "countdown", "numbers": [2], "high": 9, "problems": 2}
    settings = {"name": "stage", "models": models, "tasks": [task], "max_new_tokens": 4, "text_characters": 500}
    stage = EvalStage.model_validate({**settings, "texts": [source]})
    calls = []

    def stops_at_the_second(*arguments):
        calls.append(arguments[1])
        if len(calls) == 2:
            raise KeyboardInterrupt
        return perplexity(*arguments)

    monkeypatch.setattr("spoutnik.evaluate.texts.perplexity", stops_at_the_second)
    with pytest.raises(KeyboardInterrupt):
        run_eval(stage, context)
    run_eval(stage, context)
    assert len(calls) == 3, "the first was not measured again"
    events = read(context.record.path)
    measured = [event for event in events if event["event"] == "perplexity"]
    assert [event["model"] for event in measured] == models
    assert measured[0]["nats_per_token"] == measured[1]["nats_per_token"]
    last = summarise(events)["perplexities"][-1]
    assert last["text"] == source
    page = render(events)
    assert "General text" in page
    assert f"{last['perplexity']:.2f}" in page


def test_a_text_that_is_nowhere_is_refused(model, tokenizer):
    with pytest.raises(UserError, match="neither 'builtin:english' nor a text file"):
        windows("/nowhere/text.txt", 10)
