"""spoutnik quantize: a smaller model, and what it cost."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from spoutnik.cli.export import FORCE_HELP, MODEL_HELP, TYPE_HELP


def quantize(
    model: Annotated[str, typer.Argument(help=MODEL_HELP)],
    out: Annotated[Path, typer.Argument(help="The GGUF file to write.")],
    file_type: Annotated[Literal["q8_0", "q4_1", "q4_0"], typer.Option("--type", help=TYPE_HELP)] = "q8_0",
    text: Annotated[Path | None, typer.Option(help="Compare on this text instead of one that the model writes itself.")] = None,
    force: Annotated[bool, typer.Option("--force", help=FORCE_HELP)] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the figures as JSON.")] = False,
) -> None:
    """Write a model's weights in 8 or 4 bits into a GGUF file, and measure what that cost against the model as it was.

    Both read the same text: how often they find the same token likeliest, how far their distributions lie apart (KL), and how well each
    predicts the text (perplexity).
    """
    import sys
    from dataclasses import asdict

    from spoutnik.checkpoint.load import open_gguf
    from spoutnik.cli.export import bytes_of, write
    from spoutnik.cli.output import megabytes, print_json, table
    from spoutnik.errors import UserError
    from spoutnik.evaluate.fidelity import compare, own_passages, passages_of

    content = _read(text) if text is not None else None
    source, original, tokenizer = write(model, out, file_type, force)
    print(f"Wrote {out}; now measuring.", file=sys.stderr)
    passages = own_passages(original, tokenizer) if content is None else passages_of(content, original, tokenizer)
    if not passages:
        raise UserError(f"{text} is too short to compare on, but {out} is written; give a text of at least two tokens.")
    found = compare(original, open_gguf(out)[0], passages)
    before, after = bytes_of(source), out.stat().st_size
    if as_json:
        sizes = {"model": str(source), "path": str(out), "type": file_type, "bytes_before": before, "bytes_after": after}
        print_json({**sizes, "text": str(text) if text else "own", **asdict(found)})
        return
    print(
        f"{out}: {megabytes(after)} instead of {megabytes(before)}, {found.greedy:.1%} of greedy tokens kept "
        f"(95 % interval {found.low:.1%} to {found.high:.1%}, n = {found.tokens:,})\n"
    )
    rows = [
        ["", "before", "after"],
        ["size", megabytes(before), megabytes(after)],
        ["greedy tokens kept", "", f"{found.greedy:.2%}"],
        ["KL, nats a token", "", f"{found.kl:.5f}"],
        ["perplexity", f"{found.perplexity_original:.4f}", f"{found.perplexity_changed:.4f}"],
    ]
    print(table(rows))


def _read(text: Path) -> str:
    from spoutnik.errors import UserError

    try:
        return text.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{text} cannot be read as text ({error}); give a file in UTF-8.") from error
