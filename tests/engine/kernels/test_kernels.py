"""Each kernel alone against torch: one-operation programs, whose result is what a program's last buffer holds."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from spoutnik.engine.kernels.build import PAGE, processor
from spoutnik.engine.kernels.native import DRAW, FORMATS, Chunk, Ending, Kind, NativeEngine, Operation, Space
from spoutnik.engine.kernels.program import in_turns

# Builds for the processor at hand and for one without AVX-512.
every_build = pytest.mark.parametrize("march", ["native", "x86-64-v3"])
MOST_ROWS = 48


def operation(kind, space=Space.TOKENS, **fields):
    return Operation(**{"from_": -1, "to": -1, "constant": -1, "heads": 1, **fields, "kind": kind, "space": space})


def run(x_TI, middle, width, march="native", threads=1, chunks=None, cache=None, heads=1, prepare=lambda engine: None):
    """Feeds rows through operations between buffer 0 (the input) and buffer 1, `width` wide, and returns that."""
    engine = NativeEngine(threads, march)
    x_TI = x_TI.float().contiguous()
    rows, inputs = x_TI.shape
    prepare(engine)
    table = engine.constant(x_TI)
    operations = [
        operation(Kind.EMBED, to=0, constant=table, width=inputs),
        *middle(engine),
        operation(Kind.PICK, Space.PICKED, from_=1, to=2, width=width),
    ]
    engine.program(
        operations, [(inputs, Space.TOKENS), (width, Space.TOKENS), (width, Space.PICKED)], 1024, MOST_ROWS, MOST_ROWS, 256, heads, width
    )
    if cache:
        engine.cache(*cache)
    else:
        engine.cache(False, 1, 1, 2, 2, 1)
    draws = np.zeros(rows, DRAW)
    out = []
    for chunk_rows, position, pages in chunks or [(range(rows), 0, [])]:
        _, logits = engine.step([Chunk(list(chunk_rows), position, pages)], range(len(chunk_rows)), draws[: len(chunk_rows)], True)
        out.append(logits)
    engine.close()
    return torch.cat(out)


def product(precision, weight_OI, bias=None):
    """The operations that multiply by one weight."""

    def middle(engine):
        outputs, inputs = weight_OI.shape
        number = engine.weight(precision, outputs, inputs)
        engine.pack(number, weight_OI, bias)
        return [
            operation(Kind.PACK, from_=0, width=inputs, flag=FORMATS[precision]),
            operation(Kind.LINEAR, to=1, weight=number),
        ]

    return middle


def rounded(x, precision):
    """Activations as a product with such weights sees them."""
    if precision == "float32":
        return x
    if precision == "bfloat16":
        return x.bfloat16().float()
    scale = x.abs().amax(-1, keepdim=True) / (127 * 256)
    return torch.round(x / scale) * scale


def stored(weight_OI, precision):
    """A matrix as it comes out of its format."""
    if precision == "float32":
        return weight_OI
    if precision == "bfloat16":
        return weight_OI.bfloat16().float()
    if precision == "int8":
        scale = weight_OI.abs().amax(-1, keepdim=True) / 127
        return (weight_OI / scale).round() * scale
    groups = F.pad(weight_OI, (0, -weight_OI.shape[-1] % 32)).unflatten(-1, (-1, 32))
    low = groups.amin(-1, keepdim=True).half().float()
    scale = ((groups.amax(-1, keepdim=True) - low) / 15).half().float()
    back = ((groups - low) / scale).round().clamp(0, 15) * scale + low
    return back.flatten(-2)[..., : weight_OI.shape[-1]]


@every_build
@pytest.mark.parametrize("precision", FORMATS)
@pytest.mark.parametrize(("outputs", "inputs"), [(48, 64), (37, 50), (130, 96), (40, 1024)])
def test_a_product_is_that_of_the_rounded_matrices(precision, outputs, inputs, march):
    torch.manual_seed(0)
    x_TI, weight_OI, bias = torch.randn(13, inputs), torch.randn(outputs, inputs), torch.randn(outputs)
    expected = rounded(x_TI, precision).double() @ stored(weight_OI, precision).double().T + bias
    found = run(x_TI, product(precision, weight_OI, bias), outputs, march)
    # A value on the edge between two codes may fall to either side; one such step moves a product by 1 % of its size.
    tolerance = 1e-4 if precision in ("float32", "bfloat16") else 0.01
    assert (found - expected).abs().max() < tolerance * expected.abs().max()


@every_build
@pytest.mark.parametrize("precision", FORMATS)
@pytest.mark.parametrize("threads", [1, 2, 3])
def test_a_row_has_the_same_bits_in_any_batch_and_with_any_number_of_threads(precision, threads, march):
    torch.manual_seed(1)
    x_TI, weight_OI = torch.randn(40, 96), torch.randn(83, 96)
    together = run(x_TI, product(precision, weight_OI), 83, march, threads)
    for rows in (range(1), range(5, 7), range(11, 24)):
        chunk = run(x_TI[rows.start : rows.stop], product(precision, weight_OI), 83, march, 1)
        assert torch.equal(together[rows.start : rows.stop], chunk)


@pytest.mark.skipif("avx512_vnni" not in processor(), reason="this processor runs no build with AVX-512 and without tiles")
@pytest.mark.parametrize("precision", ["int8", "int4"])
def test_tiles_and_vectors_give_the_same_bits(precision):
    torch.manual_seed(5)
    x_TI, weight_OI = torch.randn(40, 200) * torch.logspace(-3, 3, 40)[:, None], torch.randn(83, 200)
    for rows in (1, 3, 5, 8, 17, 40):
        found = [run(x_TI[:rows], product(precision, weight_OI), 83, march) for march in ("native", "cascadelake")]
        assert torch.equal(*found)


@every_build
def test_norm_gate_and_rotation_are_those_of_the_modules(march):
    torch.manual_seed(2)
    x_TI, weight = torch.randn(5, 40), torch.rand(40)

    def norm(engine):
        return [operation(Kind.NORM, from_=0, to=1, width=40, constant=engine.constant(weight), number=1e-5)]

    expected = F.rms_norm(x_TI, (40,), weight, 1e-5)
    assert torch.allclose(run(x_TI, norm, 40, march), expected, atol=1e-6)

    def gate(engine):
        number = engine.weight("float32", 64, 40)
        engine.pack(number, in_turns(torch.eye(40)[:20] * 30, torch.eye(40)[20:] * 30))
        return [
            operation(Kind.PACK, from_=0, width=40, flag=FORMATS["float32"]),
            operation(Kind.LINEAR, to=1, weight=number, flag=Ending.GATE),
        ]

    expected = F.silu(x_TI[:, :20] * 30) * x_TI[:, 20:] * 30
    assert torch.allclose(run(x_TI, gate, 32, march)[:, :20], expected, rtol=1e-5, atol=1e-6)

    angles_TF = torch.arange(5)[:, None] * torch.tensor([1.0, 0.3, 0.1])
    table = torch.stack([angles_TF.cos(), angles_TF.sin()], dim=1)
    for flag in (0, 1):
        pairs = x_TI[:, :12].unflatten(-1, (2, 3, 2) if flag else (2, 2, 3))
        first, second = (pairs[..., 0], pairs[..., 1]) if flag else (pairs[:, :, 0], pairs[:, :, 1])
        cos, sin = table[:, None, 0], table[:, None, 1]
        turned = torch.stack([first * cos - second * sin, second * cos + first * sin], dim=-1 if flag else -2)

        def rotate(engine, flag=flag):
            return [
                operation(
                    Kind.ROTATE, from_=0, from_stride=6, to=1, to_stride=6, width=6, heads=2, constant=engine.constant(table), flag=flag
                )
            ]

        assert torch.allclose(run(x_TI, rotate, 12, march), turned.flatten(1), atol=1e-6)


@every_build
@pytest.mark.parametrize("bf16", [False, True])
@pytest.mark.parametrize(("heads", "key_heads", "key", "value"), [(6, 2, 16, 16), (4, 1, 20, 16), (7, 1, 24, 72), (2, 2, 6, 6)])
@pytest.mark.parametrize("window", [0, 5])
def test_attention_over_scattered_pages_is_that_of_torch(bf16, heads, key_heads, key, value, window, march):
    torch.manual_seed(3)
    tokens, columns = 43, heads * key + key_heads * (key + value)
    x_TI = torch.randn(tokens, columns)
    rounding = (lambda x: x.bfloat16().float()) if bf16 else (lambda x: x)
    query_HTd = rounding(x_TI[:, : heads * key].unflatten(-1, (heads, key))).transpose(0, 1)
    key_hTd = rounding(x_TI[:, heads * key :][:, : key_heads * key].unflatten(-1, (key_heads, key))).transpose(0, 1)
    value_hTd = rounding(x_TI[:, -key_heads * value :].unflatten(-1, (key_heads, value))).transpose(0, 1)
    place_T = torch.arange(tokens)
    mask_TT = place_T <= place_T[:, None]
    if window:
        mask_TT &= place_T > place_T[:, None] - window
    expected = F.scaled_dot_product_attention(query_HTd, key_hTd, value_hTd, mask_TT, scale=0.3, enable_gqa=True).transpose(0, 1).flatten(1)

    def attend(engine):
        after = heads * key
        return [
            operation(Kind.REMEMBER, from_=0, from_offset=after, from_stride=key, to=0, to_offset=after + key_heads * key, to_stride=value),
            operation(Kind.ATTEND, from_=0, to=1, flag=window, number=0.3),
        ]

    cache = (bf16, 1, key_heads, key, value, 9)
    pages = [7, 2]
    assert tokens > PAGE
    chunks = [(range(0, 16), 0, pages), (range(16, 37), 16, pages), *((range(t, t + 1), t, pages) for t in range(37, tokens))]
    found = run(x_TI, attend, heads * value, march, 2, chunks, cache, heads)
    assert torch.allclose(found, expected, atol=2e-2 if bf16 else 1e-5)
    one_by_one = run(x_TI, attend, heads * value, march, 1, [(range(t, t + 1), t, [4, 8]) for t in range(tokens)], cache, heads)
    assert torch.equal(found, one_by_one)
