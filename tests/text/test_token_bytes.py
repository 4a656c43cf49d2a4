"""A token's bytes are those that it has in a text, also where it is a part of a character."""

import pytest
import tokenizers
from tokenizers import decoders, models

from spoutnik.text.token_bytes import TokenBytes
from spoutnik.text.tokenizer import Tokenizer, train_bpe

TEXT = "one é 漢 🛰 two\n<think>x</think>"


def test_a_byte_level_tokenizers_bytes_join_to_the_text():
    tokenizer = train_bpe(["one two three"], vocab_size=300)
    known = TokenBytes(tokenizer)
    assert b"".join(map(known.of, tokenizer.encode(TEXT))).decode() == TEXT
    assert known.of(10**6) == known.of(-1) == b""


@pytest.mark.parametrize(("token", "raw"), [("\u2581one", b" one"), ("<0xE6>", b"\xe6"), ("é", "é".encode())])
def test_sentencepiece_tokens_are_bytes_or_text_with_spaces(token, raw):
    backend = tokenizers.Tokenizer(models.BPE({"\u2581one": 0, "<0xE6>": 1, "é": 2}, [], byte_fallback=True))
    backend.decoder = decoders.Sequence([decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse()])
    assert TokenBytes(Tokenizer(backend)).of(backend.token_to_id(token)) == raw
