"""spoutnik plan chips and rules: what chips there are, what US export rules say of them, and where the EU's lines of compute lie."""

import datetime
import re
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from spoutnik.cli.plan_output import Json, Lang, Why, explain
from spoutnik.errors import UserError

if TYPE_CHECKING:
    from spoutnik.plan.ai_act import Standing
    from spoutnik.plan.chips import Chip
    from spoutnik.plan.figure import Figure
    from spoutnik.plan.speech import Speech

Day = Annotated[str | None, typer.Option("--date", metavar="DAY", help="The day that rules are asked for, as 2026-01-15; else today.")]


def chips(date: Day = None, as_json: Json = False, lang: Lang = None) -> None:
    """The chips that plans know: rates, memory, links, price, TPP, performance density and export class."""
    from spoutnik.cli.output import print_json
    from spoutnik.plan.answer import columns
    from spoutnik.plan.chips import chips as all_chips
    from spoutnik.plan.rules import check_day
    from spoutnik.plan.speech import language_of, speech

    day, words = check_day(date or datetime.date.today().isoformat()), speech(language_of(lang))
    table = all_chips()
    if as_json:
        print_json({name: _chip_json(one, day) for name, one in table.items()})
        return
    heads = [words("chips.name"), words("chips.bits"), "FP8", words("chips.memory"), "TB/s", words("chips.links"), "W", "TPP", "PD"]
    rows = [[*heads, words("chips.class"), words("chips.review"), words("chips.price")]]
    rows += [_chip_row(one, day, words) for one in table.values()]
    print(words("chips.title", count=len(table), day=day))
    print("\n" + columns(rows, right=tuple(range(1, 9))))
    dates = sorted({one.price.date for one in table.values() if one.price})
    print("\n" + words("chips.notes", dates=", ".join(dates)))


def _chip_row(chip: "Chip", day: str, words: "Speech") -> list[str]:
    from spoutnik.plan.rules import performance_density, tpp, verdict

    found, density = verdict(chip, day), performance_density(chip)

    def said(field: str, digits: int = 4) -> str:
        value = getattr(chip, field)
        return words.number(float(f"{value:.{digits}g}")) + ("*" if field in chip.assumed else "") if value else "-"

    price = "-"
    if chip.price:
        price = f"{words.number(chip.price.low)}-{words.number(chip.price.high)}{'*' if chip.price.status == 'assumed' else ''}"
    dense = f"{words.number(round(density.middle, 2))}{'*' if 'die_mm2' in chip.assumed else ''}" if density else "-"
    fields = ("bf16_tflops" if chip.bf16_tflops else "fp16_tflops", "fp8_tflops", "memory_gb", "bandwidth_tbs", "scale_up_gbs", "tdp_w")
    rates = [said(field) for field in fields]
    review = words(f"review.{found.review if chip.under_us_rules else 'outside'}")
    return [chip.name, *rates, words.number(round(tpp(chip).middle)), dense, "/".join(found.classes) or "-", review, price]


def _chip_json(chip: "Chip", day: str) -> dict[str, Any]:
    from spoutnik.plan.rules import history, performance_density, tpp, verdict

    density = performance_density(chip)
    return asdict(chip) | {
        "tpp": tpp(chip).middle, "performance_density": density.middle if density else None,
        "export": asdict(verdict(chip, day)), "history": [asdict(one) for one in history(chip)],
    }  # fmt: skip


def rules(
    subject: Annotated[
        str, typer.Argument(help="A chip; or training compute in FLOP (3.4e24, or 8e24..1.1e25); or a model, with --tokens.")
    ],
    tokens: Annotated[str | None, typer.Option(help="Tokens that the model is trained on, as in 14.8T.")] = None,
    date: Day = None,
    open_source: Annotated[bool, typer.Option("--open", help="Free licence, public weights, no payment.")] = False,
    modifies: Annotated[
        str | None, typer.Option(metavar="FLOP", help="The compute changes another's model that took this much (or: unknown).")
    ] = None,
    as_json: Json = False,
    why: Why = None,
    lang: Lang = None,
) -> None:
    """What export rules say of a chip, or which duties the EU AI Act ties to an amount of compute. Not legal advice."""
    from spoutnik.plan.chips import chips as all_chips
    from spoutnik.plan.rules import check_day
    from spoutnik.plan.speech import language_of, speech

    words, chip = speech(language_of(lang)), all_chips().get(subject.lower())
    if chip and tokens is not None:
        raise UserError("{chip} is a chip, and --tokens are those of a model; name the model, or leave them out.", chip=chip.name)
    if why:
        _explain(why, chip or _compute(subject, tokens), as_json, words)
    elif chip:
        _show_chip(chip, check_day(date or datetime.date.today().isoformat()), as_json, words)
    else:
        _show_compute(_compute(subject, tokens), open_source, modifies, as_json, words)


def _explain(name: str, subject: "Chip | Figure", as_json: bool, words: "Speech") -> None:
    from spoutnik.plan.chips import Chip
    from spoutnik.plan.figure import find_figure
    from spoutnik.plan.rules import performance_density, tpp

    figures = [performance_density(subject) or tpp(subject)] if isinstance(subject, Chip) else [subject]
    explain(find_figure(name, figures), as_json, words)


def _show_chip(chip: "Chip", day: str, as_json: bool, words: "Speech") -> None:
    from spoutnik.cli.output import print_json
    from spoutnik.plan.rules import history, performance_density, tpp, verdict

    if as_json:
        print_json(_chip_json(chip, day))
        return
    now, density = verdict(chip, day), performance_density(chip)
    why = words("rules.class_of", **{"class": "/".join(now.classes), "why": _measured(now.why, words)}) if now.classes else ""
    print(words("rules.chip_now", chip=chip.title, day=day, review=words(f"review.{now.review}"), **{"class": why}))
    print(
        words(
            "rules.chip_why", tpp=words.number(round(tpp(chip).middle)), density=words.number(round(density.middle, 2)) if density else "?"
        )
    )
    if not chip.under_us_rules:
        print(words("rules.foreign"))
    for one in history(chip):
        when = words("rules.ended", since=one.effective, until=one.until) if one.until else words("rules.in_force", since=one.effective)
        said = words(f"review.{one.review}") + (f" ({_measured(one.why, words)})" if one.why else "")
        print("\n" + words("rules.item", name=f"{one.title[words.language]} ({when})", text=said))
        print(f"  {one.explains[words.language]}")
        print(f"  {words('rules.source', source=one.source)} [{words(f'status.{one.status}')}]")


def _measured(why: str, words: "Speech") -> str:
    """A verdict's numbers ("TPP 2,368 < 21,000; memory GB/s 4,000 < 6,500") as the language writes them; a chip's name as it is."""
    parts = [re.fullmatch(r"(\D+) (\d.* (?:<|>=) .*)", part) for part in why.split("; ")]
    return "; ".join(f"{words.phrase(part[1])} {words.marked(part[2])}" for part in parts if part) if all(parts) else why


def _compute(subject: str, tokens: str | None) -> "Figure":
    """The compute that is asked about: a number, a range, or a model trained on tokens."""
    from spoutnik.plan.amount import amount
    from spoutnik.plan.chips import chips as all_chips
    from spoutnik.plan.components import counts
    from spoutnik.plan.figure import Figure, Input
    from spoutnik.plan.models import open_model
    from spoutnik.plan.uncertain import uniform

    if tokens is not None:
        number, counted = amount(tokens, "--tokens"), counts(open_model(subject))
        each = Input("flops_per_token", counted.training(mtp=True), "FLOP/token", subject, "computed")
        given = Input("tokens", number, "tokens", "--tokens", "assumed")
        return Figure("training_flop", number * counted.training(mtp=True), "FLOP", "tokens * flops_per_token", (given, each))
    low, separator, high = subject.lower().removesuffix("flop").partition("..")
    try:
        ends = [amount(low, "FLOP"), amount(high, "FLOP")] if separator else [amount(low, "FLOP")]
    except UserError:
        raise UserError(
            "{subject!r} is neither a chip ({chips}, ...) nor an amount of FLOP (as 3.4e24 or 8e24..1.1e25); for a model "
            "add --tokens, as in --tokens 14.8T.",
            subject=subject,
            chips=", ".join(list(all_chips())[:4]),
        ) from None
    value = uniform(*ends, name="training_flop") if separator else ends[0]
    return Figure("training_flop", value, "FLOP", "given", (Input("given", value, "FLOP", "the command line", "assumed"),))


def _show_compute(flop: "Figure", open_source: bool, modifies: str | None, as_json: bool, words: "Speech") -> None:
    from spoutnik.cli.output import print_json
    from spoutnik.plan.ai_act import standing
    from spoutnik.plan.amount import amount

    original = amount(modifies, "--modifies") if modifies and modifies != "unknown" else None
    found = standing(flop, open_source, original, modified=modifies is not None)
    if as_json:
        print_json({"flop": flop.to_json(), **{key: value for key, value in asdict(found).items() if key != "flop"}})
    else:
        print(_compute_text(found, words))


def flop_text(flop: "Figure", words: "Speech") -> str:
    """As the lines themselves are written: 3.86e24 FLOP, or what lies between P10 and P90."""
    from spoutnik.plan.uncertain import Uncertain

    def said(value: float) -> str:
        return f"{value:.3g}".replace("+", "")

    if not isinstance(flop.value, Uncertain):
        return f"{said(flop.middle)} FLOP"
    ends = flop.value.range()
    return f"{said(flop.middle)} FLOP ({words('plain.range', low=said(ends.p10), high=said(ends.p90))})"


def _compute_text(found: "Standing", words: "Speech") -> str:
    from spoutnik.plan.rules import weights_line

    language = words.language
    met = [line for line in found.lines if line.chance >= 0.5]
    said = met[-1].title[language] if met else words("rules.no_line" if found.provider is None else "rules.no_duty")
    lines = [words("rules.flop", flop=flop_text(found.flop, words), standing=said)]
    for line in found.lines if found.provider is None else ():
        bound = words("rules.line", flop=f"{line.flop:.0e}".replace("+", ""))
        chance = words("rules.chance", title=line.title[language], chance=words.quantity(line.chance, "share"))
        lines.append("  " + words("rules.item", name=bound, text=f"{chance} ({line.rests_on[language]})"))
    if found.provider is not None:
        lines += [words("rules.provider" if found.provider else "rules.no_provider"), f"  {found.modifier[language]}"]
    if found.duties:
        lines += ["", words("rules.duties")]
        for duty in found.duties:
            away = f" ({words('rules.falls_away')})" if duty.falls_away else ""
            lines.append("  " + words("rules.item", name=duty.article, text=duty.text[language] + away))
        lines += [f"  {found.open_text[language]}", "", words("rules.dates")]
        for one in found.dates:
            lines.append("  " + words("rules.item", name=one["day"], text=one["text"][language]))
    us = weights_line()
    over = "over_us" if found.flop.middle > us["flop_min"] else "under_us"
    lines += ["", words("rules.us_line", title=us["title"][language] + ".", explains=us["explains"][language])]
    lines.append(words(f"rules.{over}", flop=f"{us['flop_min']:.0e} FLOP".replace("+", "")))
    lines.append(words("rules.source", source=found.source))
    return "\n".join(lines)
