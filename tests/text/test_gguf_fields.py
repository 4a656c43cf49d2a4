import json
import logging
from typing import Any

import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers

from spoutnik.errors import UserError
from spoutnik.text.gguf_fields import SAMPLE, to_gguf_fields
from spoutnik.text.gguf_tokenizer import LLAMA3, QWEN2, from_gguf_fields
from spoutnik.text.tokenizer import Tokenizer, train_bpe

LEARNT = ["In 1984 and 2024 some words, isn't it?  again and again: x = 12345 + 67\n"] * 9


@pytest.fixture(scope="module")
def original() -> Tokenizer:
    return train_bpe(LEARNT, vocab_size=330)


@settings(deadline=None)
@given(text=st.text())
def test_a_tokenizer_of_ours_comes_back_from_its_fields_with_the_same_ids(original: Tokenizer, text: str) -> None:
    again = from_gguf_fields(to_gguf_fields(original, original.vocab_size))
    for piece in (text, f"{text}<think>{text}<｜User｜>"):  # noqa: RUF001
        ids = original.encode(piece, add_special_tokens=True)
        assert again.encode(piece, add_special_tokens=True) == ids
        assert again.decode(ids, skip_special_tokens=True) == original.decode(ids, skip_special_tokens=True)
    assert (again.special_tokens, again.eos_token_ids) == (original.special_tokens, original.eos_token_ids)
    assert again.chat_template == original.chat_template


def test_fields_are_those_of_a_converted_file(original: Tokenizer) -> None:
    fields = to_gguf_fields(original, original.vocab_size)
    tokens, types = fields["tokenizer.ggml.tokens"], fields["tokenizer.ggml.token_type"]
    assert fields["tokenizer.ggml.model"] == "gpt2"
    assert fields["tokenizer.ggml.pre"] == "deepseek-v3"
    assert fields["tokenizer.ggml.add_bos_token"] is True
    assert [fields[f"tokenizer.ggml.{name}_token_id"] for name in ("bos", "eos", "padding")] == [0, 1, 2]
    assert "tokenizer.ggml.eot_token_id" not in fields
    assert len(tokens) == len(types) == len(set(tokens)) == original.vocab_size
    assert [types[tokens.index(token)] for token in ("<｜User｜>", "<think>", "Ġand")] == [3, 4, 1]  # noqa: RUF001
    assert all(left + right in tokens for left, right in (merge.split(" ") for merge in fields["tokenizer.ggml.merges"]))


def test_smollm2_gives_the_fields_of_its_own_file() -> None:
    from spoutnik.checkpoint.find import find
    from spoutnik.checkpoint.gguf import GGUF

    metadata = GGUF(find("smollm2")).metadata
    fields = to_gguf_fields(from_gguf_fields(metadata), len(metadata["tokenizer.ggml.tokens"]))
    assert {key: metadata.get(key) for key in fields} == fields


def test_embeddings_without_a_token_get_unused_ones_that_no_text_ever_becomes(original: Tokenizer) -> None:
    fields = to_gguf_fields(original, original.vocab_size + 3)
    assert fields["tokenizer.ggml.tokens"][-1] == f"[PAD{original.vocab_size + 2}]"
    assert fields["tokenizer.ggml.token_type"][-3:] == [5, 5, 5]
    again = from_gguf_fields(fields)
    assert again.vocab_size == original.vocab_size
    text = f"[PAD{original.vocab_size}]"
    assert again.encode(text) == original.encode(text)


def test_every_token_that_ends_a_turn_comes_along_as_far_as_there_is_room(original: Tokenizer, caplog: pytest.LogCaptureFixture) -> None:
    for more, expected in (([7], {1, 7}), ([7, 9], {1, 7, 9}), ([7, 9, 11], {1, 7, 9})):
        tokenizer = Tokenizer(original.backend, bos_token=None, eos_token=original.special_tokens["eos_token"], more_eos_ids=more)
        again = from_gguf_fields(to_gguf_fields(tokenizer, original.vocab_size))
        assert again.eos_token_ids == expected
    assert "[11] will not end one" in caplog.text


def bytes_bpe(pre_tokenizer: Any, **model: Any) -> Tokenizer:
    """A tokenizer with a few merges over all bytes."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges = [("1", "2"), ("12", "3"), ("e", "d"), ("Ġ", "a")]
    vocabulary = {token: index for index, token in enumerate([*alphabet, *("".join(pair) for pair in merges)])}
    backend = tokenizers.Tokenizer(models.BPE(vocab=vocabulary, merges=merges, **model))
    backend.pre_tokenizer, backend.decoder = pre_tokenizer, decoders.ByteLevel()
    return Tokenizer(backend)


def splits(pattern: str, **byte_level: Any) -> Any:
    cut = pre_tokenizers.Split(Regex(pattern), "isolated")
    return pre_tokenizers.Sequence([cut, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False, **byte_level)])


@pytest.mark.parametrize(
    ("pre_tokenizer", "model", "name"),
    [
        (pre_tokenizers.ByteLevel(add_prefix_space=False), {}, "gpt-2"),
        (pre_tokenizers.ByteLevel(add_prefix_space=False, trim_offsets=False), {}, "gpt-2"),
        (splits(QWEN2), {}, "qwen2"),
        (splits(QWEN2.replace(r"\r", "\r").replace(r"\n", "\n"), trim_offsets=False), {}, "qwen2"),
        (splits(LLAMA3), {"ignore_merges": True}, "llama-bpe"),
    ],
)
def test_a_known_way_of_cutting_is_named_without_a_warning(
    pre_tokenizer: Any, model: dict[str, Any], name: str, caplog: pytest.LogCaptureFixture
) -> None:
    assert to_gguf_fields(bytes_bpe(pre_tokenizer, **model), 300)["tokenizer.ggml.pre"] == name
    assert not caplog.records


@pytest.mark.parametrize(
    ("pre_tokenizer", "model"),
    [
        (pre_tokenizers.ByteLevel(add_prefix_space=True), {}),
        (splits(r"\w+|\W"), {}),
        (splits(LLAMA3), {}),  # without whole words first, which llama.cpp takes for granted under that name
    ],
)
def test_an_unknown_way_of_cutting_gets_the_nearest_name_and_a_warning(
    pre_tokenizer: Any, model: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        tokenizer = bytes_bpe(pre_tokenizer, **model)
        again = from_gguf_fields(to_gguf_fields(tokenizer, 300))
    assert "other token ids" in caplog.text
    assert len(set(again.encode(SAMPLE)) & set(tokenizer.encode(SAMPLE))) > 0.9 * len(set(tokenizer.encode(SAMPLE)))


def test_a_tokenizer_that_changes_text_first_is_warned_of_unless_it_only_composes(caplog: pytest.LogCaptureFixture) -> None:
    for normalizer, warned in ((normalizers.NFC(), False), (normalizers.Lowercase(), True)):
        caplog.clear()
        tokenizer = bytes_bpe(splits(QWEN2))
        tokenizer.backend.normalizer = normalizer
        to_gguf_fields(tokenizer, 300)
        assert bool(caplog.records) == warned


@settings(deadline=None)
@given(text=st.text(st.characters(max_codepoint=0x7F)) | st.text())
def test_single_digits_need_no_pre_tokenizer_of_their_own_where_nothing_joins_numerals(text: str) -> None:
    """Groups of three hold no merge then, so a group is cut into its digits all the same."""
    tokenizer = train_bpe(LEARNT, vocab_size=330, digits=1)
    fields = to_gguf_fields(tokenizer, tokenizer.vocab_size)
    assert fields["tokenizer.ggml.pre"] == "deepseek-v3"
    assert from_gguf_fields(fields).encode(text) == tokenizer.encode(text)


def test_where_numerals_could_join_the_file_says_the_nearest(caplog: pytest.LogCaptureFixture) -> None:
    pairs = train_bpe(LEARNT, vocab_size=330, digits=2)
    to_gguf_fields(pairs, pairs.vocab_size)
    assert len(caplog.records) == 1
    beyond_ascii = train_bpe(["猫の手 12"] * 9, vocab_size=330, digits=1)  # its merges join characters, and numerals may be such
    to_gguf_fields(beyond_ascii, beyond_ascii.vocab_size)
    assert len(caplog.records) == 2
    assert from_gguf_fields(to_gguf_fields(beyond_ascii, 330)).encode("12345") == beyond_ascii.encode("12345")


@pytest.mark.parametrize(
    "backend",
    [
        tokenizers.Tokenizer(models.WordLevel({"a": 0}, unk_token="a")),
        tokenizers.Tokenizer(models.BPE(vocab={"a": 0}, merges=[], byte_fallback=True)),
        tokenizers.Tokenizer(models.BPE(vocab={"a": 0}, merges=[])),
    ],
    ids=["words", "byte fallback", "characters"],
)
def test_other_kinds_of_tokenizers_are_refused(backend: tokenizers.Tokenizer) -> None:
    with pytest.raises(UserError, match="no byte-level BPE"):
        to_gguf_fields(Tokenizer(backend), 1)


def test_added_tokens_beyond_the_vocabulary_come_along(original: Tokenizer) -> None:
    backend = tokenizers.Tokenizer.from_str(original.backend.to_str())
    backend.add_tokens([AddedToken("<|new|>", special=True)])
    assert json.loads(backend.to_str())["added_tokens"][-1]["id"] == original.vocab_size
    again = from_gguf_fields(to_gguf_fields(Tokenizer(backend), original.vocab_size + 1))
    assert again.encode("x<|new|>") == [*original.encode("x"), original.vocab_size]
