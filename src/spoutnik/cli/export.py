"""spoutnik export: a model as one GGUF file, which llama.cpp and its relatives run."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

if TYPE_CHECKING:
    from spoutnik.model.transformer import CausalLM
    from spoutnik.text.tokenizer import Tokenizer

MODEL_HELP = "A checkpoint's folder, a GGUF file, or a model's name."
FORCE_HELP = "Replace a file that is already there."
TYPE_HELP = "What weights are stored in; the rest of the file, such as norms, stays float32."


def export(
    model: Annotated[str, typer.Argument(help=MODEL_HELP)],
    out: Annotated[Path, typer.Option("--gguf", help="The file to write.")],
    file_type: Annotated[Literal["f32", "f16", "q8_0", "q4_1", "q4_0"], typer.Option("--type", help=TYPE_HELP)] = "f16",
    force: Annotated[bool, typer.Option("--force", help=FORCE_HELP)] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print what was written as JSON.")] = False,
) -> None:
    """Write a model into a GGUF file for llama.cpp. See `quantize` for what a smaller type costs."""
    from spoutnik.cli.output import megabytes, print_json

    source, _, _ = write(model, out, file_type, force)
    before, after = bytes_of(source), out.stat().st_size
    if as_json:
        print_json({"model": str(source), "path": str(out), "type": file_type, "bytes_before": before, "bytes_after": after})
        return
    print(f"{out}: {megabytes(after)} in {file_type}, from {megabytes(before)}")


def write(
    model: str, out: Path, file_type: Literal["f32", "f16", "q8_0", "q4_1", "q4_0"], force: bool
) -> "tuple[Path, CausalLM, Tokenizer]":
    """Opens a model and writes it; returns where it was found, and what was. Refuses to replace a file unless told to."""
    from spoutnik.checkpoint.find import find
    from spoutnik.checkpoint.gguf_export import save_gguf
    from spoutnik.checkpoint.load import open_model
    from spoutnik.errors import UserError

    source = find(model)
    if out.is_dir():
        raise UserError(f"{out} is a folder; give the name of a file to write, such as {out / 'model.gguf'}.")
    if out.exists() and not force:
        raise UserError(f"{out} exists already; give another name, or --force to replace it.")
    loaded, tokenizer = open_model(source)
    save_gguf(loaded, tokenizer, out, file_type, name=Path(model).name.removesuffix(".gguf") or None)
    return source, loaded, tokenizer


def bytes_of(model: Path) -> int:
    """What a model's weights take on disk: a GGUF file whole, of a folder its safetensors."""
    files = [model] if model.is_file() else model.glob("model*.safetensors")
    return sum(file.stat().st_size for file in files)
