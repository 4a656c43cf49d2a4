"""Distributions on disk: what is kept is kept, what is left out has its mass, and a token takes 300 bytes or less."""

import json

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from spoutnik.errors import UserError
from spoutnik.teacher.stored import BYTES_A_TOKEN, StoredLogits, record_type, write_logits


def distributions(lengths, vocab_size, spread=3.0, seed=0):
    generator = torch.Generator().manual_seed(seed)
    for length in lengths:
        ids = torch.randint(vocab_size, (length,), generator=generator).tolist()
        yield ids, (spread * torch.randn(length, vocab_size, generator=generator)).log_softmax(-1)


@pytest.mark.parametrize("vocab_size", [500, 65_536, 129_280])
def test_the_likeliest_are_kept_and_the_rest_has_its_mass(tmp_path, vocab_size):
    given_ = list(distributions([3, 1, 5], vocab_size))
    write_logits(tmp_path / "stored", "f", vocab_size, given_)
    stored = StoredLogits(tmp_path / "stored")
    assert (len(stored), stored.fingerprint, stored.vocab_size) == (3, "f", vocab_size)
    for ids, logprobs_TV in given_:
        top = stored.logprobs(ids)
        expected = logprobs_TV.topk(top.ids.shape[1], dim=-1)
        assert torch.equal(top.ids, expected.indices)
        assert torch.allclose(top.logprobs, expected.values, atol=0.01)
        rest = logprobs_TV.scatter(-1, expected.indices, -torch.inf).logsumexp(-1)
        assert torch.allclose(top.rest, rest, atol=0.01)
        assert torch.allclose(top.logprobs.exp().sum(-1) + top.rest.exp(), torch.ones(len(ids)), atol=1e-6)
    size = sum(file.stat().st_size for file in (tmp_path / "stored").glob("*.bin"))
    assert size <= BYTES_A_TOKEN * 9


@given(st.integers(2, 1 << 24), st.integers(40, 1000))
def test_a_record_and_what_lies_beside_it_fit_the_budget_and_use_it(vocab_size, budget):
    record = record_type(vocab_size, budget)
    k, id_bytes = record["ids"].shape
    assert record.itemsize + 8 <= budget
    assert vocab_size <= 1 << (8 * id_bytes)
    assert k == vocab_size or record.itemsize + 8 + id_bytes + 2 > budget


def test_a_small_vocabulary_is_kept_whole(tmp_path):
    write_logits(tmp_path / "stored", "f", 20, distributions([4], 20))
    stored = StoredLogits(tmp_path / "stored")
    assert stored.top(0).ids.shape == (4, 20)
    assert torch.isinf(stored.top(0).rest).all()


def test_certainty_and_impossibility_survive(tmp_path):
    logprobs = torch.full((1, 200), -torch.inf)
    logprobs[0, 7] = 0.0
    write_logits(tmp_path / "stored", "f", 200, [([3], logprobs)])
    top = StoredLogits(tmp_path / "stored").logprobs([3])
    assert (int(top.ids[0, 0]), float(top.logprobs[0, 0])) == (7, 0.0)
    assert float(top.logprobs[0, 1:].exp().sum()) == 0.0
    assert float(top.rest[0]) == -torch.inf


def test_what_was_not_stored_or_is_not_whole_is_refused(tmp_path):
    folder = tmp_path / "stored"
    write_logits(folder, "f", 200, distributions([4, 2], 200), teachers=[{"teacher": "t"}])
    assert json.loads((folder / "header.json").read_text())["teachers"] == StoredLogits(folder).teachers == [{"teacher": "t"}]
    with pytest.raises(UserError, match="does not hold this sequence of 2 tokens"):
        StoredLogits(folder).logprobs([1, 2])
    whole = (folder / "top.bin").read_bytes()
    (folder / "top.bin").write_bytes(whole[: len(whole) // 6 * 5])
    with pytest.raises(UserError, match="write them anew"):
        StoredLogits(folder)
    (folder / "header.json").write_text("[]")
    with pytest.raises(UserError, match="write them anew"):
        StoredLogits(folder)
    with pytest.raises(UserError, match="expected"):
        write_logits(folder, "f", 100, distributions([4], 200))


def test_a_writer_that_dies_leaves_what_was_there(tmp_path):
    write_logits(tmp_path / "stored", "old", 50, distributions([2], 50))

    def dying():
        yield from distributions([2], 50)
        raise RuntimeError("power cut")

    with pytest.raises(RuntimeError):
        write_logits(tmp_path / "stored", "new", 50, dying())
    assert StoredLogits(tmp_path / "stored").fingerprint == "old"
