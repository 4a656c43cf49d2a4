"""From the tensors of the files to the parameters of a model: every name and shape is checked before the first tensor is read."""

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from spoutnik.checkpoint.fp8 import SCALE, dequantise
from spoutnik.checkpoint.layout import HEAD, IGNORED, ROUTER_BIAS, Piece, copies, pieces
from spoutnik.checkpoint.shards import State
from spoutnik.errors import UserError
from spoutnik.model.config import ModelConfig
from spoutnik.model.rope import frequencies
from spoutnik.model.transformer import CausalLM

FP8 = torch.float8_e4m3fn
MOST_CHANNELS = 1 << 16
"""Of a head, that are rotated: their frequencies are computed before weights are compared, so a number alone must not claim memory."""


def skeleton(config: ModelConfig, tensors: int) -> CausalLM:
    """The model without memory behind its parameters, for files that hold that many tensors.

    Raises UserError for a configuration that no such files can belong to, before it costs time or memory.
    """
    counts = ("num_hidden_layers", "num_nextn_predict_layers", "n_routed_experts")
    if any(getattr(config, count) > tensors for count in counts):
        found = ", ".join(f"{count} {getattr(config, count)}" for count in counts)
        raise UserError(
            f"The configuration ({found}) needs more tensors than the {tensors} in the files; the two must come from one model."
        )
    channels = config.qk_rope_head_dim if config.is_latent else config.head_dim
    if channels > MOST_CHANNELS:
        raise UserError(f"The configuration rotates {channels} channels of a head, more than {MOST_CHANNELS}; take the weights' own.")
    try:
        with torch.device("meta"):
            return CausalLM(config)
    except (RuntimeError, TypeError, ValueError, ArithmeticError) as error:
        raise UserError(f"The configuration describes an impossible model ({error}); take the one that belongs to the weights.") from error


def parameters_of(model: CausalLM) -> dict[str, Tensor]:
    """What a checkpoint holds: the state dict, without the head if it is the embedding."""
    state = model.state_dict()
    if model.config.tie_word_embeddings:
        del state[HEAD]
    return state


def give_weights(
    model: CausalLM, parameters: Mapping[str, Tensor], check_finite: bool = True, device: torch.device | None = None
) -> CausalLM:
    """Makes `parameters` (as `parameters_of` names them) the model's own, on `device` if one is given and without a copy if they lie there.

    Ties the head if it is the embedding.
    """
    if check_finite:
        for name, tensor in parameters.items():
            # A sum is finite only if every term is, and takes a tenth of the time of looking at each; it may overflow without a fault.
            if not tensor.sum().isfinite() and not tensor.isfinite().all():
                raise UserError(f"Parameter {name} holds NaN or infinity, so the model cannot compute; take an earlier checkpoint.")
    placed = {name: tensor.to(device) for name, tensor in parameters.items()}
    model.load_state_dict(placed, strict=False, assign=True)
    model._frequencies_F = frequencies(model.config)  # computed, never stored: a skeleton's have no numbers
    if model.config.tie_word_embeddings:
        model.lm_head.weight = model.model.embed_tokens.weight
    return model


def assemble(files: State, model: CausalLM, dtype: torch.dtype, block: tuple[int, int] | None) -> dict[str, Tensor]:
    """The model's parameters in `dtype`, read from `files` (with FP8 blocks of `block`, if any); `model` may be a skeleton.

    Raises UserError naming the tensors that are missing, unexpected or misshapen, and a repeated one that differs from its original.
    """
    shapes = {name: tuple(tensor.shape) for name, tensor in parameters_of(model).items()}
    table = pieces(shapes)
    repeated = {name: Piece(parameter, shapes[parameter]) for name, parameter in copies(model.config).items() if name in files}
    _check_names(files, table, repeated)
    for name, piece in (table | repeated).items():
        _check_entry(files, name, piece)
    filled = {name: torch.empty(shape, dtype=torch.float32 if name.endswith(ROUTER_BIAS) else dtype) for name, shape in shapes.items()}
    for name, piece in table.items():
        filled[piece.parameter][piece.slot].copy_(_read(files, name, block, dtype))
    for name, piece in repeated.items():
        if not torch.equal(_read(files, name, block, dtype).to(dtype), filled[piece.parameter]):
            raise UserError(f"The files repeat {piece.parameter} as {name}, but with other values; this model shares one: export it again.")
    return filled


def _check_names(files: State, table: Mapping[str, Piece], repeated: Mapping[str, Piece]) -> None:
    scales = {name + SCALE for name in files if files.entries[name].dtype == FP8}
    missing = table.keys() - files.keys()
    unexpected = {name for name in files.keys() - table.keys() - repeated.keys() - scales if not name.endswith(IGNORED)}
    if missing or unexpected:
        raise UserError(
            f"The weights do not match config.json: {_some(missing)} missing, {_some(unexpected)} unexpected; "
            "the two must come from the same model."
        )


def _some(names: Iterable[str]) -> str:
    ordered = sorted(names)
    shown = ", ".join(ordered[:4])
    return "none" if not ordered else shown if len(ordered) <= 4 else f"{shown} and {len(ordered) - 4} more"


def _check_entry(files: State, name: str, piece: Piece) -> None:
    entry = files.entries[name]
    if entry.shape != piece.shape:
        raise UserError(
            f"Tensor {name} has shape {list(entry.shape)}, config.json implies {list(piece.shape)}; they must come from one model."
        )
    if not entry.dtype.is_floating_point:
        raise UserError(
            f"Tensor {name} has dtype {entry.dtype}, which is no weight type that Spoutnik reads; use an unquantised checkpoint."
        )
    if entry.dtype == FP8 and len(entry.shape) != 2:
        raise UserError(f"Tensor {name} is FP8 with shape {list(entry.shape)}; only matrices are, so export the checkpoint again.")


def _read(files: State, name: str, block: tuple[int, int] | None, dtype: torch.dtype) -> Tensor:
    tensor = files[name]
    if tensor.dtype != FP8:
        return tensor
    if block is None:
        raise UserError(f"Tensor {name} is FP8 but config.json has no quantization_config; take the config.json that belongs to it.")
    return dequantise(name, tensor, files.get(name + SCALE), block, dtype)
