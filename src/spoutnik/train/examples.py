"""Supervised examples: a prompt, rendered by the student's own chat template, and an answer whose tokens are learned."""

import json
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor

from spoutnik.errors import UserError
from spoutnik.text import reasoning
from spoutnik.text.tokenizer import Tokenizer

POOL = 8


@dataclass(frozen=True)
class Example:
    """Token ids of a whole conversation; those from `answer_start` on are learned, the end of the turn among them."""

    ids: list[int]
    answer_start: int


@dataclass(frozen=True)
class Pair:
    """Two answers to one prompt, of which one is preferred."""

    chosen: Example
    rejected: Example
    reference: tuple[float, float] | None = None
    """The reference's log-probabilities of the two, once it was asked."""

    @property
    def ids(self) -> list[int]:
        """Those of the longer one, whose length is the pair's."""
        return max(self.chosen.ids, self.rejected.ids, key=len)


class HasIds(Protocol):
    @property
    def ids(self) -> list[int]:
        """Token ids; those of a batch are about as many."""
        ...


Item = TypeVar("Item", bound=HasIds)


def read_examples(path: Path, tokenizer: Tokenizer, longest: int) -> list[Example]:
    """Examples of samples.jsonl, or of any JSONL whose lines hold `messages` or `prompt` and `completion`.

    `longest` is the model's context in tokens; longer examples are refused. Raises UserError naming the line at fault.
    """
    return [_encoded(_messages(line, place), tokenizer, longest, place) for line, place in _lines(path)]


def read_pairs(path: Path, tokenizer: Tokenizer, longest: int) -> list[Pair]:
    """Pairs of samples.jsonl, or of any JSONL whose lines hold `prompt`, `chosen` and `rejected`, in text. Errors as `read_examples`."""
    pairs = []
    for line, place in _lines(path):
        prompt, *answers = _texts(line, place)
        asked = {"role": "user", "content": prompt}
        examples = [_encoded([asked, {"role": "assistant", "content": answer}], tokenizer, longest, place) for answer in answers]
        pairs.append(Pair(examples[0], examples[1]))
    return pairs


def _texts(line: str, place: str) -> list[str]:
    """prompt, chosen, rejected."""
    try:
        content = json.loads(line)
        texts = [content[key] for key in ("prompt", "chosen", "rejected")]
    except (ValueError, KeyError, TypeError):
        texts = []
    if not texts or not all(isinstance(text, str) for text in texts) or texts[1] == texts[2]:
        raise UserError(f"{place} is not a pair: it needs `prompt`, `chosen` and `rejected`, texts of which the last two differ.")
    return texts


def _encoded(messages: Sequence[dict[str, Any]], tokenizer: Tokenizer, longest: int, place: str) -> Example:
    example = encode(messages, tokenizer)
    if len(example.ids) > longest:
        raise UserError(f"{place} has {len(example.ids)} tokens, but the model's context is {longest}; shorten it.")
    return example


def _lines(path: Path) -> list[tuple[str, str]]:
    """The lines that are not blank, each with its place for errors; there is one at least."""
    file = path / "samples.jsonl" if path.is_dir() else path
    if not file.is_file():
        raise UserError(f"There is no data at {file}; name a finished sample stage or a .jsonl file.")
    try:
        lines = file.read_text(encoding="utf-8").split("\n")  # not splitlines: JSON strings may hold U+2028 and its like
    except UnicodeDecodeError as error:
        raise UserError(f"{file} is not UTF-8 text (byte {error.start}); convert it, for instance with iconv.") from error
    found = [(line, f"{file}, line {number}") for number, line in enumerate(lines, start=1) if line.strip()]
    if not found:
        raise UserError(f"{file} holds no example; a sample stage that kept nothing needs a better model or more samples.")
    return found


def _messages(line: str, place: str) -> list[dict[str, Any]]:
    try:
        content = json.loads(line)
        if "messages" in content:
            messages = list(content["messages"])
        else:
            messages = [{"role": "user", "content": content["prompt"]}, {"role": "assistant", "content": content["completion"]}]
        texts = [text for message in messages for text in (message["role"], message["content"])]
        valid = len(messages) > 1 and messages[-1]["role"] == "assistant" and all(isinstance(text, str) for text in texts)
    except (ValueError, KeyError, TypeError, IndexError):
        valid = False
    if not valid:
        raise UserError(
            f"{place} is not an example: it needs `messages` whose last is the assistant's answer, or `prompt` and `completion`."
        )
    return messages


def encode(messages: Sequence[dict[str, Any]], tokenizer: Tokenizer) -> Example:
    """The prompt as the model will see it when it is asked, then the answer with its thinking, then the end of the turn.

    Templates cut thinking out of assistant turns, so the answer is not rendered by the template but follows the rendered prompt. Where
    the template opens the thinking itself, the answer's own `<think>` is left out; where it does not and the answer thinks, it is added.
    """
    prompt = tokenizer.render(messages[:-1], add_generation_prompt=True)
    answer = messages[-1]["content"]
    opened = reasoning.starts_thinking(prompt)
    bare = answer.removeprefix(reasoning.OPEN).removeprefix("\n") if answer.startswith(reasoning.OPEN) else answer
    if opened:
        answer = bare
    elif reasoning.CLOSE in answer:
        answer = f"{reasoning.OPEN}\n{bare}"
    prompt_ids = tokenizer.encode(prompt)
    end = [] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id]
    return Example([*prompt_ids, *tokenizer.encode(answer), *end], len(prompt_ids))


def batch_of(examples: Sequence[Item], step: int, size: int, seed: int) -> list[Item]:
    """The items of step `step`: every epoch is shuffled anew; within pools of 8 batches, like lengths go together."""
    order: list[int] = []
    first = step // POOL * POOL * size
    while len(order) < POOL * size:
        epoch, place = divmod(first + len(order), len(examples))
        shuffled = random.Random(f"{seed}/{epoch}").sample(range(len(examples)), len(examples))
        order += shuffled[place : place + POOL * size - len(order)]
    pool = sorted(order, key=lambda index: len(examples[index].ids))  # stable: those of one length stay shuffled
    batches = [pool[start : start + size] for start in range(0, len(pool), size)]
    random.Random(f"{seed}/pool/{step // POOL}").shuffle(batches)
    return [examples[index] for index in batches[step % POOL]]


def collate(
    rows: Sequence[Sequence[int]], starts: Sequence[int], pad: int = 0, device: torch.device | None = None
) -> tuple[Tensor, Tensor]:
    """(ids_BT int64, mask_BT float32) on `device` (the CPU): rows padded on the right.

    The mask is 1 on learned tokens, from each row's start on.
    """
    longest = max(map(len, rows))
    ids_BT = torch.tensor([[*row, *[pad] * (longest - len(row))] for row in rows])
    place_T = torch.arange(longest)
    start_B1, end_B1 = torch.tensor(starts)[:, None], torch.tensor([len(row) for row in rows])[:, None]
    return ids_BT.to(device), ((place_T >= start_B1) & (place_T < end_B1)).float().to(device)
