"""The held-out loss: the main head's cross-entropy on the tokens set aside, and nothing else."""

import math

import pytest
import torch

from spoutnik.data.corpus import held_out_name, open_corpus, run_corpus
from spoutnik.data.tokens import TokenFile
from spoutnik.model.init import initialise
from spoutnik.model.moe import Routing
from spoutnik.model.transformer import CausalLM
from spoutnik.recipe.schema import CorpusStage, PretrainStage
from spoutnik.run.record import read
from spoutnik.train.held_out import held_out
from spoutnik.train.pretrain import run_pretrain

PUZZLES = {"task": {"name": "countdown", "numbers": [2], "high": 5}}


def write_corpus(context, **settings):
    sources = [PUZZLES, {"text": "builtin:english"}]
    run_corpus(CorpusStage.model_validate({"name": "stage", "sources": sources, "tokens": 3000, "vocab_size": 300, **settings}), context)
    return context.directory


def test_it_is_the_mean_cross_entropy_of_whole_rows_written_out(context, config):
    corpus = write_corpus(context, held_out_tokens=1500)
    model = CausalLM(config.with_(vocab_size=300))
    initialise(model, seed=1)
    figures = held_out(model, corpus, 100)
    assert [source["source"] for source in figures["sources"]] == ["countdown", "builtin:english"]
    counts_E = torch.zeros(8)
    for index, source in enumerate(figures["sources"]):
        tokens, losses, routing = TokenFile(corpus / held_out_name(index), 300), [], Routing()
        rows = tokens.batch(0, len(tokens) // 100, 100)
        logprobs = model.head(model.hidden(rows, routing=routing)).log_softmax(-1).detach()
        for row in range(len(rows)):
            losses += [-float(logprobs[row, place, rows[row, place + 1]]) for place in range(99)]
        assert source["tokens"] == len(losses)
        assert source["nats_per_token"] == pytest.approx(sum(losses) / len(losses), abs=1e-4)
        counts_E += torch.bincount(routing.experts_TK[0].flatten(), minlength=8)
    assert figures["max_violation"] == pytest.approx(float(counts_E.max() / counts_E.mean()) - 1)
    assert figures["dead_experts"] == int((counts_E < 0.1 * counts_E.mean()).sum())


def test_even_odds_cost_the_logarithm_of_the_vocabulary(context, config):
    corpus = write_corpus(context, held_out_tokens=1500)
    model = CausalLM(config.with_(vocab_size=300))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    source = held_out(model, corpus, 64)["sources"][1]
    assert source["nats_per_token"] == pytest.approx(math.log(300), abs=1e-5)
    bits = math.log2(300) * len(TokenFile(corpus / held_out_name(1), 300))
    _, tokenizer = open_corpus(corpus)
    file = TokenFile(corpus / held_out_name(1), 300)
    text = tokenizer.decode(file.batch(0, 1, len(file))[0].tolist()).replace(tokenizer.special_tokens["eos_token"], "")
    assert source["bits_per_byte"] == pytest.approx(bits / len(text.encode()), rel=1e-4)


@pytest.mark.parametrize("asked", [0, 1500])
def test_pretraining_reports_it_once_where_the_corpus_has_tokens_for_it(context, asked):
    corpus = write_corpus(context, held_out_tokens=asked)
    settings = {"steps": 2, "batch_tokens": 128, "sequence_length": 32, "model": {"family": "deepseek_v3", "depth": 2}}
    for _ in range(2):  # the second call finds the finished state, as after a kill between the last step and the end
        run_pretrain(PretrainStage.model_validate({"name": "stage", "data": str(corpus), **settings}), context)
    events = [event for event in read(context.record.path) if event["event"] == "held-out"]
    assert len(events) == (2 if asked else 0)
