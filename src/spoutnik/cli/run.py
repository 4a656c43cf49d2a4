"""spoutnik run: one answer, made for pipes."""

from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from spoutnik.cli.answer import Adapter, Dtype, MaxNewTokens, ModelName, Quantize, Seed, Temperature, Timed, TopP
from spoutnik.errors import UserError

if TYPE_CHECKING:
    from spoutnik.recipe.tables import Price
    from spoutnik.run.ledger import Costs

PRICE_HELP = "What it is charged at, as in a recipe's [price]: kwh=0.30, cpu_core_hour=0.02, currency=CHF, watts_per_core=8."


def run(
    model: ModelName,
    prompt: Annotated[str | None, typer.Argument(help="What to answer; text that is piped in follows it after a blank line.")] = None,
    system: Annotated[str | None, typer.Option(help="A system message before it.")] = None,
    raw: Annotated[bool, typer.Option("--raw", help="Continue the text as it stands, without a chat template.")] = False,
    thinking: Annotated[
        Literal["show", "hide"] | None, typer.Option(help="On stderr, or not at all [default: show on a terminal].", show_default=False)
    ] = None,
    max_new_tokens: MaxNewTokens = 1024,
    temperature: Temperature = 0.6,
    top_p: TopP = 0.95,
    seed: Seed = 0,
    dtype: Dtype = None,
    quantize: Quantize = None,
    adapter: Adapter = "",
    speculate: Annotated[
        bool, typer.Option(help="Let a model with a multi-token prediction layer guess ahead: the same answer, sooner.")
    ] = True,
    price: Annotated[list[str] | None, typer.Option(help=PRICE_HELP)] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object at the end: text, reasoning, usage, timing, cost.")
    ] = False,
) -> None:
    """Answer once: the answer goes to stdout as it is made, all else to stderr."""
    import sys
    import time

    import spoutnik
    from spoutnik.cli import answer
    from spoutnik.cli.output import print_json
    from spoutnik.device import HOST, computing_device
    from spoutnik.run import interrupt
    from spoutnik.run.ledger import CostMeter, Costs

    start, accelerated = time.monotonic(), quantize is None and computing_device().type != HOST
    meter = CostMeter(accelerators=int(accelerated))
    answer.prepare_output()
    question, rates = _question(prompt, system, raw), read_price(price) if price else None
    dtype = dtype or answer.fastest_dtype()
    adapters = {adapter: adapter} if adapter else {}
    loaded = spoutnik.load(model, dtype=dtype, quantize=quantize, adapters=adapters, speculate=speculate)
    if not raw and loaded.tokenizer.chat_template is None:
        raise UserError(f"{model} has no chat template, so it holds no conversations; add --raw to have your text continued.")
    pieces = loaded.stream(question, max_new_tokens, temperature, top_p, seed, cancelled=interrupt.asked, adapter=adapter)
    ready_s = time.monotonic() - start
    show = thinking == "show" or (thinking is None and not as_json and sys.stderr.isatty())
    with interrupt.between_steps(), answer.Screen(show, answer=not as_json, exact=raw) as screen:
        timed = answer.follow(pieces, screen)
    costs = Costs()
    meter.charge(costs, rates or read_price([]))
    figures = _figures(timed, ready_s, costs)
    if as_json:
        print_json(figures | {"model": model, "dtype": dtype, "quantize": quantize, "adapter": adapter or None, "seed": seed})
    else:
        answer.tell_if_cut_off(timed.completion, max_new_tokens)
        print(_line(figures), file=sys.stderr)
    if timed.completion.finish_reason == "cancelled":
        raise typer.Exit(130)


def _question(prompt: str | None, system: str | None, raw: bool) -> str | list[dict[str, str]]:
    """What the model is asked: a conversation, or with `raw` the text itself."""
    parts = [part for part in (_checked(prompt or "", "The PROMPT"), _piped()) if part.strip()]
    if not parts:
        raise UserError("There is nothing to answer: give a PROMPT after the model, or pipe text in; for a conversation, `spoutnik chat`.")
    text = "\n\n".join(parts)
    if raw and system is not None:
        raise UserError("--system begins a conversation, and --raw continues text without one; leave one of them out.")
    if raw:
        return text
    before = [] if system is None else [{"role": "system", "content": _checked(system, "The --system message")}]
    return [*before, {"role": "user", "content": text}]


def _piped() -> str:
    """What is piped or redirected in, without the line ends behind it (as the shell's $(...) gives it); nothing from a terminal."""
    import sys

    if sys.stdin is None or sys.stdin.isatty():
        return ""
    content = sys.stdin.buffer.read()
    try:
        return content.decode("utf-8-sig").rstrip("\r\n")
    except UnicodeDecodeError as error:
        raise UserError(
            f"What is piped in is no UTF-8 text (byte {content[error.start]:#04x} at {error.start}); convert it, for instance with iconv."
        ) from error


def _checked(text: str, what: str) -> str:
    """An argument, known to be whole characters: Python passes broken bytes on in disguise."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise UserError(f"{what} is no UTF-8 text (character {error.start + 1} is broken); check the encoding of your terminal.") from error
    return text


def read_price(pairs: list[str]) -> "Price":
    """The prices that `--price KEY=VALUE` sets. The schema is imported late: it takes a tenth of a second before the first token."""
    from spoutnik.cli.output import task_options
    from spoutnik.recipe import parse_recipe

    only = {"kind": "report", "name": "report"}
    return parse_recipe({"name": "run", "price": task_options(pairs, "--price", "kwh=0.30"), "stage": [only]}, "--price").price


def _figures(timed: Timed, ready_s: float, costs: "Costs") -> dict[str, Any]:
    """What --json prints of an answer. Rates are None where too little was made to tell."""
    completion = timed.completion
    computed, made = completion.prompt_tokens - completion.cached_tokens, len(completion.token_ids)
    prompt_rate = computed / timed.first_s if timed.first_s else None
    rate = (made - 1) / (timed.last_s - timed.first_s) if timed.first_s and timed.last_s and made > 1 else None
    return {
        "text": completion.text,
        "reasoning": completion.reasoning,
        "finish_reason": completion.finish_reason,
        "usage": {
            "prompt_tokens": completion.prompt_tokens,
            "cached_tokens": completion.cached_tokens,
            "completion_tokens": made,
            "drafted_tokens": completion.drafted_tokens,
            "accepted_tokens": completion.accepted_tokens,
        },
        "timing": {
            "ready_s": ready_s,
            "first_token_s": timed.first_s,
            "last_token_s": timed.last_s,
            "prompt_tokens_per_s": prompt_rate,
            "completion_tokens_per_s": rate,
        },
        "cost": {
            "wall_s": costs.wall_s,
            "cpu_s": costs.cpu_s,
            "cores": costs.cores,
            "energy_joules": costs.energy_joules,
            "energy_source": costs.energy_source,
            "money": costs.money,
            "currency": costs.currency,
        },
    }


def _line(figures: dict[str, Any]) -> str:
    """The same for people."""
    usage, timing, cost = figures["usage"], figures["timing"], figures["cost"]
    first = timing["first_token_s"]

    def at(rate: float | None) -> str:
        return f" at {rate:,.{0 if rate >= 100 else 1}f}/s" if rate else ""

    guessed = f" ({usage['accepted_tokens']} of {usage['drafted_tokens']} guesses right)" if usage["drafted_tokens"] else ""
    parts = [
        f"{usage['prompt_tokens']} prompt tokens ({usage['cached_tokens']} cached){at(timing['prompt_tokens_per_s'])}",
        f"{usage['completion_tokens']} new{at(timing['completion_tokens_per_s'])}{guessed}",
        f"ready after {timing['ready_s']:.2f} s{'' if first is None else f', first token {first:.2f} s later'}",
        f"{cost['cpu_s']:.1f} processor seconds",
        f"{cost['energy_joules']:.3g} J {cost['energy_source']}",
        f"{cost['money']:.2g} {cost['currency']}" if cost["money"] else "",
    ]
    return "; ".join(filter(None, parts))
