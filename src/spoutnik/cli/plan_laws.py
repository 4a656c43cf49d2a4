"""spoutnik plan laws: the best size and tokens for a budget, by the scaling laws that there are."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from spoutnik.cli.plan_output import Json, Lang, Price, Why, explain
from spoutnik.errors import UserError

if TYPE_CHECKING:
    from spoutnik.plan.figure import Figure
    from spoutnik.plan.laws import Optimum
    from spoutnik.plan.speech import Speech


def laws(
    budget: Annotated[str, typer.Option(help="Compute or money: 1e24flop or 5.5e6usd (5.5Musd).")],
    chip: Annotated[str | None, typer.Option(help="The chip that money hires; `spoutnik plan chips` lists them.")] = None,
    size: Annotated[str | None, typer.Option(help="Parameters of another size than the best, as in 8B: what it would cost.")] = None,
    price: Price = None,
    as_json: Json = False,
    why: Why = None,
    lang: Lang = None,
) -> None:
    """The size and the tokens that a budget trains best, and how sure that is."""
    from spoutnik.cli.output import print_json
    from spoutnik.plan.amount import amount
    from spoutnik.plan.figure import Figure, find_figure
    from spoutnik.plan.laws import at_size, best
    from spoutnik.plan.speech import language_of, speech

    words, flop = speech(language_of(lang)), _compute(budget, chip, price)
    advised, other = best(flop), at_size(flop, amount(size, "--size")) if size else {}
    if why:
        named = [
            Figure(f"{one.law}.{name}", f.value, f.unit, f.formula, f.inputs, f.note) for one in advised for name, f in one.figures.items()
        ]
        explain(find_figure(why, [*named, *other.values(), flop]), as_json, words)
    elif as_json:
        told: dict[str, Any] = {"flop": flop.to_json()}
        told["laws"] = {one.law: _numbers(one.figures) | {"source": one.source, "status": one.status} for one in advised}
        print_json(told | ({"at_size": _numbers(other)} if other else {}))
    else:
        print(_text(flop, advised, other, words))


def _numbers(figures: "dict[str, Figure]") -> dict[str, Any]:
    return {name: figure.to_json() for name, figure in figures.items()}


def _compute(budget: str, chip_name: str | None, price: str | None) -> "Figure":
    from spoutnik.plan.amount import amount
    from spoutnik.plan.chips import chip as chip_named
    from spoutnik.plan.figure import Figure, Input
    from spoutnik.plan.laws import compute_for

    text = budget.strip().lower().replace("$", "")
    if text.endswith("flop"):
        if chip_name or price:
            raise UserError("--chip and --price turn money into compute; leave them out where --budget is in FLOP.")
        value = amount(text.removesuffix("flop"), "--budget")
        return Figure("flop", value, "FLOP", "given", (Input("budget", value, "FLOP", "--budget", "assumed"),))
    if not text.endswith("usd") and "$" not in budget:
        raise UserError("--budget {budget!r} is neither compute nor money; write it as 1e24flop or 5.5e6usd.", budget=budget)
    if chip_name is None:
        raise UserError("Money buys compute of some chip; name it with --chip, as in --chip h100-sxm.")
    device = chip_named(chip_name)
    rate = Input("price", amount(price, "--price"), "USD/h", "--price", "assumed") if price else device.price_input()
    return compute_for(
        amount(text.removesuffix("usd"), "--budget"), rate, device.input("bf16_tflops" if device.bf16_tflops else "fp16_tflops")
    )


def _text(flop: "Figure", advised: "tuple[Optimum, ...]", other: "dict[str, Figure]", words: "Speech") -> str:
    from spoutnik.cli.plan_rules import flop_text
    from spoutnik.plan.answer import columns, in_brackets

    def said(figure: "Figure") -> str:
        return words.quantity(figure.value, "") + in_brackets(figure.value, "", words)

    first = advised[0].figures
    lines = [words("laws.title", flop=flop_text(flop, words), size=said(first["size"]), tokens=said(first["tokens"]))]
    rows = [[words(f"laws.{key}") for key in ("law", "size", "tokens", "ratio", "basis")]]
    for one in advised:
        numbers = [said(one.figures[key]) for key in ("size", "tokens", "ratio")]
        rows.append([words(f"laws.{one.law}"), *numbers, words(f"status.{one.status}")])
    lines += ["", columns(rows, right=()), ""]
    lines.append(words("laws.loss", loss=words.number(round(first["loss"].middle, 3))))
    second, third = advised[1].figures, advised[2].figures
    lines.append(
        words(
            "laws.rates",
            rate=words.number(float(f"{second['learning_rate'].middle:.2g}")),
            batch=words.quantity(second["batch_tokens"].value, ""),
        )
    )
    lines.append(
        words(
            "laws.mixture", total=words.quantity(third["size_total"].value, ""), times=words.number(round(third["dense_compute"].middle, 1))
        )
    )
    if other:
        values = {key: words.quantity(other[key].value, "") for key in ("tokens", "loss", "excess")}
        lines.append(words("laws.at_size", **values))
    lines.append(words("laws.notes"))
    lines += [words("rules.source", source="; ".join(one.source for one in advised))]
    return "\n".join(lines)
