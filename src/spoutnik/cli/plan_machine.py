"""spoutnik plan machine: how fast this machine is."""

from typing import TYPE_CHECKING, Annotated

import typer

from spoutnik.cli.plan_output import Lang

if TYPE_CHECKING:
    from spoutnik.plan.probe import Probe


def machine(
    again: Annotated[bool, typer.Option("--again", help="Measure anew instead of using what was measured before.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the figures as JSON.")] = False,
    lang: Lang = None,
) -> None:
    """Measure this machine once, in half a minute: products, memory, a small model's step, disk. Predictions rest on it."""
    from dataclasses import asdict

    from spoutnik.cli.output import print_json, table
    from spoutnik.plan.probe import figures
    from spoutnik.plan.speech import language_of, speech

    words = speech(language_of(lang))
    found = probe(again)
    if as_json:
        print_json(asdict(found))
        return
    rate = words.quantity(found.gemm_bfloat16, "FLOP/s")
    print(words("machine.answer", machine=found.identity, rate=rate, date=found.date), end="\n\n")
    rows = [[figure.name, words.quantity(figure.value, figure.unit), words.phrase(figure.inputs[0].name)] for figure in figures(found)]
    print(table([[words(f"machine.{name}") for name in ("figure", "measured", "what")], *rows]))


def probe(again: bool = False) -> "Probe":
    """This machine's probe; says on stderr when it is measured."""
    import sys

    from spoutnik.plan.probe import probed

    if again or not is_measured():
        print("Measuring how fast this machine is, once (half a minute) ...", file=sys.stderr, flush=True)
    return probed(again)


def is_measured() -> bool:
    """Whether a probe of this machine is kept."""
    from spoutnik.plan.probe import cache_folder, identity, read_probe

    kept = read_probe(cache_folder() / "probe.json")
    return kept is not None and kept.identity == identity()
