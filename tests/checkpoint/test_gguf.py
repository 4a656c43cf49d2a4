import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from spoutnik.checkpoint.gguf import GGUF
from spoutnik.errors import UserError

U32, I32, F32, BOOL, STRING, ARRAY, U64, F64 = 4, 5, 6, 7, 8, 9, 10, 12


def text(value: str | bytes) -> bytes:
    raw = value.encode() if isinstance(value, str) else value
    return struct.pack("<Q", len(raw)) + raw


def pair(key: str, kind: int, value: bytes) -> bytes:
    return text(key) + struct.pack("<I", kind) + value


def tensor(name: str, shape: tuple[int, ...], kind: int, offset: int) -> bytes:
    """`shape` as the file has it, fastest first."""
    return text(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, kind, offset)


def build(pairs: list[bytes], tensors: list[bytes], data: bytes = b"", counts: tuple[int, int] | None = None, version: int = 3) -> bytes:
    head = b"GGUF" + struct.pack("<IQQ", version, *(counts or (len(tensors), len(pairs)))) + b"".join(pairs) + b"".join(tensors)
    return head + bytes(-len(head) % 32) + data


PAIRS = [
    pair("a", U32, struct.pack("<I", 7)),
    pair("b", F32, struct.pack("<f", 0.5)),
    pair("c", BOOL, b"\1"),
    pair("d", STRING, text("Ünïcode")),
    pair("e", ARRAY, struct.pack("<IQ", I32, 3) + struct.pack("<3i", 1, -2, 3)),
    pair("f", ARRAY, struct.pack("<IQ", STRING, 2) + text("x") + text("")),
    pair("g", U64, struct.pack("<Q", 2**63)),
    pair("h", F64, struct.pack("<d", 1e-300)),
]
DATA = np.arange(6, dtype="<f4").tobytes() + bytes(8) + np.arange(-16, 16, dtype="<f2").tobytes()
TENSORS = [tensor("one", (3, 2), 0, 0), tensor("two", (32,), 1, 32)]
GOOD = build(PAIRS, TENSORS, DATA)


@pytest.fixture
def opened(tmp_path: Path) -> Callable[[bytes], GGUF]:
    def write_and_open(content: bytes) -> GGUF:
        path = tmp_path / "x.gguf"
        path.write_bytes(content)
        return GGUF(path)

    return write_and_open


def test_metadata_of_every_kind_are_read(opened: Callable[[bytes], GGUF]) -> None:
    expected = {"a": 7, "b": 0.5, "c": True, "d": "Ünïcode", "e": [1, -2, 3], "f": ["x", ""], "g": 2**63, "h": 1e-300}
    assert opened(GOOD).metadata == expected


def test_tensors_come_in_torch_order_from_their_offsets(opened: Callable[[bytes], GGUF]) -> None:
    file = opened(GOOD)
    assert file.tensors["one"].shape == (2, 3)
    assert file.read("one").tolist() == [[0, 1, 2], [3, 4, 5]]
    assert file.read("two").tolist() == list(range(-16, 16))


def test_a_file_of_the_reference_writer_is_read_like_its_reader_does(tmp_path: Path) -> None:
    gguf = pytest.importorskip("gguf")
    writer = gguf.GGUFWriter(tmp_path / "x.gguf", "llama")
    writer.add_custom_alignment(64)
    writer.add_array("words", ["a", "b"])
    values = np.random.default_rng(0).standard_normal((3, 64)).astype(np.float32)
    for kind in ("Q8_0", "Q4_0", "F32", "BF16"):
        quant = gguf.GGMLQuantizationType[kind]
        writer.add_tensor(kind, gguf.quantize(values, quant), raw_dtype=quant)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    ours = GGUF(tmp_path / "x.gguf")
    assert ours.metadata["words"] == ["a", "b"]
    theirs = gguf.GGUFReader(tmp_path / "x.gguf").tensors
    assert len(theirs) == len(ours.tensors) == 4
    for tensor in theirs:
        assert np.array_equal(ours.read(tensor.name).numpy(), gguf.dequantize(tensor.data, tensor.tensor_type))


HUGE = 2**63
LIES = {
    "empty": b"",
    "magic": b"GGML" + GOOD[4:],
    "version": build(PAIRS, TENSORS, DATA, version=1),
    "big-endian": b"GGUF" + struct.pack(">IQQ", 3, 0, 0) + bytes(64),
    "tensor count": build(PAIRS, TENSORS, DATA, counts=(HUGE, len(PAIRS))),
    "pair count": build(PAIRS, TENSORS, DATA, counts=(2, HUGE)),
    "string length": build([text("a") + struct.pack("<IQ", STRING, HUGE)], []),
    "array length": build([pair("a", ARRAY, struct.pack("<IQ", U32, 2**62))], [], bytes(64)),
    "string array length": build([pair("a", ARRAY, struct.pack("<IQ", STRING, 2**62))], [], bytes(64)),
    "array of arrays": build([pair("a", ARRAY, struct.pack("<IQ", ARRAY, 1))], [], bytes(64)),
    "value type": build([pair("a", 99, b"")], [], bytes(64)),
    "not UTF-8": build([pair("a", STRING, text(b"\xff\xfe"))], []),
    "key twice": build([PAIRS[0], PAIRS[0]], []),
    "tensor twice": build([], [TENSORS[0], TENSORS[0]], DATA),
    "no alignment": build([pair("general.alignment", U32, struct.pack("<I", 0))], TENSORS, DATA),
    "odd alignment": build([pair("general.alignment", U32, struct.pack("<I", 24))], TENSORS, DATA),
    "alignment as text": build([pair("general.alignment", STRING, text("32"))], TENSORS, DATA),
    "no dimensions": build([], [tensor("x", (), 0, 0)], DATA),
    "five dimensions": build([], [tensor("x", (1, 1, 1, 1, 1), 0, 0)], DATA),
    "empty dimension": build([], [tensor("x", (0, 4), 0, 0)], DATA),
    "overflowing product": build([], [tensor("x", (2**32, 2**32, 4), 0, 0)], DATA),
    "ggml type": build([], [tensor("x", (32,), 19, 0)], DATA),
    "broken block": build([], [tensor("x", (33,), 8, 0)], bytes(96)),
    "beyond the end": build([], [tensor("x", (64,), 0, 0)], DATA),
    "offset beyond the end": build([], [tensor("x", (1,), 0, 2**63)], DATA),
    "misaligned": build([], [tensor("x", (1,), 0, 4)], DATA),
    "overlap": build([], [tensor("x", (16,), 0, 0), tensor("y", (1,), 0, 32)], DATA),
}


@pytest.mark.parametrize("content", LIES.values(), ids=LIES)
def test_a_file_that_lies_is_refused_before_anything_is_allocated(opened: Callable[[bytes], GGUF], content: bytes) -> None:
    with pytest.raises(UserError, match=r"x\.gguf"):
        opened(content)


def test_a_directory_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="not a file"):
        GGUF(tmp_path)


@pytest.mark.parametrize("length", range(0, len(GOOD), 7))
def test_a_file_cut_short_is_refused(opened: Callable[[bytes], GGUF], length: int) -> None:
    with pytest.raises(UserError):
        opened(GOOD[:length])


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=300)
@given(flips=st.lists(st.tuples(st.integers(0, len(GOOD) - 1), st.integers(0, 255)), min_size=1, max_size=4))
def test_damage_gives_an_error_of_ours_or_a_readable_file(opened: Callable[[bytes], GGUF], flips: list[tuple[int, int]]) -> None:
    content = bytearray(GOOD)
    for position, value in flips:
        content[position] = value
    try:
        file = opened(bytes(content))
    except UserError:
        return
    for name, described in file.tensors.items():
        assert file.read(name).shape == described.shape
