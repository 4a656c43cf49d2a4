import numpy as np
import pytest
import torch

from spoutnik.checkpoint.gguf_dequant import CHUNK, TYPES

gguf = pytest.importorskip("gguf")


@pytest.mark.parametrize("number", TYPES, ids=[quant.name for quant in TYPES.values()])
def test_dequantisation_equals_the_reference_to_the_bit(number: int) -> None:
    quant = TYPES[number]
    kind = gguf.GGMLQuantizationType(number)
    assert (kind.name, *gguf.GGML_QUANT_SIZES[kind]) == (quant.name, quant.values, quant.nbytes)
    raw = np.random.default_rng(number).integers(0, 256, (CHUNK // 64 + 3, quant.nbytes), dtype=np.uint8)
    with np.errstate(all="ignore"):  # random scales are now and then infinite
        ours, theirs = quant.dequantise(raw.reshape(-1)).numpy(), gguf.dequantize(raw, kind).reshape(-1)
    assert ours.dtype == np.float32
    assert np.isfinite(theirs).mean() > 0.9
    numbers = ~np.isnan(theirs)
    assert np.array_equal(np.isnan(ours), ~numbers)
    assert np.array_equal(ours.view(np.uint32)[numbers], theirs.view(np.uint32)[numbers])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_long_tensors_are_the_sum_of_their_chunks_in_any_dtype(dtype: torch.dtype) -> None:
    quant = TYPES[8]
    blocks = 2 * CHUNK // quant.values + 5
    raw = np.random.default_rng(0).integers(0, 64, blocks * quant.nbytes, dtype=np.uint8)
    single = [quant.dequantise(raw[block * quant.nbytes : (block + 1) * quant.nbytes]) for block in (0, blocks // 2, blocks - 1)]
    whole = quant.dequantise(raw, dtype).view(blocks, quant.values)
    assert torch.equal(whole[[0, blocks // 2, blocks - 1]], torch.stack(single).to(dtype))
    assert torch.equal(whole.flatten(), quant.dequantise(raw).to(dtype))
