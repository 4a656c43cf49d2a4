"""What `run` and `chat` share: their options, and an answer that is shown and timed as it is made."""

import io
import signal
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Annotated, Literal, Self, TextIO

import typer

from spoutnik.text.trimmed import Trimmed

if TYPE_CHECKING:
    from spoutnik.engine.request import Completion
    from spoutnik.engine.stream import Piece

ModelName = Annotated[str, typer.Argument(help="A checkpoint's folder, a GGUF file, or a model's name, such as smollm2.")]
MaxNewTokens = Annotated[int, typer.Option(help="An answer's length at most, thinking included.")]
Temperature = Annotated[float, typer.Option(help="0 always takes the likeliest token.")]
TopP = Annotated[float, typer.Option(help="Draw from the fewest tokens that hold this much probability; 1 draws from all.")]
Seed = Annotated[int, typer.Option(help="Of the sampling: the same gives the same answer.")]
Dtype = Annotated[
    str | None, typer.Option(help="float32 or bfloat16 [default: bfloat16 where the kernels run, else float32].", show_default=False)
]
Quantize = Annotated[Literal["int8", "int4"] | None, typer.Option(help="Smaller weights: faster, less exact. Needs the kernels.")]
Adapter = Annotated[str, typer.Option(metavar="DIR", help="A LoRA adapter's folder, in PEFT's format: it answers.", show_default=False)]

DIM, PLAIN = "\033[2m", "\033[0m"
CONTROLS = dict.fromkeys([*range(9), *range(11, 32), *range(127, 160)])
"""What a terminal might obey, but for tab and line feed: text that a model wrote is not to move the cursor or set the clipboard."""


def prepare_output() -> None:
    """A closed pipe ends this process at its next write, without a word, as it does any Unix tool; and what the locale cannot write
    becomes a question mark.
    """
    if hasattr(signal, "SIGPIPE"):
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


def fastest_dtype() -> str:
    """bfloat16 has half of float32's bytes to read for each token, but only the kernels gain by it."""
    from spoutnik.engine.kernels.build import available

    return "bfloat16" if available() else "float32"


class Screen:
    """Shows an answer as it comes: the answer alone on stdout; its thinking, if wanted, on stderr, indented and on a terminal dim.

    White space around either is left out, unless the answer is wanted `exact`. Use as a context manager.
    """

    def __init__(self, thinking: bool, answer: bool = True, exact: bool = False) -> None:
        self._thinking, self._answer, self._exact = thinking, answer, exact
        self._reasoning, self._text = Trimmed(), Trimmed()
        self._in_thinking = False
        self._last = "\n"
        self._dim, self._plain = (DIM, PLAIN) if sys.stderr.isatty() else ("", "")

    def __enter__(self) -> Self:
        return self

    def show(self, piece: "Piece") -> None:
        """Writes what the piece adds."""
        reasoning = self._reasoning.feed(piece.reasoning)
        if reasoning and self._thinking:
            if not self._in_thinking:
                sys.stderr.write(f"{self._dim}  ")
                self._in_thinking = True
            _write(reasoning.replace("\n", "\n  "), sys.stderr)
        text = piece.text if self._exact else self._text.feed(piece.text)
        if text and self._answer:
            self._end_thinking("\n\n")
            _write(text, sys.stdout)
            self._last = text[-1]

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._end_thinking("\n")
        if self._last != "\n":
            _write("\n", sys.stdout)

    def _end_thinking(self, gap: str) -> None:
        if self._in_thinking:
            self._in_thinking = False
            sys.stderr.write(f"{self._plain}{gap}")
            sys.stderr.flush()


@dataclass(frozen=True)
class Timed:
    """A completion, and when its first and last token came: seconds from the start of the prompt's computation, None if none did."""

    completion: "Completion"
    first_s: float | None
    last_s: float | None


def follow(pieces: "Iterator[Piece]", screen: Screen) -> Timed:
    """Shows pieces as they come. Where they are to end on Ctrl-C, make them with `cancelled=interrupt.asked` and call this within
    `interrupt.between_steps`.
    """
    start, first, last = time.monotonic(), None, None
    for piece in pieces:
        if piece.completion is None:
            last = time.monotonic() - start
            first = last if first is None else first
        screen.show(piece)
        if piece.completion is not None:
            return Timed(piece.completion, first, last)
    raise AssertionError("an answer ends with its completion")


def tell_if_cut_off(completion: "Completion", max_new_tokens: int) -> None:
    """Says on stderr why an answer has no end."""
    if completion.finish_reason == "length":
        full = len(completion.token_ids) < max_new_tokens
        print(f"(cut off: {'the context is full' if full else 'the answer reached --max-new-tokens'})", file=sys.stderr)


def _write(text: str, stream: TextIO) -> None:
    """Writes at once; a terminal gets no control characters."""
    stream.write(text.translate(CONTROLS) if stream.isatty() else text)
    stream.flush()
