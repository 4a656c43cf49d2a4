"""spoutnik chat: talk to a model in the terminal."""

from typing import Annotated

import typer


def chat(
    model: Annotated[str, typer.Argument(help="A checkpoint's folder, a GGUF file, or a model's name, such as smollm2.")],
    prompt: Annotated[str | None, typer.Argument(help="Answer this and leave; without it, talk line by line.")] = None,
    max_new_tokens: Annotated[int, typer.Option(help="An answer's length at most, thinking included.")] = 512,
    temperature: Annotated[float, typer.Option(help="0 always takes the likeliest token.")] = 0.6,
    seed: Annotated[int, typer.Option(help="Of the sampling.")] = 0,
    dtype: Annotated[str, typer.Option(help="float32 or bfloat16.")] = "float32",
    as_json: Annotated[bool, typer.Option("--json", help="Print the answer to PROMPT as JSON.")] = False,
) -> None:
    """Chat with a model. Its thinking is shown apart from its answer."""
    import sys

    import spoutnik
    from spoutnik.cli.output import print_json
    from spoutnik.errors import UserError

    if as_json and prompt is None:
        raise UserError("--json needs a PROMPT to answer; give one after the model.")
    loaded = spoutnik.load(model, dtype=dtype)
    messages: list[dict[str, str]] = []
    interactive = prompt is None and sys.stdin.isatty()
    if interactive:
        print("Ask something; an empty line or Ctrl-D leaves.", file=sys.stderr)
    while True:
        question = prompt if prompt is not None else _ask(interactive)
        if not question:
            return
        messages.append({"role": "user", "content": question})
        answer = loaded.chat(messages, max_new_tokens=max_new_tokens, temperature=temperature, seed=seed + len(messages) // 2)
        if as_json:
            fields = {"reasoning": answer.reasoning, "text": answer.text, "finish_reason": answer.finish_reason}
            print_json({**fields, "prompt_tokens": answer.prompt_tokens, "completion_tokens": len(answer.token_ids)})
        else:
            _show(answer.reasoning, answer.text, answer.finish_reason)
        if prompt is not None:
            return
        messages.append({"role": "assistant", "content": answer.text})


def _ask(interactive: bool) -> str:
    try:
        return input("> " if interactive else "").strip()
    except EOFError:
        return ""


def _show(reasoning: str | None, text: str, finish_reason: str) -> None:
    """Thinking is dim on a terminal and indented anywhere, so the answer stands out without colour, too."""
    import sys

    dim, plain = ("\033[2m", "\033[0m") if sys.stdout.isatty() else ("", "")
    if reasoning and reasoning.strip():
        indented = "\n".join(f"  {line}" for line in reasoning.strip().splitlines())
        print(f"{dim}{indented}{plain}\n")
    print(text.strip())
    if finish_reason == "length":
        print("(cut off: the answer reached --max-new-tokens)", file=sys.stderr)
