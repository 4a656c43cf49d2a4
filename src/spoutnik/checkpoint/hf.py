"""A checkpoint is a Hugging Face directory: config.json, safetensors, tokenizer, generation_config.json, and spoutnik.json (lineage)."""

import json
import logging
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from spoutnik.checkpoint import fp8
from spoutnik.checkpoint.assemble import assemble, give_weights, parameters_of, skeleton
from spoutnik.checkpoint.layout import HEAD, ROUTER_BIAS, copies, pieces
from spoutnik.checkpoint.shards import BESIDE, INDEX, State, read_json, read_state, write_state
from spoutnik.errors import UserError
from spoutnik.model.config import ModelConfig
from spoutnik.model.transformer import CausalLM
from spoutnik.run.stage import sync
from spoutnik.text.tokenizer import Tokenizer

logger = logging.getLogger(__name__)

LINEAGE = "spoutnik.json"
OLD_TOKENIZER = ("chat_template.jinja", "special_tokens_map.json", "added_tokens.json")
"""Files of other writers that would overrule the tokenizer_config.json beside them."""


def save_checkpoint(
    model: CausalLM,
    tokenizer: Tokenizer | None,
    directory: str | Path,
    lineage: dict[str, Any] | None = None,
    max_shard_bytes: int = 5_000_000_000,
) -> None:
    """Writes a directory that transformers loads. Until all of it is on disk, a checkpoint already there stays as it was.

    Everything is written beside the directory and synchronised, then renamed into place: at once if the directory is new, file by file if
    not, so for a save that no crash can ever divide give a directory of its own. `lineage` (where the weights come from) becomes
    spoutnik.json; other files of the directory are kept. Raises UserError if the disk is full or not writable.
    """
    if tokenizer is not None:
        check_tokenizer(tokenizer, model.config)
    directory = Path(directory).resolve()
    aside = directory.with_name(f".{directory.name}.saving")
    try:
        shutil.rmtree(aside, ignore_errors=True)
        aside.mkdir(parents=True)
        _write(model, tokenizer, aside, lineage, max_shard_bytes)
        for file in aside.iterdir():
            sync(file)
        sync(aside)
        _publish(aside, directory)
    except (OSError, SafetensorError) as error:
        raise UserError(
            f"The checkpoint cannot be saved to {directory} ({error}); make room or choose another place, and save again."
        ) from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _write(model: CausalLM, tokenizer: Tokenizer | None, aside: Path, lineage: dict[str, Any] | None, max_shard_bytes: int) -> None:
    config = model.config
    ids: dict[str, Any] = {key: getattr(config, key) for key in ("bos_token_id", "eos_token_id", "pad_token_id")}
    if tokenizer is not None:
        tokenizer.save(aside)
        ends = sorted(tokenizer.eos_token_ids)
        own = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": ends, "pad_token_id": tokenizer.pad_token_id}
        ids |= {key: value for key, value in own.items() if value not in (None, [])}
        ids["eos_token_id"] = ends[0] if len(ends) == 1 else ids["eos_token_id"]
    dtype = str(model.model.embed_tokens.weight.dtype).removeprefix("torch.")
    _write_json(aside / "config.json", {**config.with_(**ids).to_hf(), "dtype": dtype})
    _write_json(aside / "generation_config.json", {key: value for key, value in ids.items() if value is not None})
    if lineage is not None:
        _write_json(aside / LINEAGE, lineage)
    hidden = _unknown_to_transformers(config)
    write_state(((name, tensor) for name, tensor in _to_files(model) if not name.startswith(hidden)), aside, max_shard_bytes)
    if hidden:
        beside = {name: tensor.detach().cpu().contiguous() for name, tensor in _to_files(model) if name.startswith(hidden)}
        save_file(beside, aside / BESIDE, metadata={"format": "pt"})


def _unknown_to_transformers(config: ModelConfig) -> tuple[str, ...]:
    """Beginnings of the names of multi-token prediction layers that transformers would call unexpected."""
    layers = range(config.num_hidden_layers, config.num_hidden_layers + config.num_nextn_predict_layers)
    return tuple(f"model.layers.{layer}." for layer in layers if layer != 61)


def _to_files(model: CausalLM) -> Iterator[tuple[str, Tensor]]:
    """The model's tensors under the names of the files."""
    state = parameters_of(model)
    for name, piece in pieces({name: tensor.shape for name, tensor in state.items()}).items():
        tensor = state[piece.parameter][piece.slot]
        yield name, tensor.float() if name.endswith(ROUTER_BIAS) else tensor
    for name, parameter in copies(model.config).items():
        if name != HEAD:
            yield name, state[parameter].clone()


def _write_json(file: Path, content: dict[str, Any]) -> None:
    file.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _publish(aside: Path, directory: Path) -> None:
    """Renames what was written into place; what an earlier checkpoint left and this one lacks goes last."""
    if directory.exists():
        new = {file.name for file in aside.iterdir()}
        for name in sorted(new):
            os.replace(aside / name, directory / name)
        stale = {file.name for file in directory.glob("model*.safetensors")} | {INDEX, LINEAGE}
        stale |= set(OLD_TOKENIZER) if "tokenizer.json" in new else set()
        for name in stale - new:
            (directory / name).unlink(missing_ok=True)
        sync(directory)
    else:
        os.rename(aside, directory)
    sync(directory.parent)


def load_checkpoint(
    directory: str | Path, dtype: torch.dtype = torch.float32, check_finite: bool = True, device: torch.device | None = None
) -> CausalLM:
    """The model in a Hugging Face directory, with every floating-point parameter in `dtype` but the router's bias in float32.

    FP8 weights are dequantised. If the files hold nothing of the multi-token prediction layers that config.json announces (transformers
    drops them when it saves), the model has none. Raises UserError for missing, unexpected or misshapen tensors, for copies that differ,
    and, with `check_finite`, for NaN or infinity.
    """
    directory = Path(directory)
    raw = read_json(directory / "config.json")
    quantisation = raw.get("quantization_config")
    block = fp8.block_size(quantisation) if quantisation else None
    files = read_state(directory)
    model = skeleton(_with_what_is_there(read_config(directory), files), len(files))
    return give_weights(model, assemble(files, model, dtype, block), check_finite, device)


def read_config(directory: str | Path) -> ModelConfig:
    """The configuration in a directory's config.json."""
    file = Path(directory) / "config.json"
    try:
        return ModelConfig.from_hf(read_json(file))
    except (TypeError, ValueError, AttributeError, KeyError, ArithmeticError) as error:
        raise UserError(f"{file} gives a field an impossible value ({error}); take the one that belongs to the weights.") from error


def load_tokenizer(directory: str | Path) -> Tokenizer:
    """The tokenizer in a directory, known to fit the model beside it."""
    tokenizer = Tokenizer.from_dir(directory)
    check_tokenizer(tokenizer, read_config(directory))
    return tokenizer


def check_tokenizer(tokenizer: Tokenizer, config: ModelConfig) -> None:
    """Raises UserError if the tokenizer makes ids that the model's embedding does not have."""
    if tokenizer.vocab_size > config.vocab_size:
        raise UserError(
            f"The tokenizer has {tokenizer.vocab_size} tokens, but the model's embedding only {config.vocab_size}; "
            "use the tokenizer that the model was trained with."
        )


def _with_what_is_there(config: ModelConfig, files: State) -> ModelConfig:
    layers = (re.match(r"model\.layers\.(\d{1,9})\.", name) for name in files)
    if not config.num_nextn_predict_layers or any(layer and int(layer[1]) >= config.num_hidden_layers for layer in layers):
        return config
    logger.warning("config.json announces a multi-token prediction layer that the files lack; loading the model without it")
    return config.with_(num_nextn_predict_layers=0)
