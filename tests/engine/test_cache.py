"""The slot cache against a dictionary: what is written at a row and position is read there, through growth, moves and scattered rows."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from spoutnik.engine.cache import SlotCache

SHAPES = ((3, 4), (5,))  # heads and channels, as keys have; channels alone, as latents have


def cells(rows, tokens, start):
    """Distinct values for [rows, tokens] cells of both kinds."""
    number_BT = torch.arange(start, start + rows * tokens, dtype=torch.float32).view(rows, tokens)
    return [number_BT.view(rows, tokens, *[1] * len(shape)) + torch.rand(shape) for shape in SHAPES]


@settings(deadline=None, max_examples=30)
@given(st.data())
def test_cells_are_read_where_they_were_written(data):
    cache, expected, lengths = SlotCache(6, 200), {}, {}
    for call in range(data.draw(st.integers(1, 6))):
        rows = data.draw(st.one_of(st.permutations(range(6)).map(lambda order: order[:3]), st.just([0, 1]), st.just(list(range(6)))))
        tokens = data.draw(st.sampled_from([1, 1, 7, 70]))
        starts = [min(lengths.get(row, 0), 200 - tokens) for row in rows]
        cache.place(rows, torch.tensor(starts)[:, None] + torch.arange(tokens))
        new = cells(len(rows), tokens, 1000 * call)
        for place, row in enumerate(rows):
            lengths[row] = starts[place] + tokens
            for step in range(tokens):
                expected[row, starts[place] + step] = [kind[place, step] for kind in new]
        cached = cache.extend(0, *new)
        assert cache.length == max(starts) + tokens
        for place, row in enumerate(rows):
            for kind, stored in enumerate(cached):
                assert stored.shape == (len(rows), cache.length, *SHAPES[kind])
                assert stored.isfinite().all()
                for position in range(starts[place] + tokens):
                    assert torch.equal(stored[place, position], expected[row, position][kind])


def test_copied_rows_read_the_same_also_into_rows_that_did_not_exist():
    cache = SlotCache(8, 64)
    cache.place([0, 1], torch.arange(5).expand(2, -1))
    new = cells(2, 5, 1)
    cache.extend(0, *new)
    cache.copy_rows([1, 0], [5, 7], 4)
    cache.place([5, 7], torch.full((2, 1), 4))
    for kind, stored in enumerate(cache.extend(0, *cells(2, 1, 500))):
        assert torch.equal(stored[:, :4], new[kind][[1, 0], :4])


def test_a_decode_step_reads_views_and_storage_grows_rarely():
    cache, storages = SlotCache(4, 1000), set()
    for position in range(1000):
        cache.place(range(4), torch.full((4, 1), position))
        keys, latents = cache.extend(0, *cells(4, 1, position))
        assert keys._base is not None
        assert latents._base is not None
        storages.add(keys.untyped_storage().data_ptr())
    assert len(storages) <= 5


@pytest.mark.parametrize("heads", [1, 3])
def test_rows_and_heads_are_one_axis_for_a_batched_product(heads):
    cache = SlotCache(4, 100)
    cache.place(range(4), torch.zeros(4, 1, dtype=torch.int64))
    (keys_BSHd,) = cache.extend(0, torch.rand(4, 1, heads, 8))
    keys_BSHd.transpose(1, 2).view(4 * heads, 1, 8)  # raises if that needed a copy
