import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save, save_file

from spoutnik.checkpoint.shards import DTYPES, read_state, write_state
from spoutnik.errors import UserError

TENSORS = {"a": torch.arange(6.0).view(2, 3), "b": torch.arange(5, dtype=torch.bfloat16), "c": torch.zeros(0), "d": torch.tensor(True)}
GOOD = save(TENSORS, metadata={"format": "pt"})
LENGTH = int.from_bytes(GOOD[:8], "little")
HEADER: dict[str, Any] = json.loads(GOOD[8 : 8 + LENGTH])


def with_header(change: Callable[[dict[str, Any]], Any] | bytes, data: bytes = GOOD[8 + LENGTH :]) -> bytes:
    """The good file with another header, its length corrected."""
    if isinstance(change, bytes):
        header = change
    else:
        content = json.loads(json.dumps(HEADER))
        replaced = change(content)
        header = json.dumps(content if replaced is None else replaced).encode()
    return len(header).to_bytes(8, "little") + header + data


def entry(name: str, **fields: Any) -> bytes:
    return with_header(lambda header: header[name].update(fields))


def test_every_dtype_is_read_as_the_library_does(tmp_path: Path) -> None:
    torch.manual_seed(0)
    tensors = {name: torch.randint(0, 2, (3, 4)).to(torch.uint8).to(dtype) for name, dtype in DTYPES.items()}
    save_file(tensors, tmp_path / "model.safetensors")
    state = read_state(tmp_path)
    for name, tensor in load_file(tmp_path / "model.safetensors").items():
        assert state[name].dtype == tensor.dtype == state.entries[name].dtype
        assert torch.equal(state[name].view(torch.uint8), tensor.view(torch.uint8))


@pytest.mark.parametrize(("limit", "files"), [(10**9, 1), (30, 3), (1, 5)])
def test_shards_hold_every_tensor_once(tmp_path: Path, limit: int, files: int) -> None:
    tensors = {str(i): torch.full((3,), float(i)) for i in range(5)}
    write_state(iter(tensors.items()), tmp_path, limit)
    assert len(list(tmp_path.glob("*.safetensors"))) == files
    assert (tmp_path / "model.safetensors.index.json").exists() == (files > 1)
    state = read_state(tmp_path)
    assert state.keys() == tensors.keys()
    assert all(torch.equal(state[name], tensor) for name, tensor in tensors.items())


BROKEN = {
    "empty": b"",
    "header longer than file": (2**40).to_bytes(8, "little") + GOOD[8:],
    "header length beyond 64 bits of sense": b"\xff" * 8 + GOOD[8:],
    "cut short": GOOD[:-1],
    "bytes too many": GOOD + b"x",
    "not UTF-8": with_header(b"\xff\xfe{}"),
    "not JSON": with_header(b'{"a": '),
    "not an object": with_header(lambda header: [1]),
    "too deep": with_header(b"[" * 100_000),
    "a name twice": with_header(b'{"a":' + json.dumps(HEADER["a"]).encode() + b',"a":' + json.dumps(HEADER["a"]).encode() + b"}"),
    "entry not an object": with_header(lambda header: header | {"a": 3}),
    "entry without offsets": with_header(lambda header: header | {"a": {"dtype": "F32", "shape": [6]}}),
    "dtype unknown": entry("a", dtype="F7"),
    "dtype not a string": entry("a", dtype=["F32"]),
    "shape not a list": entry("a", shape="23"),
    "negative shape": entry("a", shape=[-2, -3]),
    "shape as float": entry("a", shape=[2.0, 3]),
    "shape as bool": entry("a", shape=[True, 6]),
    "shape too large": entry("a", shape=[2**70]),
    "product too large": entry("a", shape=[2**62, 2**62]),
    "shape of another size": entry("a", shape=[2, 4]),
    "three offsets": entry("a", data_offsets=[0, 1, 2]),
    "offsets backwards": entry("a", data_offsets=[24, 0]),
    "overlap": entry("a", data_offsets=[1, 25]),
    "beyond the end": entry("a", data_offsets=[2**40, 2**40 + 24]),
    "gap": with_header(lambda header: {name: value for name, value in header.items() if name != "a"}),
}


@pytest.mark.parametrize("content", BROKEN.values(), ids=BROKEN)
def test_a_header_that_lies_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "model.safetensors").write_bytes(content)
    with pytest.raises(UserError, match=r"model\.safetensors"):
        read_state(tmp_path)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=300)
@given(flips=st.lists(st.tuples(st.integers(0, len(GOOD) - 1), st.integers(0, 255)), min_size=1, max_size=4), cut=st.integers(0, 9))
def test_damage_gives_an_error_of_ours_or_readable_tensors(tmp_path: Path, flips: list[tuple[int, int]], cut: int) -> None:
    content = bytearray(GOOD)
    for position, value in flips:
        content[position] = value
    (tmp_path / "model.safetensors").write_bytes(content[: len(content) - max(0, cut - 6)])
    try:
        state = read_state(tmp_path)
        for name in state:
            assert tuple(state[name].shape) == state.entries[name].shape
    except UserError:
        pass


INDEXES = {
    "no map": {},
    "map of the wrong type": {"weight_map": ["a"]},
    "file outside": {"weight_map": {"a": "../model.safetensors"}},
    "file absent": {"weight_map": {"a": "model-9.safetensors"}},
    "tensor absent": {"weight_map": dict.fromkeys([*TENSORS, "z"], "x.safetensors")},
    "tensor elsewhere": {"weight_map": {"a": "x.safetensors"}},
}


@pytest.mark.parametrize("index", INDEXES.values(), ids=INDEXES)
def test_an_index_that_lies_is_refused(tmp_path: Path, index: dict[str, Any]) -> None:
    (tmp_path / "x.safetensors").write_bytes(GOOD)
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(UserError):
        read_state(tmp_path)


def test_pickled_weights_are_never_opened(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="check the path"):
        read_state(tmp_path)
    (tmp_path / "pytorch_model.bin").write_bytes(b"cos\nsystem\n(S'true'\ntR.")
    with pytest.raises(UserError, match="pickle"):
        read_state(tmp_path)
