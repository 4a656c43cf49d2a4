"""Two tokenizers, compared by content: the tokens that they share where both cut text alike, the common cuts where they do not."""

import json
from collections.abc import Sequence
from dataclasses import dataclass

from tokenizers import decoders

from spoutnik.text.tokenizer import Tokenizer


@dataclass(frozen=True)
class SharedTokens:
    """Pairs of ids, of one token each; the ends of a turn are a pair, however they are written."""

    ours: list[int]
    theirs: list[int]


def shared_tokens(ours: Tokenizer, theirs: Tokenizer) -> SharedTokens | None:
    """What two tokenizers have in common that cut every text alike, special tokens apart; None where they may cut it otherwise.

    Alike means: the same normalizer, pre-tokenizer and merges in the same order, over the same pieces. Ids may differ, and so may the added
    tokens: a model that was taught further ones, or other ones, cuts its text as before.
    """
    if _cutting(ours) != _cutting(theirs):
        return None
    known = theirs.backend.get_vocab(with_added_tokens=True)
    pairs = {index: known[token] for token, index in ours.backend.get_vocab(with_added_tokens=True).items() if token in known}
    if ours.eos_token_id is not None and theirs.eos_token_id is not None:
        pairs = {our: their for our, their in pairs.items() if their != theirs.eos_token_id}
        pairs[ours.eos_token_id] = theirs.eos_token_id
    return SharedTokens(list(pairs), list(pairs.values()))


def _cutting(tokenizer: Tokenizer) -> str:
    """All that decides where text is cut, but not which ids the pieces get."""
    content = json.loads(tokenizer.backend.to_str())
    added = {token["content"] for token in content["added_tokens"]}
    model = {key: value for key, value in content["model"].items() if key != "vocab"}
    pieces = sorted(set(content["model"].get("vocab", ())) - added)
    return json.dumps([content["normalizer"], content["pre_tokenizer"], model, pieces], sort_keys=True)


def token_bytes(tokenizer: Tokenizer) -> list[bytes] | None:
    """The bytes of every token by its id (b"" for ids without one); None unless the tokenizer is a byte-level one.

    Byte-level tokenizers write each byte as a printable character: those that are printable as themselves, the others from U+0100 on.
    """
    if not isinstance(tokenizer.backend.decoder, decoders.ByteLevel):
        return None
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    bytes_of = {chr(byte): byte for byte in printable} | {chr(0x100 + place): byte for place, byte in enumerate(others)}
    added = {entry["content"] for entry in json.loads(tokenizer.backend.to_str())["added_tokens"]}
    found = [b""] * tokenizer.vocab_size
    for token, index in tokenizer.backend.get_vocab(with_added_tokens=True).items():
        found[index] = token.encode() if token in added else bytes(bytes_of[character] for character in token)
    return found


@dataclass(frozen=True)
class Chunk:
    """A stretch of text that both cuts begin and end at: places of its first tokens and of those after its last."""

    ours: tuple[int, int]
    theirs: tuple[int, int]


def chunks(ours: Sequence[bytes], theirs: Sequence[bytes]) -> list[Chunk]:
    """The shortest stretches at whose ends both ways to cut a text agree, from its beginning to the last such end.

    `ours` and `theirs` are the tokens' bytes; where they stop to be the same text (a byte that forms no character was lost, a normalizer
    changed one) nothing is common any more.
    """
    text, other = b"".join(ours), b"".join(theirs)
    same = next((place for place, (a, b) in enumerate(zip(text, other, strict=False)) if a != b), min(len(text), len(other)))
    ends = {end: place for place, end in _ends(theirs) if end <= same}
    found: list[Chunk] = []
    our_start = their_start = 0
    for place, end in _ends(ours):
        if end in ends:
            found.append(Chunk((our_start, place), (their_start, ends[end])))
            our_start, their_start = place, ends[end]
    return found


def _ends(tokens: Sequence[bytes]) -> list[tuple[int, int]]:
    """(tokens so far, bytes so far) after each token that has bytes."""
    ends, total = [], 0
    for place, token in enumerate(tokens, start=1):
        total += len(token)
        if token:
            ends.append((place, total))
    return ends
