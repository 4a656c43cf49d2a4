"""Distributions on disk: what is kept is kept, what is left out has its mass, and a token takes 300 bytes or less."""

import json

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from spoutnik.errors import UserError
from spoutnik.teacher.stored import BYTES_A_TOKEN, LogitsWriter, StoredLogits, record_type
from spoutnik.train.examples import collate


def distributions(lengths, vocab_size, spread=3.0, seed=0):
    """(ids, where the answer starts, log-probabilities of its places)"""
    generator = torch.Generator().manual_seed(seed)
    for length in lengths:
        ids = torch.randint(vocab_size, (length,), generator=generator).tolist()
        start = 1 + length // 3
        yield ids, start, (spread * torch.randn(length - start, vocab_size, generator=generator)).log_softmax(-1)


def write(folder, vocab_size, sequences, top_k=None, fingerprint="f", teachers=()):
    folder.mkdir(exist_ok=True)
    writer = LogitsWriter(folder, vocab_size, top_k)
    for sequence in sequences:
        writer.add(*sequence)
    writer.close(fingerprint, "template", teachers)
    return StoredLogits(folder)


def batch(sequences):
    return collate([ids for ids, _, _ in sequences], [start for _, start, _ in sequences])


@pytest.mark.parametrize("vocab_size", [500, 65_536, 129_280])
def test_the_likeliest_are_kept_and_the_rest_has_its_mass(tmp_path, vocab_size):
    sequences = list(distributions([4, 2, 6], vocab_size))
    stored = write(tmp_path / "stored", vocab_size, sequences)
    assert (len(stored), stored.fingerprint, stored.vocab_size) == (3, "f", vocab_size)
    assert [stored.sequence(index) for index in range(3)] == [(ids, start) for ids, start, _ in sequences]
    top, logprobs_NV = stored.logprobs(*batch(sequences)), torch.cat([logprobs for _, _, logprobs in sequences])
    expected = logprobs_NV.topk(top.ids.shape[1], dim=-1)
    assert torch.equal(top.ids, expected.indices)
    assert torch.allclose(top.logprobs, expected.values, atol=0.01)
    assert torch.allclose(top.rest, logprobs_NV.scatter(-1, expected.indices, -torch.inf).logsumexp(-1), atol=0.01)
    assert torch.allclose(top.logprobs.exp().sum(-1) + top.rest.exp(), torch.ones(len(top.rest)), atol=1e-6)


@given(st.lists(st.tuples(st.integers(1, 300), st.integers(1, 300)), min_size=1), st.integers(2, 1 << 24))
def test_whatever_the_prompts_and_answers_a_token_takes_at_most_its_budget(spans, vocab_size):
    record = record_type(vocab_size)
    k, id_bytes = record["ids"].shape
    tokens = sum(prompt + answer for prompt, answer in spans)
    size = 8 * len(spans) + 4 * tokens + record.itemsize * sum(answer for _, answer in spans)
    assert size <= BYTES_A_TOKEN * tokens
    assert vocab_size <= 1 << (8 * id_bytes)
    assert k == vocab_size or record.itemsize + 4 + id_bytes + 2 > BYTES_A_TOKEN, "another one would have fitted"


def test_the_files_are_as_large_as_their_records_say(tmp_path):
    write(tmp_path / "stored", 1000, distributions([9, 5], 1000))
    size = sum(file.stat().st_size for file in (tmp_path / "stored").glob("*.bin"))
    assert size == 2 * 8 + 14 * 4 + (5 + 3) * record_type(1000).itemsize <= 300 * 14


def test_top_k_says_how_many(tmp_path):
    sequences = list(distributions([5], 1000))
    assert write(tmp_path / "stored", 1000, sequences, top_k=3).logprobs(*batch(sequences)).ids.shape[1] == 3


def test_a_small_vocabulary_is_kept_whole(tmp_path):
    top = write(tmp_path / "stored", 20, distributions([4], 20)).top(0)
    assert top.ids.shape == (2, 20)
    assert torch.isinf(top.rest).all()


def test_certainty_and_impossibility_survive(tmp_path):
    logprobs = torch.full((1, 200), -torch.inf)
    logprobs[0, 7] = 0.0
    top = write(tmp_path / "stored", 200, [([3, 7], 1, logprobs)]).top(0)
    assert (int(top.ids[0, 0]), float(top.logprobs[0, 0])) == (7, 0.0)
    assert float(top.logprobs[0, 1:].exp().sum()) == 0.0
    assert float(top.rest[0]) == -torch.inf


def test_what_was_not_stored_or_is_not_whole_is_refused(tmp_path):
    folder, sequences = tmp_path / "stored", list(distributions([5, 3], 200))
    stored = write(folder, 200, sequences, teachers=[{"teacher": "t"}])
    assert json.loads((folder / "header.json").read_text())["teachers"] == stored.teachers == [{"teacher": "t"}]
    ids, start, logprobs = sequences[0]
    for other in ([*ids[:-1], ids[-1] ^ 1], start, logprobs), (ids, start + 1, logprobs):
        with pytest.raises(UserError, match=r"does not hold this answer of \d tokens"):
            stored.logprobs(*batch([other]))
    whole = (folder / "top.bin").read_bytes()
    (folder / "top.bin").write_bytes(whole[: len(whole) // 5 * 4])
    with pytest.raises(UserError, match="write them anew"):
        StoredLogits(folder)
    (folder / "header.json").write_text("[]")
    with pytest.raises(UserError, match="write them anew"):
        StoredLogits(folder)
    with pytest.raises(UserError, match="expected"):
        write(folder, 100, distributions([4], 200))


def test_a_writer_that_died_goes_on_from_what_it_had_synced(tmp_path):
    sequences = list(distributions([4, 6, 5], 50))
    expected = write(tmp_path / "whole", 50, sequences)
    (tmp_path / "cut").mkdir()
    writer = LogitsWriter(tmp_path / "cut", 50)
    writer.add(*sequences[0])
    sizes = writer.sync()
    writer.add(*sequences[2])
    writer.sync()
    with pytest.raises(UserError, match="write them anew"):
        StoredLogits(tmp_path / "cut")
    writer = LogitsWriter(tmp_path / "cut", 50, sizes=sizes)
    for sequence in sequences[1:]:
        writer.add(*sequence)
    writer.close("f", "template")
    for name in ("spans.bin", "tokens.bin", "top.bin", "header.json"):
        assert (tmp_path / "cut" / name).read_bytes() == (expected.folder / name).read_bytes()
