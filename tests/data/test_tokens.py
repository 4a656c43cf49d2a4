"""Token files: what was written is read, in order, by a position that is a plain number."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from spoutnik.data.tokens import TokenFile, write_tokens
from spoutnik.errors import UserError


def token_file(path, count, vocab_size=60_000):
    write_tokens(path / "tokens.bin", [[token] for token in range(count)], vocab_size)
    return TokenFile(path / "tokens.bin", vocab_size)


@pytest.mark.parametrize(("vocab_size", "largest", "width"), [(2**16, 2**16 - 1, 2), (2**16 + 1, 2**16, 4)])
def test_ids_are_as_wide_as_the_vocabulary_needs(tmp_path, vocab_size, largest, width):
    path = tmp_path / "tokens.bin"
    assert write_tokens(path, [[0, largest], [7]], vocab_size) == 3
    assert path.stat().st_size == 3 * width
    assert TokenFile(path, vocab_size).batch(0, 1, 3).tolist() == [[0, largest, 7]]
    assert not list(tmp_path.glob("*.new"))


@given(count=st.integers(6, 80), rows=st.integers(1, 3), length=st.integers(2, 6), epoch=st.integers(0, 4))
def test_an_epoch_reads_every_token_once_but_for_less_than_a_batch(tmp_path_factory, count, rows, length, epoch):
    size = rows * length
    if count < size:
        return
    tokens = token_file(tmp_path_factory.mktemp("tokens"), count)
    steps = count // size
    read = torch.cat([tokens.batch(epoch * steps + step, rows, length).flatten() for step in range(steps)])
    assert len(read) > count - size
    assert torch.equal(read, torch.arange(int(read[0]), int(read[0]) + len(read)))


def test_a_batch_is_a_pure_function_of_its_step(tmp_path):
    tokens = token_file(tmp_path, 100)
    later = tokens.batch(7, 2, 5)
    for step in range(7):
        tokens.batch(step, 2, 5)
    assert torch.equal(tokens.batch(7, 2, 5), later)
    assert later.dtype == torch.int64
    assert torch.equal(TokenFile(tmp_path / "tokens.bin", 60_000).batch(7, 2, 5), later)


def test_the_next_epoch_cuts_elsewhere(tmp_path):
    tokens = token_file(tmp_path, 105)
    assert tokens.batch(0, 2, 10)[0, 0] != tokens.batch(5, 2, 10)[0, 0]


def test_too_few_tokens_are_told_with_both_counts(tmp_path):
    with pytest.raises(UserError, match="has 9 tokens, but one batch takes 10"):
        token_file(tmp_path, 9).batch(0, 2, 5)


@pytest.mark.parametrize("content", [b"", b"\x01\x00\x02"])
def test_a_damaged_or_missing_file_is_told(tmp_path, content):
    (tmp_path / "tokens.bin").write_bytes(content)
    with pytest.raises(UserError, match="damaged"):
        TokenFile(tmp_path / "tokens.bin", 100)
    with pytest.raises(UserError, match="missing"):
        TokenFile(tmp_path / "absent.bin", 100)


def test_an_id_beyond_the_vocabularys_width_is_never_wrapped_around(tmp_path):
    with pytest.raises(OverflowError):
        write_tokens(tmp_path / "tokens.bin", [[2**16]], 100)
    assert not (tmp_path / "tokens.bin").exists()
