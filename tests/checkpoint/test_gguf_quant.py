import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from spoutnik.checkpoint.gguf_dequant import CHUNK
from spoutnik.checkpoint.gguf_quant import FORMATS, quantise
from spoutnik.errors import UserError

gguf = pytest.importorskip("gguf")

# Not so small that one over a block's scale is infinite, where the reference casts what is no number.
NUMBERS = st.floats(2**-90, 1000, width=32) | st.floats(-1000, -(2**-90), width=32) | st.sampled_from([0.0, -0.0, 1.0, -1.0, 0.5])
BLOCKS = arrays.arrays(np.float32, (3, 32), elements=NUMBERS)


@pytest.mark.parametrize("kind", FORMATS.values(), ids=FORMATS)
@given(values=BLOCKS)
def test_blocks_have_the_bits_of_the_reference(kind, values):
    reference = gguf.quantize(values, gguf.GGMLQuantizationType[kind.name]).reshape(-1)
    assert np.array_equal(quantise("x", values, kind), reference.view(np.uint8))


@pytest.mark.parametrize("kind", FORMATS.values(), ids=FORMATS)
def test_long_tensors_of_any_shape_are_the_sum_of_their_blocks(kind):
    values = np.random.default_rng(0).standard_normal((2, CHUNK + 1, 32)).astype(np.float32)
    packed = quantise("x", values, kind)
    assert np.array_equal(packed[-(32 // kind.values) * kind.nbytes :], quantise("x", values[1, -1], kind))
    assert len(packed) == values.size // kind.values * kind.nbytes


@pytest.mark.parametrize("kind", FORMATS.values(), ids=FORMATS)
@given(values=BLOCKS)
def test_a_number_comes_back_within_half_a_step_of_its_block(kind, values):
    """4 bits have 16 steps over the block's range, or 15 between minimum and maximum; half precision rounds scale and minimum."""
    back = kind.dequantise(quantise("x", values, kind)).numpy().reshape(values.shape)
    size = np.abs(values).max(1, keepdims=True)
    step = {
        "f32": 0,
        "f16": 0,
        "q8_0": size / 127,
        "q4_0": size / 8,
        "q4_1": (values.max(1, keepdims=True) - values.min(1, keepdims=True)) / 15,
    }
    # In q4_0 the far end of the range has no step of its own: 8 steps are kept as 7.
    slack = step["q4_0"] / 2 if kind is FORMATS["q4_0"] else 0
    name = next(name for name, other in FORMATS.items() if other is kind)
    assert (np.abs(back - values) <= step[name] / 2 + slack + size * 2e-3 + 1e-5).all()


@pytest.mark.parametrize("kind", [FORMATS[name] for name in ("f16", "q8_0", "q4_1", "q4_0")], ids=lambda kind: kind.name)
def test_what_half_precision_cannot_hold_is_refused(kind):
    with pytest.raises(UserError, match=r"blk\.0\.x does not fit"):
        quantise("blk.0.x", np.full(32, 1e30, np.float32) * np.linspace(0, 1, 32, dtype=np.float32), kind)
