"""Tokenizers compared by content: which tokens they share, and where both cut a text."""

import json

import pytest
import tokenizers
from hypothesis import given
from hypothesis import strategies as st
from tiny_tokenizers import renumbered

from spoutnik.text.alignment import chunks, shared_tokens, token_bytes
from spoutnik.text.tokenizer import Tokenizer, train_bpe

OTHER = train_bpe(["several other words, 123 and 456, with other merges " * 5], 330, digits=3)
WORDS = train_bpe(["naïve café, 日本語 and 12345 words of text " * 5, "merge merged merging words text"], 340, digits=1)
TEXT = st.text(st.characters(codec="utf-8"), max_size=30) | st.text("abcdes wrt123é日\n", max_size=30)


def test_other_ids_of_the_same_tokens_are_found_by_content(tokenizer):
    other = renumbered(tokenizer)
    assert other.fingerprint() != tokenizer.fingerprint()
    shared = shared_tokens(tokenizer, other)
    assert sorted(shared.ours) == sorted(shared.theirs) == list(range(tokenizer.vocab_size))
    ids = dict(zip(shared.ours, shared.theirs, strict=True))
    text = "Make 12 from 3, 4.\n<think>é"
    assert [ids[token] for token in tokenizer.encode(text)] == other.encode(text) != tokenizer.encode(text)


def test_added_tokens_of_one_alone_are_not_shared_but_the_end_of_a_turn_is(tokenizer):
    other = renumbered(tokenizer, ["<|end|>", "<|tool|>"])
    other.special_tokens["eos_token"] = "<|end|>"
    other.eos_token_id = other.backend.token_to_id("<|end|>")
    shared = shared_tokens(tokenizer, other)
    ids = dict(zip(shared.ours, shared.theirs, strict=True))
    assert ids[tokenizer.eos_token_id] == other.eos_token_id
    assert other.backend.token_to_id("<|tool|>") not in shared.theirs
    assert len(shared.theirs) == len(set(shared.theirs))
    assert len(shared_tokens(other, tokenizer).ours) == len(shared.ours)


@pytest.mark.parametrize("key", ["merges", "pre_tokenizer", "normalizer"])
def test_what_may_cut_a_text_otherwise_shares_nothing(tokenizer, key):
    content = json.loads(tokenizer.backend.to_str())
    if key == "merges":
        content["model"]["merges"][:2] = content["model"]["merges"][1::-1]
    else:
        content[key] = (
            {"type": "NFC"}
            if key == "normalizer"
            else {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
        )
    other = Tokenizer(tokenizers.Tokenizer.from_str(json.dumps(content)), **tokenizer.special_tokens)
    assert shared_tokens(tokenizer, other) is None


@given(TEXT)
def test_the_bytes_of_a_texts_tokens_are_the_text(text):
    known = token_bytes(WORDS)
    assert b"".join(known[token] for token in WORDS.encode(text)) == text.encode()


def test_a_tokenizer_that_is_not_byte_level_has_no_bytes():
    backend = tokenizers.Tokenizer(tokenizers.models.WordLevel({"a": 0, "b": 1}, "a"))
    assert token_bytes(Tokenizer(backend)) is None


@given(TEXT)
def test_chunks_are_the_text_cut_where_both_cut_it_and_nowhere_less(text):
    ours, theirs = ([token_bytes(tokenizer)[token] for token in tokenizer.encode(text)] for tokenizer in (WORDS, OTHER))
    found = chunks(ours, theirs)
    for name, tokens in (("ours", ours), ("theirs", theirs)):
        spans = [getattr(chunk, name) for chunk in found]
        assert [place for span in spans for place in range(*span)] == list(range(len(tokens))), "each token is in one chunk, in order"
    for chunk in found:
        mine, other = ours[slice(*chunk.ours)], theirs[slice(*chunk.theirs)]
        assert b"".join(mine) == b"".join(other) != b""
        inside = [{len(b"".join(tokens[:count])) for count in range(1, len(tokens))} for tokens in (mine, other)]
        assert not inside[0] & inside[1], "it could have been cut"


def test_nothing_is_common_from_where_the_texts_differ():
    assert [chunk.ours for chunk in chunks([b"ab", b"c", b"d"], [b"a", b"b", b"c", b"x"])] == [(0, 1), (1, 2)]
    assert chunks([b"ab"], [b"a"]) == []
    assert chunks([], [b"a"]) == []
    assert [chunk.ours for chunk in chunks([b"a", b"", b"b"], [b"a", b"b"])] == [(0, 1), (1, 3)], "an id without text goes with the next"
