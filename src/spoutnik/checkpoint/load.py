"""A model and its tokenizer from whatever a name leads to."""

from pathlib import Path

import torch

from spoutnik.checkpoint.assemble import give_weights, parameters_of, skeleton
from spoutnik.checkpoint.find import find
from spoutnik.checkpoint.gguf import GGUF
from spoutnik.checkpoint.gguf_model import read_gguf
from spoutnik.checkpoint.hf import check_tokenizer, load_checkpoint, load_tokenizer
from spoutnik.errors import UserError
from spoutnik.model.transformer import CausalLM
from spoutnik.text.gguf_tokenizer import from_gguf_fields
from spoutnik.text.tokenizer import Tokenizer


def open_model(name: str | Path, dtype: torch.dtype = torch.float32, device: torch.device | None = None) -> tuple[CausalLM, Tokenizer]:
    """The model that `name` leads to (see `find`) in `dtype` and on `device` (the CPU), and the tokenizer that belongs to it."""
    path = find(name)
    if path.is_dir():
        return load_checkpoint(path, dtype, device=device), load_tokenizer(path)
    return open_gguf(path, dtype, device)


def open_tokenizer(name: str | Path) -> Tokenizer:
    """The tokenizer of the model that `name` leads to, without reading any weights."""
    path = find(name)
    return load_tokenizer(path) if path.is_dir() else from_gguf_fields(GGUF(path).metadata)


def open_gguf(path: Path, dtype: torch.dtype = torch.float32, device: torch.device | None = None) -> tuple[CausalLM, Tokenizer]:
    """The model and the tokenizer in a GGUF file. Raises UserError if its tensors are not those that its metadata describe."""
    file = GGUF(path)
    config, parameters = read_gguf(file, dtype)
    tokenizer = from_gguf_fields(file.metadata)
    check_tokenizer(tokenizer, config)
    matrices = sum(tensor.shape[0] if len(tensor.shape) == 3 else 1 for tensor in file.tensors.values())  # a layer's experts are one tensor
    model = skeleton(config, matrices)
    expected = {name: tuple(tensor.shape) for name, tensor in parameters_of(model).items()}
    found = {name: tuple(tensor.shape) for name, tensor in parameters.items()}
    for name in sorted(expected.keys() | found.keys()):
        if expected.get(name) != found.get(name):
            raise UserError(
                f"{path} gives {name} the shape {found.get(name)}, its metadata imply {expected.get(name)} (None: absent); convert it again"
            )
    return give_weights(model, parameters, device=device), tokenizer
