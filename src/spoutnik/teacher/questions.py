"""Questions without answers, from a file: what a student is asked whose answers a teacher grades."""

import json
from pathlib import Path

from spoutnik.errors import UserError


def read_prompts(path: Path) -> list[str]:
    """The `prompt` of each line. Raises UserError naming the line at fault."""
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"The questions in {path} cannot be read ({error}); give a JSONL file with a `prompt` on each line.") from error
    prompts = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            prompt = json.loads(line)["prompt"]
        except (ValueError, KeyError, TypeError, RecursionError):
            prompt = None
        if not isinstance(prompt, str) or not prompt.strip():
            raise UserError(f'{path}, line {number} is no question; write it as {{"prompt": "..."}}.')
        prompts.append(prompt)
    if not prompts:
        raise UserError(f'{path} holds no question; write each as {{"prompt": "..."}} on a line of its own.')
    return prompts
