"""Whole models on the kernels compute what the torch modules compute, in any pieces to the same bit."""

import numpy as np
import pytest
import torch
from tiny_models import RAW, tiny_model

from spoutnik.engine.kernels.native import DRAW, FORMATS, Chunk, NativeEngine
from spoutnik.engine.kernels.program import cache_shape, write_program

TOKENS = [5, 9, 2, 77, 31, 8, 8, 60, 13, 42, 3, 90, 17, 26, 1, 55, 71, 6, 34, 20, 4, 66, 48, 12, 95, 29, 7, 83, 11, 38, 50, 22, 64, 19, 87]


def native(model, precision, threads=2, most_rows=64):
    engine = NativeEngine(threads)
    program = write_program(model, engine, precision, most_rows, 40, 128)
    engine.cache(precision != "float32", model.config.num_hidden_layers, *cache_shape(model), 16)
    return engine, program


def logits_of(engine, pieces, pages=(6, 1, 3)):
    """Logits of every token, fed in pieces of the given lengths."""
    out, position = [], 0
    for length in pieces:
        tokens = TOKENS[position : position + length]
        out.append(engine.step([Chunk(tokens, position, pages)], range(length), np.zeros(length, DRAW), True)[1])
        position += length
    return torch.cat(out)


@pytest.mark.parametrize("family", RAW)
def test_float32_logits_are_those_of_the_modules(family):
    model = tiny_model(family)
    engine, _ = native(model, "float32")
    with torch.no_grad():
        expected = model(torch.tensor([TOKENS]))[0]
    assert torch.allclose(logits_of(engine, [len(TOKENS)]), expected, atol=2e-5 * expected.abs().max())


@pytest.mark.parametrize("family", ["deepseek-v3", "deepseek-v2", "llama-bias", "mistral"])
@pytest.mark.parametrize("precision", FORMATS)
def test_a_token_has_the_same_bits_however_its_prompt_is_cut_and_whatever_runs_beside(family, precision):
    model = tiny_model(family)
    engine, _ = native(model, precision)
    whole = logits_of(engine, [35])
    assert torch.equal(logits_of(engine, [1, 16, 2, 13, 3], (0, 5)), whole)
    alone, _ = native(model, precision, threads=1)
    assert torch.equal(logits_of(alone, [1] * 35), whole)
    company = [Chunk(TOKENS[:20], 0, [2]), Chunk(TOKENS[:35], 0, [4, 7]), Chunk([1, 2, 3], 0, [3])]
    beside = engine.step(company, range(20, 55), np.zeros(35, DRAW), True)[1]
    assert torch.equal(beside, whole)


@pytest.mark.parametrize("family", ["deepseek-v3", "llama-bias"])
@pytest.mark.parametrize("precision", FORMATS)
@pytest.mark.parametrize("threads", [1, 2, 3])
def test_where_threads_share_rows_the_bits_are_those_of_threads_that_share_panels(family, precision, threads):
    model = tiny_model(family)
    whole = logits_of(native(model, precision)[0], [35])
    engine, _ = native(model, precision, threads, most_rows=600)
    company = [Chunk(TOKENS, 0, [page, page + 1]) for page in range(0, 16, 2)] + [Chunk(TOKENS, 0, [14, 15])] * 4  # 420 rows
    for first in (0, 7 * 35, 11 * 35):
        assert torch.equal(engine.step(company, range(first, first + 35), np.zeros(35, DRAW), True)[1], whole)


@pytest.mark.parametrize("precision", ["bfloat16", "int8", "int4"])
@pytest.mark.parametrize(("family", "changes"), [("deepseek-v3", {"first_k_dense_replace": 3}), ("llama-3", {})])
def test_lower_precision_is_near(family, changes, precision):
    model = tiny_model(family, **changes)  # no experts: with random weights a rounding may choose others
    with torch.no_grad():
        expected = model(torch.tensor([TOKENS]))[0]
    error = (logits_of(native(model, precision)[0], [35]) - expected).std() / expected.std()
    assert error < {"bfloat16": 0.06, "int8": 0.15, "int4": 0.5}[precision]


@pytest.mark.parametrize("family", ["deepseek-v3", "qwen2"])
def test_a_refresh_follows_the_weights_in_place(family):
    model, other = tiny_model(family, seed=0), tiny_model(family, seed=1)
    engine, program = native(model, "bfloat16")
    with torch.no_grad():
        for mine, theirs in zip([*model.parameters(), *model.buffers()], [*other.parameters(), *other.buffers()], strict=True):
            mine.copy_(theirs)
    program.refresh()
    assert torch.equal(logits_of(engine, [35]), logits_of(native(other, "bfloat16")[0], [35]))
