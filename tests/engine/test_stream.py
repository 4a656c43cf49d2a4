"""An answer in pieces is the answer, and an engine whose stream was left is free for the next."""

import pytest
from scripted import scripted_model

from spoutnik.engine.generator import Engine
from spoutnik.engine.request import Request
from spoutnik.engine.stream import Reader, plain, stream
from spoutnik.text.tokenizer import train_bpe

TEXT = "one two three four five"


@pytest.fixture(scope="module")
def tokenizer():
    return train_bpe([TEXT * 20], vocab_size=320)


@pytest.fixture
def engine(tokenizer):
    return Engine(scripted_model(tokenizer, f"one two</think> three é{TEXT[9:]}"), tokenizer)


def request(engine, **settings):
    return Request(engine.tokenizer.encode("say\n"), **settings)


def test_pieces_join_to_the_completion_with_the_thinking_apart(engine):
    pieces = list(stream(engine, request(engine), Reader(thinking=True).read))
    completion = pieces[-1].completion
    assert [piece.completion for piece in pieces[:-1]] == [None] * len(completion.token_ids)
    assert "".join(piece.reasoning for piece in pieces) == completion.reasoning == "one two"
    assert "".join(piece.text for piece in pieces) == completion.text == f" three é{TEXT[9:]}"
    assert sum(bool(piece.text) for piece in pieces) > 2
    assert completion.finish_reason == "stop"


def test_plain_pieces_keep_think_tags_as_text_and_are_what_generate_gives(engine):
    asked = request(engine, temperature=0.0)
    pieces = list(stream(engine, asked, plain))
    assert pieces[-1].completion == engine.generate([asked])[0]
    assert "".join(piece.text for piece in pieces) == f"one two</think> three é{TEXT[9:]}"


def test_leaving_the_loop_ends_the_answer_and_frees_the_engine(engine):
    engine.model.train()
    for piece in stream(engine, request(engine), plain):
        assert piece.completion is None
        break
    assert not engine.busy
    assert engine.model.training
    assert engine.generate([request(engine)])[0].text.startswith("one two")


def test_a_cancelled_answer_tells_what_was_made_until_then(engine):
    seen = []
    for piece in stream(engine, request(engine), plain, cancelled=lambda: len(seen) == 2):
        seen.append(piece)
    completion = seen[-1].completion
    assert (len(completion.token_ids), completion.finish_reason) == (2, "cancelled")
    assert "".join(piece.text for piece in seen) == completion.text == "one two"


def test_one_answer_is_streamed_at_a_time(engine):
    first = stream(engine, request(engine), plain)
    next(first)
    with pytest.raises(RuntimeError, match="idle engine"):
        next(stream(engine, request(engine), plain))
    first.close()
    assert not engine.busy
