"""A tokenizer and its chat template as the metadata of a GGUF file, so that llama.cpp makes the same ids of a text.

Files name the pre-tokenizer instead of describing it: see `gguf_tokenizer.py`, which reads what is written here.
"""

import json
import logging
from collections.abc import Iterable
from typing import Any

from spoutnik.errors import UserError
from spoutnik.text.gguf_tokenizer import CONTROL, NORMAL, PRE_TOKENIZERS, UNUSED, USER_DEFINED, from_gguf_fields
from spoutnik.text.tokenizer import Tokenizer

logger = logging.getLogger(__name__)

SAMPLE = (
    "The 1st of May, 2024: isn't x_1 = -12345.678 (99%)?\n\n  def f(a):\n\treturn a+1  # naïve 猫の手 “quoted”…  \r\nHELLO World's end!!\n"
    "Cafe\u0301 ½²٣٤ — Слово, слово!  {'key': [1, 22, 333]}\n\n\n   x"
)
"""What tokens are compared on where no known pre-tokenizer is the tokenizer's own."""
ONE_DIGIT, THREE_DIGITS = r"\p{N}{1,1}", r"\p{N}{1,3}"
DIGITS = range(ord("0"), ord("9") + 1)
UNPRINTABLE = [*range(0x21), *range(0x7F, 0xA1), 0xAD]
"""Bytes that the byte-level alphabet writes as U+0100 and the following."""


def to_gguf_fields(tokenizer: Tokenizer, vocab_size: int) -> dict[str, Any]:
    """The `tokenizer.*` fields for a model with `vocab_size` embeddings; ids without a token get one that is never used.

    Where llama.cpp knows no pre-tokenizer that cuts as this one does, the fields name the nearest and a warning says so. Raises UserError
    for a tokenizer that is no byte-level BPE.
    """
    content = json.loads(tokenizer.backend.to_str())
    model, cuts = content["model"], _cuts(content["pre_tokenizer"])
    if model["type"] != "BPE" or model.get("byte_fallback") or not any(cut[0] == "ByteLevel" for cut in cuts):
        raise UserError("The tokenizer is no byte-level BPE, the only kind that Spoutnik writes into a GGUF; export a model that has one.")
    merges = [" ".join(pair) if isinstance(pair, list) else pair for pair in model["merges"]]
    added = {token["content"]: CONTROL if token["special"] else USER_DEFINED for token in content["added_tokens"]}
    names = {index: token for token, index in tokenizer.backend.get_vocab(with_added_tokens=True).items()}
    tokens = [names.get(index, f"[PAD{index}]") for index in range(vocab_size)]
    types = [added.get(token, NORMAL) if index in names else UNUSED for index, token in enumerate(tokens)]
    ends = sorted(tokenizer.eos_token_ids - {tokenizer.eos_token_id})
    if len(ends) > 2:
        logger.warning("The file has room for three tokens that end a turn; ids %s will not end one.", ends[2:])
    begins = tokenizer.bos_token_id is not None and tokenizer.encode("a", add_special_tokens=True)[0] == tokenizer.bos_token_id
    fields: dict[str, Any] = {
        "ggml.model": "gpt2",
        "ggml.tokens": tokens,
        "ggml.token_type": types,
        "ggml.merges": merges,
        "ggml.bos_token_id": tokenizer.bos_token_id,
        "ggml.eos_token_id": tokenizer.eos_token_id,
        "ggml.eot_token_id": ends[0] if ends else None,
        "ggml.eom_token_id": ends[1] if len(ends) > 1 else None,
        "ggml.padding_token_id": tokenizer.pad_token_id,
        "ggml.add_bos_token": begins,
        "chat_template": tokenizer.chat_template,
    }
    written = {f"tokenizer.{key}": value for key, value in fields.items() if value is not None}
    return {**written, "tokenizer.ggml.pre": _exact_name(content, cuts, merges) or _nearest_name(tokenizer, written)}


def _cuts(pre_tokenizer: dict[str, Any] | None) -> list[tuple[Any, ...]]:
    """What a pre-tokenizer does, step by step, without what only tells how a file spells it."""
    match pre_tokenizer:
        case None:
            return []
        case {"type": "Sequence", "pretokenizers": steps}:
            return [cut for step in steps for cut in _cuts(step)]
        case {"type": "ByteLevel", "add_prefix_space": space, "use_regex": regex}:
            return [("ByteLevel", space, regex)]
        case {"type": "Split", "pattern": pattern, "behavior": behaviour, "invert": invert}:
            regex = str(pattern.get("Regex", "")).replace("\r", r"\r").replace("\n", r"\n")
            return [("Split", regex or pattern, behaviour, invert)]
    return [(json.dumps(pre_tokenizer, sort_keys=True),)]


def _exact_name(content: dict[str, Any], cuts: list[tuple[Any, ...]], merges: list[str]) -> str | None:
    """The name of the pre-tokenizer that gives every text the same ids, if there is one.

    Composing characters (Unicode NFC) does not count: llama.cpp never does it, whatever the name.
    """
    whole_words, composes = bool(content["model"].get("ignore_merges")), content["normalizer"]
    accepted = [cuts] if _joins_numerals(merges) else [cuts, [_in_groups_of_three(cut) for cut in cuts]]
    for name, make in PRE_TOKENIZERS.items():
        same = _cuts(json.loads(make().__getstate__())) in accepted and whole_words == (name == "llama-bpe")
        if same and composes in (None, {"type": "NFC"}):
            return name
    return None


def _nearest_name(tokenizer: Tokenizer, fields: dict[str, Any]) -> str:
    """The name with which SAMPLE gets the most of its tokens; where that does not decide, most of its cuts."""
    own, alike = _sample(tokenizer), dict[str, list[float]]()
    for name in PRE_TOKENIZERS:
        other = _sample(from_gguf_fields({**fields, "tokenizer.ggml.pre": name}))
        alike[name] = [len(mine & its) / len(mine | its) for mine, its in zip(own, other, strict=True)]
    nearest = max(alike, key=alike.__getitem__)
    logger.warning(
        "llama.cpp knows no pre-tokenizer that cuts text as this tokenizer does: the file names the nearest, %s, which makes %.0f %% of a "
        "sample's tokens the same. There a text may get other token ids than here; ids that are given as numbers are exact.",
        nearest, 100 * alike[nearest][0],
    )  # fmt: skip
    return nearest


def _sample(tokenizer: Tokenizer) -> tuple[set[Any], set[Any]]:
    """SAMPLE's tokens with their places, and where it was cut before any merge."""
    backend = tokenizer.backend
    encoded = backend.encode(SAMPLE, add_special_tokens=False)
    return set(zip(encoded.ids, encoded.offsets, strict=True)), {end for _, (_, end) in backend.pre_tokenizer.pre_tokenize_str(SAMPLE)}


def _in_groups_of_three(cut: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(THREE_DIGITS if part == ONE_DIGIT else part for part in cut)


def _joins_numerals(merges: Iterable[str]) -> bool:
    """Whether a merge may join two numerals, so that it matters into how long groups they are cut.

    A numeral is a digit, or any character beyond ASCII: its last byte is 0x80 to 0xBF, its first one higher.
    """
    for left, _, right in (merge.partition(" ") for merge in merges):
        last, first = _byte(left[-1]), _byte(right[0])
        if (last in DIGITS or 0x80 <= last < 0xC0) and (first in DIGITS or first >= 0xC0):
            return True
    return False


def _byte(character: str) -> int:
    """The byte that a character of the byte-level alphabet stands for."""
    code = ord(character)
    return code if code < 0x100 else UNPRINTABLE[code - 0x100]
