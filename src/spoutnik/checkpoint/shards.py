"""Safetensors in and out: headers that are checked before anything is allocated, tensors read one at a time, files written to disk whole.

Format: an unsigned 64-bit little-endian length, a JSON header of that length, then the tensors' bytes without gap.
"""

import json
import math
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from spoutnik.errors import UserError

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
BESIDE = "model-beside.safetensors"
"""Tensors that transformers is not to see: it knows a multi-token prediction layer only as layer 61 (DeepSeek-V3's)."""
LONGEST_HEADER = 100_000_000
"""Bytes; the limit of the `safetensors` library. DeepSeek-V3's largest header has less than a hundredth of it."""

DTYPES = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16, "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2, "F8_E8M0": torch.float8_e8m0fnu, "I64": torch.int64, "I32": torch.int32, "I16": torch.int16,
    "I8": torch.int8, "U8": torch.uint8, "BOOL": torch.bool,
}  # fmt: skip


@dataclass(frozen=True)
class Entry:
    """What a header says about one tensor, once that is known to be true of the file."""

    file: Path
    dtype: torch.dtype
    shape: tuple[int, ...]


class State(Mapping[str, Tensor]):
    """The tensors of a checkpoint by name, each read from disk when asked for."""

    def __init__(self, entries: dict[str, Entry]):
        self.entries = entries
        self._open: dict[Path, Any] = {}

    def __getitem__(self, name: str) -> Tensor:
        entry = self.entries[name]
        try:
            if entry.file not in self._open:
                self._open[entry.file] = safe_open(entry.file, framework="pt")
            return self._open[entry.file].get_tensor(name)
        except (SafetensorError, OSError) as error:
            raise UserError(f"{entry.file}: tensor {name} cannot be read ({error}); copy the file again") from error

    def __iter__(self) -> Iterator[str]:
        return iter(self.entries)

    def __len__(self) -> int:
        return len(self.entries)


def read_state(directory: str | Path) -> State:
    """All tensors of a Hugging Face directory: of model.safetensors, or of the shards that the index names; and of BESIDE, if there.

    Every header is checked against its file now; the tensors themselves are read later. Raises UserError for whatever does not hold.
    """
    directory = Path(directory)
    entries = _main_entries(directory)
    beside = read_header(directory / BESIDE) if (directory / BESIDE).is_file() else {}
    twice = sorted(entries.keys() & beside.keys())
    if twice:
        raise UserError(f"{directory / BESIDE} holds {twice[0]}, which the other weights hold, too; remove the one that is not meant")
    return State(entries | beside)


def _main_entries(directory: Path) -> dict[str, Entry]:
    if (directory / SINGLE).is_file():
        return read_header(directory / SINGLE)
    if not (directory / INDEX).is_file():
        pickled = " (its pickle files are never opened, for they can run code: convert them)" if list(directory.glob("*.bin")) else ""
        raise UserError(f"{directory} holds neither {SINGLE} nor {INDEX}{pickled}, so there are no weights to load: check the path")
    weight_map = read_json(directory / INDEX).get("weight_map")
    if not isinstance(weight_map, dict) or not all(isinstance(shard, str) and Path(shard).name == shard for shard in weight_map.values()):
        raise UserError(f"{directory / INDEX} must map each tensor to a file beside it under 'weight_map'; download it again")
    entries: dict[str, Entry] = {}
    for shard in sorted(set(weight_map.values())):
        header = read_header(directory / shard)
        for name, entry in header.items():
            if weight_map.get(name) != shard:
                raise UserError(f"{directory / shard} holds {name}, which the index places in {weight_map.get(name)}; download both again")
            entries[name] = entry
    lost = sorted(weight_map.keys() - entries.keys())
    if lost:
        raise UserError(f"{directory / INDEX} names {lost[0]} ({len(lost)} such), but no file holds it; download the checkpoint again")
    return entries


def read_header(file: Path) -> dict[str, Entry]:
    """The tensors of one safetensors file. Every size and offset is checked against the file; nothing else is read."""
    if not file.is_file():
        raise UserError(f"{file} is missing; download the checkpoint again")
    size = file.stat().st_size
    with file.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        if size < 8 or length > min(size - 8, LONGEST_HEADER):
            raise UserError(
                f"{file} has {size} bytes and announces a header of {length}, so it is no whole safetensors file; copy it again"
            )
        content = parse_json(stream.read(length), file)
    content.pop("__metadata__", None)
    spans = []
    entries = {}
    for name, entry in content.items():
        dtype, shape, start, end = _checked(file, name, entry)
        spans.append((start, end, name))
        entries[name] = Entry(file, dtype, shape)
    position = 0
    for start, end, name in sorted(spans):
        if start != position:
            raise UserError(
                f"{file}: tensor {name} starts at byte {start} where {position} was expected (gap or overlap); copy the file again"
            )
        position = end
    if position != size - 8 - length:
        raise UserError(f"{file} should hold {position} bytes of tensors and holds {size - 8 - length} (cut short?); copy it again")
    return entries


def _checked(file: Path, name: str, entry: Any) -> tuple[torch.dtype, tuple[int, ...], int, int]:
    """(dtype, shape, start, end) of a header entry that says nothing impossible."""
    try:
        dtype_name, shape, (start, end) = entry["dtype"], entry["shape"], entry["data_offsets"]
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{file}: the header entry of {name} lacks dtype, shape or two data_offsets; copy the file again") from error
    if not isinstance(dtype_name, str) or dtype_name not in DTYPES:
        raise UserError(f"{file}: tensor {name} has dtype {dtype_name!r}, expected one of {', '.join(DTYPES)}; convert the checkpoint")
    numbers = [*shape, start, end] if isinstance(shape, list) else [None]
    if not all(type(number) is int and 0 <= number < 2**63 for number in numbers):
        raise UserError(f"{file}: tensor {name} has an impossible shape or offset in its header; copy the file again")
    expected = math.prod(shape) * DTYPES[dtype_name].itemsize
    if end - start != expected:
        raise UserError(
            f"{file}: tensor {name} of {dtype_name} {shape} needs {expected} bytes, its offsets give {end - start}; copy it again"
        )
    return DTYPES[dtype_name], tuple(shape), start, end


def parse_json(content: bytes, origin: Path) -> dict[str, Any]:
    """The JSON object in `content`. Raises UserError naming `origin` if it is anything else, or says a thing twice."""

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) != len(pairs):
            raise ValueError("a key occurs twice")
        return found

    try:
        value = json.loads(content.decode("utf-8"), object_pairs_hook=once)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{origin} does not hold valid JSON where it must ({error}); copy the file again") from error
    if not isinstance(value, dict):
        raise UserError(f"{origin} holds a JSON {type(value).__name__} where an object is expected; copy the file again")
    return value


def read_json(file: Path) -> dict[str, Any]:
    """The JSON object in a file."""
    if not file.is_file():
        raise UserError(f"{file} is missing; a checkpoint needs it, so check the path or download it again")
    return parse_json(file.read_bytes(), file)


def write_state(tensors: Iterable[tuple[str, Tensor]], directory: Path, max_shard_bytes: int) -> None:
    """Writes model.safetensors, or shards of at most `max_shard_bytes` (one tensor may exceed it) and their index.

    Only one shard's tensors are held at a time. Raises OSError or SafetensorError if the disk does not take them.
    """
    placed: list[list[str]] = []
    total = 0
    for number, shard in enumerate(_shards(tensors, max_shard_bytes)):
        save_file(shard, directory / f"shard-{number}", metadata={"format": "pt"})
        placed.append(list(shard))
        total += sum(tensor.nbytes for tensor in shard.values())
    if len(placed) == 1:
        os.replace(directory / "shard-0", directory / SINGLE)
        return
    weight_map = {}
    for number, names in enumerate(placed):
        shard_name = f"model-{number + 1:05d}-of-{len(placed):05d}.safetensors"
        os.replace(directory / f"shard-{number}", directory / shard_name)
        weight_map.update(dict.fromkeys(names, shard_name))
    index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(weight_map.items()))}
    (directory / INDEX).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")


def _shards(tensors: Iterable[tuple[str, Tensor]], max_shard_bytes: int) -> Iterator[dict[str, Tensor]]:
    shard: dict[str, Tensor] = {}
    held = 0
    for name, tensor in tensors:
        if shard and held + tensor.nbytes > max_shard_bytes:
            yield shard
            shard, held = {}, 0
        shard[name] = tensor.detach().cpu().contiguous()
        held += tensor.nbytes
    yield shard
