import math

import pytest
import torch

from spoutnik.evaluate.fidelity import LENGTH, MOST_TEXTS, QUESTIONS, Passage, compare, own_passages, passages_of
from spoutnik.evaluate.statistics import wilson
from spoutnik.model.init import initialise
from spoutnik.model.transformer import CausalLM
from spoutnik.text.tokenizer import Tokenizer


@pytest.fixture
def other(config):
    model = CausalLM(config)
    initialise(model, seed=2)
    return model


def test_a_model_keeps_everything_of_itself(model):
    found = compare(model, model, [Passage([0, 5, 6, 7]), Passage([0, 9, 8, 7, 6], start=3)])
    assert (found.tokens, found.greedy, found.kl) == (5, 1.0, 0.0)
    assert found.perplexity_original == found.perplexity_changed
    assert (found.low, found.high) == wilson(5, 5)


def test_figures_are_those_of_the_definitions(model, other, monkeypatch):
    """Token by token and without batches; the head's rows are cut so small that their sums matter."""
    monkeypatch.setattr("spoutnik.evaluate.fidelity.HEAD_ROWS", 2)
    passages = [Passage([0, 5, 6, 7, 8, 9]), Passage([0, 9, 8, 7], start=2)]
    same, kl, surprise, count = 0, 0.0, [0.0, 0.0], 0
    for passage in passages:
        for place in range(passage.start, len(passage.ids)):
            with torch.no_grad():
                p, q = (net(torch.tensor([passage.ids[:place]]))[0, -1].softmax(-1).double() for net in (model, other))
            same += int(p.argmax() == q.argmax())
            kl += float((p * (p / q).log()).sum())
            surprise = [so_far - math.log(dist[passage.ids[place]]) for so_far, dist in zip(surprise, (p, q), strict=True)]
            count += 1
    found = compare(model, other, passages)
    assert (found.tokens, found.greedy) == (count, same / count)
    assert found.kl == pytest.approx(kl / count, rel=1e-3)
    assert [found.perplexity_original, found.perplexity_changed] == pytest.approx([math.exp(each / count) for each in surprise], rel=1e-4)


def test_a_chat_model_answers_questions_and_only_its_answers_count(model, tokenizer):
    passages = own_passages(model, tokenizer)
    assert len(passages) == len(QUESTIONS)
    for passage, question in zip(passages, QUESTIONS, strict=True):
        prompt = tokenizer.encode(tokenizer.render([{"role": "user", "content": question}]))
        assert passage.ids[: passage.start] == prompt
        assert 0 < len(passage.ids) - passage.start <= LENGTH
    assert own_passages(model, tokenizer) == passages
    assert own_passages(model, tokenizer, seed=1) != passages


def test_a_model_without_a_chat_template_writes_from_the_beginning_token(model, tokenizer):
    plain = Tokenizer(tokenizer.backend, bos_token=tokenizer.special_tokens["bos_token"])
    passages = own_passages(model, plain)
    assert {tuple(passage.ids[: passage.start]) for passage in passages} == {(tokenizer.bos_token_id,)}
    assert len({tuple(passage.ids) for passage in passages}) > 1
    assert all(passage.ids[: passage.start] for passage in own_passages(model, Tokenizer(tokenizer.backend)))


def test_a_given_text_is_cut_into_stretches_that_fit(model, tokenizer):
    text = "12 + 7 = 19, so " * 3000
    passages = passages_of(text, model, tokenizer)
    assert len(passages) == MOST_TEXTS
    assert [token for passage in passages for token in passage.ids] == tokenizer.encode(text)[: MOST_TEXTS * LENGTH]
    assert passages_of("", model, tokenizer) == []
