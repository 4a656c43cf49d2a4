import os
import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from spoutnik.checkpoint.gguf import GGUF
from spoutnik.checkpoint.gguf_quant import F32, FORMATS
from spoutnik.checkpoint.gguf_write import Outgoing, write_gguf
from spoutnik.errors import UserError

gguf = pytest.importorskip("gguf")

VALUES = np.random.default_rng(0).standard_normal((2, 3, 64)).astype(np.float32)
METADATA = {
    "general.architecture": "llama", "a.text": "Ünïcode", "a.yes": True, "a.count": 4_000_000_000, "a.share": 0.25,
    "a.words": ["x", "", "猫"], "a.none": [], "a.types": [1, -3, 2],
}  # fmt: skip
SINGLE = st.floats(width=32, allow_nan=False)
PLAIN = st.characters(exclude_categories=["Cs"])
ANY_VALUE = st.text(PLAIN) | st.booleans() | st.integers(0, 2**32 - 1) | SINGLE | st.lists(st.text(PLAIN)) | st.lists(st.integers(-9, 9))


def outgoing(name: str, values: np.ndarray, kind: str) -> Outgoing:
    return Outgoing(name, values.shape, FORMATS[kind], lambda: values)


def test_the_reference_reader_finds_what_was_written(tmp_path: Path) -> None:
    path = tmp_path / "new" / "x.gguf"
    write_gguf(path, METADATA, [outgoing(kind, VALUES, kind) for kind in FORMATS] + [outgoing("odd", VALUES[0, 0, :5], "f32")])
    reader = gguf.GGUFReader(path)
    assert {key: field.contents() for key, field in reader.fields.items() if not key.startswith("GGUF.")} == METADATA
    assert [tensor.name for tensor in reader.tensors] == [*FORMATS, "odd"]
    for tensor in reader.tensors[:-1]:
        assert tensor.shape.tolist() == [64, 3, 2]
        expected = gguf.quantize(VALUES, tensor.tensor_type)
        assert np.array_equal(gguf.dequantize(tensor.data, tensor.tensor_type), gguf.dequantize(expected, tensor.tensor_type))
    assert np.array_equal(reader.tensors[-1].data, VALUES[0, 0, :5])


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)
@given(
    metadata=st.dictionaries(st.text(PLAIN, max_size=9).filter(lambda key: key != "general.alignment"), ANY_VALUE, max_size=5),
    shapes=st.lists(st.lists(st.integers(1, 3), min_size=1, max_size=4), max_size=4),
)
def test_our_reader_finds_whatever_was_written(tmp_path: Path, metadata: dict, shapes: list[list[int]]) -> None:
    tensors = [outgoing(f"t{index}", np.full(shape, index, np.float32), "f32") for index, shape in enumerate(shapes)]
    write_gguf(tmp_path / "x.gguf", metadata, tensors)
    file = GGUF(tmp_path / "x.gguf")
    assert file.metadata == metadata
    assert {name: tensor.shape for name, tensor in file.tensors.items()} == {tensor.name: tensor.shape for tensor in tensors}
    for tensor in tensors:
        assert np.array_equal(file.read(tensor.name), tensor.read())


def test_a_file_stays_whole_until_the_new_one_is(tmp_path: Path) -> None:
    path = tmp_path / "x.gguf"
    path.write_bytes(b"old")

    def broken() -> np.ndarray:
        raise OSError(28, "No space left on device")

    with pytest.raises(UserError, match="make room"):
        write_gguf(path, METADATA, [outgoing("a", VALUES, "f32"), Outgoing("b", (1,), F32, broken)])
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["x.gguf"]


def test_a_place_that_cannot_be_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(UserError, match="choose another place"):
        write_gguf(tmp_path / "file" / "x.gguf", {}, [])


def test_a_full_disk_is_one_sentence(tmp_path: Path) -> None:
    """The system refuses files above 1,000 bytes, as it would for want of room."""
    code = (
        "import numpy as np; from pathlib import Path; from spoutnik.errors import UserError; "
        "from spoutnik.checkpoint.gguf_quant import F32; from spoutnik.checkpoint.gguf_write import Outgoing, write_gguf\n"
        "try: write_gguf('x.gguf', {}, [Outgoing('a', (9000,), F32, lambda: np.zeros(9000, np.float32))])\n"
        "except UserError as error: print(error)"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, env=environment, check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000)),
    )  # fmt: skip
    assert "cannot be written to" in result.stdout, result.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_tensor_of_another_size_than_announced_is_a_bug_of_ours_that_is_seen(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="announced"):
        write_gguf(tmp_path / "x.gguf", {}, [Outgoing("a", (5,), F32, lambda: np.zeros(4, np.float32))])
    assert list(tmp_path.iterdir()) == []
