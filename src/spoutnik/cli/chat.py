"""spoutnik chat: talk to a model in the terminal."""

from typing import Annotated

import typer

from spoutnik.cli.answer import Adapter, Dtype, MaxNewTokens, ModelName, Quantize, Seed, Temperature
from spoutnik.errors import UserError


def chat(
    model: ModelName,
    prompt: Annotated[str | None, typer.Argument(help="Answer this and leave; without it, talk line by line.")] = None,
    max_new_tokens: MaxNewTokens = 1024,
    temperature: Temperature = 0.6,
    seed: Seed = 0,
    dtype: Dtype = None,
    quantize: Quantize = None,
    adapter: Adapter = "",
    as_json: Annotated[bool, typer.Option("--json", help="Print the answer to PROMPT as JSON.")] = False,
) -> None:
    """Chat with a model. Its thinking is shown apart from its answer. Ctrl-C ends an answer, or the conversation between answers."""
    import sys

    import spoutnik
    from spoutnik.cli import answer
    from spoutnik.cli.output import print_json
    from spoutnik.run import interrupt

    if as_json and prompt is None:
        raise UserError("--json needs a PROMPT to answer; give one after the model.")
    answer.prepare_output()
    adapters = {adapter: adapter} if adapter else {}
    loaded = spoutnik.load(model, dtype=dtype or answer.fastest_dtype(), quantize=quantize, adapters=adapters)
    messages: list[dict[str, str]] = []
    interactive = prompt is None and sys.stdin.isatty()
    if interactive:
        print("Ask something; an empty line or Ctrl-D leaves.", file=sys.stderr)
    while question := prompt if prompt is not None else _ask(interactive):
        messages.append({"role": "user", "content": question})
        own_seed = seed + len(messages) // 2
        pieces = loaded.stream(messages, max_new_tokens, temperature, seed=own_seed, cancelled=interrupt.asked, adapter=adapter)
        with interrupt.between_steps(), answer.Screen(thinking=not as_json, answer=not as_json) as screen:
            made = answer.follow(pieces, screen).completion
        if as_json:
            fields = {"reasoning": made.reasoning, "text": made.text, "finish_reason": made.finish_reason}
            print_json({**fields, "prompt_tokens": made.prompt_tokens, "completion_tokens": len(made.token_ids)})
        else:
            answer.tell_if_cut_off(made, max_new_tokens)
        if made.finish_reason == "cancelled" and not interactive:
            raise typer.Exit(130)
        if prompt is not None:
            return
        messages.append({"role": "assistant", "content": made.text})


def _ask(interactive: bool) -> str:
    try:
        return input("> " if interactive else "").strip()
    except EOFError:
        return ""
