"""Runs of 13 words that evaluation items share with a stream of training text. Memory goes with the items, not with the text.

GPT-3 searched training data for runs of 13 words of its evaluations, a word being lower case, without punctuation, between spaces
(arXiv 2005.14165, appendix C). Here punctuation parts words instead of vanishing, an operator between two digits is a word, since 60*47 and
60+47 are different questions, and a Chinese or Japanese character is one, since nothing parts those.
"""

import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

LENGTH = 13
"""Words of a run. An item with fewer is looked for as a whole."""
MOST_SHARED = 10
"""A run that more items hold than this identifies none of them: the wording of a template."""
_FILTER_PLACES_PER_RUN = 16
_BATCH_CHARACTERS = 1 << 20
_OPERATORS = {
    "+": "plus", "-": "minus", "\u2212": "minus", "*": "times", "\u00d7": "times", "/": "over", "\u00f7": "over", "^": "power",
    "=": "equals", "<": "less", ">": "greater",
}  # fmt: skip
_BETWEEN_DIGITS = re.compile(rf"(\d\)*)[ \t]*([{re.escape(''.join(_OPERATORS))}])(?=[ \t]*\(*\d)")

Ids = NDArray[np.int64]


class _Spaced(dict[int, str]):
    """What `str.translate` makes of a character; each is looked up once."""

    def __missing__(self, code: int) -> str:
        character = chr(code)
        if unicodedata.category(character)[0] not in "LMN":
            self[code] = " "
        elif "\u3040" <= character <= "\u30ff" or "\u3400" <= character <= "\u9fff" or "\U00020000" <= character <= "\U0003ffff":
            self[code] = f" {character} "
        else:
            self[code] = character
        return self[code]


_SPACED = _Spaced()


def words(text: str) -> list[str]:
    """The words of a text as they are compared: letters, marks and digits, composed (NFKC) and in lower case."""
    if not text.isascii():
        text = unicodedata.normalize("NFKC", text)
    text = _BETWEEN_DIGITS.sub(lambda match: f"{match[1]} {_OPERATORS[match[2]]} ", text.lower())
    return text.translate(_SPACED).split()


@dataclass(frozen=True)
class Text:
    """A piece of training data. Runs go on from one piece into the next one that `continues` it, and into no other."""

    where: str
    text: str
    continues: bool = False


@dataclass
class Scanned:
    """How much training data was read."""

    texts: int = 0
    characters: int = 0
    words: int = 0


@dataclass(frozen=True)
class Findings:
    """What was found of one item."""

    words: int
    covered: list[bool] = field(repr=False)
    """For each word whether it lies in a run that was found; an item with fewer than LENGTH words is one run."""
    own: bool
    """Whether a run was found that few other items hold."""
    whole: bool
    """Whether the item stands in one text from its first word to its last."""
    where: str
    """A text that holds one of its runs, or the whole item where there is such a text; empty where nothing was found."""

    @property
    def found(self) -> bool:
        """Whether any of its runs was found."""
        return any(self.covered)

    @property
    def coverage(self) -> float:
        """Share of its words that lie in runs that were found."""
        return sum(self.covered) / max(self.words, 1)


class _Runs:
    """All runs of one length, each kept once; found by a hash, then compared word by word."""

    def __init__(self, items: Sequence[Ids], places: Sequence[tuple[int, int]], length: int, most_shared: int):
        """`places` are (item, first word) of the runs; one that more than `most_shared` items hold is shared."""
        self.length = length
        self._multipliers = np.random.default_rng(length).integers(1, 2**64 - 1, length, dtype=np.uint64) | np.uint64(1)
        rows_RL = np.stack([items[item][start : start + length] for item, start in places])
        unique_UL, run_of_R = np.unique(rows_RL, axis=0, return_inverse=True)
        holders = np.unique(np.stack([run_of_R, np.array(places)[:, 0]], axis=1), axis=0)[:, 0]
        self.holders_U = np.bincount(holders, minlength=len(unique_UL))
        self.shared_U = self.holders_U > most_shared
        self.found_U = np.zeros(len(unique_UL), dtype=bool)
        self.where: dict[int, str] = {}
        self.of: dict[int, list[tuple[int, int]]] = {}
        """item -> (first word, run) in their order"""
        for (item, start), run in zip(places, run_of_R.tolist(), strict=True):
            self.of.setdefault(item, []).append((start, run))
        self._unique_UL = unique_UL
        # Two of some million runs with the same 64 bits, of which one would be missed, are left to chance.
        hashes_U = self._hash(unique_UL.ravel(), np.arange(len(unique_UL)) * length)
        self._order_U = np.argsort(hashes_U)
        self._hashes_U = hashes_U[self._order_U]
        bits = max(10, (len(unique_UL) * _FILTER_PLACES_PER_RUN).bit_length())
        self._shift = np.uint64(64 - bits)
        self._filter = np.zeros(1 << bits, dtype=bool)
        self._filter[self._hashes_U >> self._shift] = True

    def search(self, ids: Ids) -> tuple[Ids, Ids]:
        """(first words, runs): where `ids` holds a run; -1 is a word that no item has."""
        unknown = np.concatenate(([0], np.cumsum(ids < 0)))
        starts = np.flatnonzero(unknown[self.length :] == unknown[: -self.length])
        hashes = self._hash(ids, starts)
        likely = self._filter[hashes >> self._shift]
        starts, hashes = starts[likely], hashes[likely]
        places = np.searchsorted(self._hashes_U, hashes) % len(self._hashes_U)
        same = self._hashes_U[places] == hashes
        starts, runs = starts[same], self._order_U[places[same]]
        same = (ids[starts[:, None] + np.arange(self.length)] == self._unique_UL[runs]).all(axis=1)
        return starts[same], runs[same]

    def _hash(self, ids: Ids, starts: Ids) -> NDArray[np.uint64]:
        """Sums of ids times odd random numbers, modulo 2^64; their upper bits are the good ones."""
        total = np.zeros(len(starts), dtype=np.uint64)
        for place, multiplier in enumerate(self._multipliers):
            total += (ids[starts + place] + 1).astype(np.uint64) * multiplier
        return total


class Overlap:
    """What the items of one evaluation share with the text that was fed."""

    def __init__(self, items: Sequence[str]):
        self._ids: dict[str, int] = {}
        self._items = [np.array([self._ids.setdefault(word, len(self._ids)) for word in words(item)], dtype=np.int64) for item in items]
        places: dict[int, list[tuple[int, int]]] = {}
        for item, ids in enumerate(self._items):
            length = min(len(ids), LENGTH)
            places.setdefault(length, []).extend((item, start) for start in range(len(ids) - length + 1))
        places.pop(0, None)
        most_shared = min(MOST_SHARED, max(1, len(items) // 2))
        self._runs = {length: _Runs(self._items, found, length, most_shared) for length, found in places.items()}
        self.reach = max((len(ids) for ids in self._items), default=0)
        self._whole: dict[int, str] = {}
        self._anchors: dict[int, list[tuple[int, int]]] = {}
        """Of each long item the run that fewest others hold: run -> (item, its first word)."""
        if LENGTH in self._runs:
            holders_U = self._runs[LENGTH].holders_U
            for item, runs in self._runs[LENGTH].of.items():
                start, run = min(runs, key=lambda each: holders_U[each[1]])
                self._anchors.setdefault(run, []).append((item, start))

    def feed(self, texts: Sequence[tuple[str, list[str]]], before: list[str]) -> None:
        """Looks for the items in texts (where, words); `before` are words that precede the first text in the same document."""
        known = self._ids.get
        ids = [known(word, -1) for word in before]
        ends = []
        for _, text in texts:
            ids += [known(word, -1) for word in text]
            ids.append(-1)
            ends.append(len(ids))
        ids_N = np.array(ids, dtype=np.int64)
        for length, runs in self._runs.items():
            if len(ids_N) < length:
                continue
            starts, found = runs.search(ids_N)
            first, index = np.unique(found, return_index=True)
            for run, start in zip(first.tolist(), starts[index].tolist(), strict=True):
                if not runs.found_U[run]:
                    runs.found_U[run] = True
                    runs.where[run] = texts[np.searchsorted(ends, start, side="right")][0]
            if length == LENGTH:
                self._find_whole(ids_N, starts, found, texts, ends)

    def _find_whole(self, ids: Ids, starts: Ids, runs: Ids, texts: Sequence[tuple[str, list[str]]], ends: list[int]) -> None:
        anchored = np.isin(runs, list(self._anchors))
        for start, run in zip(starts[anchored].tolist(), runs[anchored].tolist(), strict=True):
            for item, offset in self._anchors[run]:
                begin, wanted = start - offset, self._items[item]
                if item not in self._whole and begin >= 0 and np.array_equal(ids[begin : begin + len(wanted)], wanted):
                    self._whole[item] = texts[np.searchsorted(ends, start, side="right")][0]

    def findings(self) -> list[Findings]:
        """Of each item, in their order."""
        return [self._findings(item, ids) for item, ids in enumerate(self._items)]

    def _findings(self, item: int, ids: Ids) -> Findings:
        covered, own, where = [False] * len(ids), False, ""
        length = min(len(ids), LENGTH)
        if length == 0:
            return Findings(0, [], False, False, "")
        runs = self._runs[length]
        for start, run in runs.of[item]:
            if runs.found_U[run]:
                covered[start : start + length] = [True] * length
                own = own or not runs.shared_U[run]
                where = where or runs.where[run]
        whole = item in self._whole if length == LENGTH else any(covered)
        return Findings(len(ids), covered, own, whole, self._whole.get(item, where))


def scan(overlaps: Sequence[Overlap], texts: Iterable[Text]) -> Scanned:
    """Feeds all texts to every evaluation's overlap, about a megabyte at a time."""
    scanned = Scanned()
    reach = max((overlap.reach for overlap in overlaps), default=0)
    before: list[str] = []
    for batch in _batches(texts):
        split = [(text.where, words(text.text)) for text in batch]
        joined = _joined(batch, split)
        for overlap in overlaps:
            overlap.feed(joined, before if batch[0].continues else [])
        last = joined[-1][1] if len(joined) > 1 or not batch[0].continues else before + joined[-1][1]
        before = last[-reach:]
        scanned.texts += len(batch)
        scanned.characters += sum(len(text.text) for text in batch)
        scanned.words += sum(len(found) for _, found in split)
    return scanned


def _joined(batch: Sequence[Text], split: Sequence[tuple[str, list[str]]]) -> list[tuple[str, list[str]]]:
    """Pieces of one document become one text."""
    joined: list[tuple[str, list[str]]] = []
    for text, (where, found) in zip(batch, split, strict=True):
        if text.continues and joined:
            joined[-1][1].extend(found)
        else:
            joined.append((where, found))
    return joined


def _batches(texts: Iterable[Text]) -> Iterator[list[Text]]:
    batch, size = [], 0
    for text in texts:
        batch.append(text)
        size += len(text.text)
        if size >= _BATCH_CHARACTERS:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch
