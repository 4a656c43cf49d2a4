"""What the commands of `spoutnik plan` share: their output options, and a second plan to compare with."""

import codecs
import io
import sys
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from spoutnik.errors import UserError

if TYPE_CHECKING:
    from spoutnik.plan.figure import Figure
    from spoutnik.plan.result import Plan
    from spoutnik.plan.schedule import Timeline
    from spoutnik.plan.speech import Speech

Json = Annotated[bool, typer.Option("--json", help="One JSON object.")]
Html = Annotated[Path | None, typer.Option("--html", metavar="FILE", help="Also write a page that needs nothing else.")]
Why = Annotated[str | None, typer.Option("--why", metavar="FIGURE", help="A figure's formula and inputs, down to their sources.")]
Compare = Annotated[
    str | None,
    typer.Option("--compare", metavar="KEY=VALUE,...", help="A second plan: this one with other options, as in chip=h20,devices=4096."),
]
Lang = Annotated[str | None, typer.Option("--lang", help="en or fr; else French where LC_ALL, LC_MESSAGES or LANG is, else English.")]
Chip = Annotated[str, typer.Option(help="Name of a chip; `spoutnik plan chips` lists them.")]
Price = Annotated[str | None, typer.Option(help="USD for one hour of one device; else the spread of published offers.")]

Measured = Annotated[
    str | None, typer.Option(metavar="RUN", help="A run's folder: its measured power takes the place of the chip's data sheet.")
]

Location = Annotated[str, typer.Option(help="Whose electricity: world, france, eu... for energy, carbon dioxide and water.")]


PLAIN = {"\u0153": "oe", "\u00d7": "x", "\u00f7": "/", "\u2019": "'", "\u00ab": '"', "\u00bb": '"', "\u202f": " ", "\u00a0": " "}
"""How signs are written where the locale has none but ASCII and no decomposition helps."""


def write_plainly() -> None:
    """What the locale cannot write is written by the nearest of ASCII from here on: CO2, x, a plain space."""
    codecs.register_error("plainly", _plainly)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="plainly")


def _plainly(error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeEncodeError)
    signs = error.object[error.start : error.end]
    return "".join(PLAIN.get(sign) or _ascii(sign) or "?" for sign in signs), error.end


def _ascii(sign: str) -> str:
    return unicodedata.normalize("NFKD", sign).encode("ascii", "ignore").decode()


@dataclass(frozen=True)
class Drawn:
    """A plan with what only its page shows: a device's memory in bytes, one step of its pipeline."""

    plan: "Plan"
    capacity: float | None = None
    timeline: "Timeline | None" = None


@dataclass(frozen=True)
class Output:
    """How a plan is to be shown."""

    as_json: bool = False
    html: Path | None = None
    why: str | None = None
    compare: str | None = None
    lang: str | None = None
    options: dict[str, Any] = field(default_factory=dict)
    """The command's own options, which --compare may change."""


def spoken(command: Callable[..., None]) -> Callable[..., None]:
    """The command, telling its user's mistakes in the language that it was asked to speak."""

    @wraps(command)
    def run(*arguments: Any, **options: Any) -> None:
        try:
            command(*arguments, **options)
        except UserError as error:
            from spoutnik.plan.speech import language_of, speech
            from spoutnik.plan.words import LANGUAGES

            asked = str(options.get("lang") or "").lower()
            words = speech(language_of(asked if asked in LANGUAGES else None))
            raise UserError(words.phrase(error.phrase)) from error

    return run


def show(make: Callable[..., Drawn], output: Output) -> None:
    """Makes the plan (and the one that it is compared with) from the options and prints it."""
    from spoutnik.cli.output import print_json
    from spoutnik.plan.answer import render
    from spoutnik.plan.page import page
    from spoutnik.plan.speech import language_of, speech

    words = speech(language_of(output.lang))
    made = make(**output.options)
    if output.compare is not None:
        if output.why:
            raise UserError("--why explains one plan; leave --compare out, or put its options into the plan itself.")
        _show_comparison(made, make(**_changed(output.options, output.compare)), output, words)
        return
    if output.html:
        write(output.html, page(made.plan, words, made.capacity, made.timeline))
    if output.why:
        explain(made.plan.figure(output.why), output.as_json, words)
    elif output.as_json:
        print_json(made.plan.to_json())
    else:
        print(render(made.plan, words))


def explain(figure: "Figure", as_json: bool, words: "Speech") -> None:
    """Prints a figure's formula and inputs, down to their sources."""
    from spoutnik.cli.output import print_json
    from spoutnik.plan.answer import why
    from spoutnik.plan.result import reasons

    if as_json:
        print_json(reasons(figure))
    else:
        print(why(figure, words))


def _show_comparison(first: Drawn, second: Drawn, output: Output, words: "Speech") -> None:
    from spoutnik.cli.output import print_json
    from spoutnik.plan.answer import render_comparison
    from spoutnik.plan.compare import compare
    from spoutnik.plan.page import comparison_page

    comparison = compare(first.plan, second.plan, str(output.compare))
    if output.html:
        write(output.html, comparison_page(comparison, words))
    if output.as_json:
        print_json(comparison.to_json())
    else:
        print(render_comparison(comparison, words))


def _changed(options: dict[str, Any], changes: str) -> dict[str, Any]:
    """The options with those of --compare in their place."""
    from spoutnik.plan.amount import switch

    changed = dict(options)
    for pair in changes.split(","):
        key, separator, value = pair.partition("=")
        key = key.strip().lstrip("-").replace("-", "_")
        key = "devices" if key == "count" and "devices" in options else key
        if not separator or key not in options:
            raise UserError(
                "--compare {pair!r} changes no option; write KEY=VALUE with one of {known}.",
                pair=pair,
                known=", ".join(_shown(name) for name in options),
            )
        changed[key] = switch(value, f"--compare {_shown(key)}") if isinstance(options[key], bool) else value.strip()
    return changed


def _shown(name: str) -> str:
    return name.replace("_", "-")


def write(path: Path, text: str) -> None:
    """Writes a page, whole or not at all. Raises UserError where it cannot be written."""
    from spoutnik.run.directory import write_whole

    if path.is_dir():
        raise UserError("--html {path} is a folder; name a file in it, as {path}/plan.html.", path=path)
    try:
        write_whole(path, text)
    except OSError as error:
        raise UserError(
            "--html {path} cannot be written ({strerror}); name a file in a folder that exists.", path=path, strerror=error.strerror
        ) from error
