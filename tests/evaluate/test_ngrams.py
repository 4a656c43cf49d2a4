"""Runs of 13 words: planted ones are found whatever the punctuation, others never, and memory does not go with the text."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spoutnik.evaluate import ngrams
from spoutnik.evaluate.ngrams import LENGTH, Overlap, Text, scan, words

ALPHABET = [f"{first}{second}" for first in "bdfgkl" for second in ("an", "el", "o7", "ré")]
WORDS = st.lists(st.sampled_from(ALPHABET), min_size=1, max_size=60)
GAPS = st.lists(st.sampled_from([" ", ", ", "\n", " - ", "... ", "\t", "“ ", "; ", "/"]), min_size=60, max_size=60)


def joined(parts, gaps):
    return "".join(part + gap for part, gap in zip(parts, gaps, strict=False))


def runs(parts):
    length = min(LENGTH, len(parts))
    return {tuple(parts[start : start + length]) for start in range(len(parts) - length + 1)}


def findings(items, texts):
    overlap = Overlap(items)
    scan([overlap], texts)
    return overlap.findings()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Make 24, from: (3)!", ["make", "24", "from", "3"]),
        ("Don't—stop", ["don", "t", "stop"]),
        ("60*47 and 60+47", ["60", "times", "47", "and", "60", "plus", "47"]),
        ("(3+4) * 5 = 35", ["3", "plus", "4", "times", "5", "equals", "35"]),
        ("- a list\n- of things - 3 long", ["a", "list", "of", "things", "3", "long"]),
        ("ﬁne \uff21\uff22 caf\u0065\u0301", ["fine", "ab", "café"]),
        ("三角形の面積", list("三角形の面積")),
        ("...", []),
    ],
)
def test_words_are_lower_case_letters_and_digits_and_operators_between_numbers(text, expected):
    assert words(text) == expected


@given(WORDS, WORDS, WORDS, GAPS, st.booleans())
def test_a_planted_item_is_found_whole_whatever_the_punctuation_and_case(item, before, after, gaps, upper):
    text = joined(before, gaps) + " " + joined(item, gaps[::-1]) + " " + joined(after, gaps)
    (found,) = findings([" ".join(item)], [Text("here", text.upper() if upper else text)])
    assert found.whole
    assert found.coverage == 1
    assert found.where == "here"


@given(WORDS, st.lists(WORDS, max_size=4), GAPS)
def test_exactly_the_words_in_shared_runs_are_covered(item, documents, gaps):
    """Against the definition, run by run."""
    (found,) = findings([" ".join(item)], [Text("", joined(document, gaps)) for document in documents])
    length = min(LENGTH, len(item))
    there = {tuple(doc[start : start + length]) for doc in documents for start in range(len(doc) - length + 1)}
    covered = [False] * len(item)
    for start in range(len(item) - length + 1):
        if tuple(item[start : start + length]) in there:
            covered[start : start + length] = [True] * length
    assert found.covered == covered
    whole = any(doc[start : start + len(item)] == item for doc in documents for start in range(len(doc) - len(item) + 1))
    assert found.whole == whole


@given(st.lists(st.integers(0, 10**6), min_size=LENGTH, max_size=40, unique=True), st.randoms(use_true_random=False))
def test_twelve_words_in_a_row_are_no_overlap(item, rng):
    """The item's words all stand in the training data, but never 13 in a row."""
    parts = [str(word) for word in item]
    pieces = [parts[start : start + LENGTH - 1] for start in range(len(parts))]
    rng.shuffle(pieces)
    (found,) = findings([" ".join(parts)], [Text("", " break ".join(" ".join(piece) for piece in pieces))])
    assert not found.found


def test_a_run_does_not_go_from_one_text_into_the_next_unless_it_continues():
    item = [str(number) for number in range(20)]
    pieces = [" ".join(item[:9]), " ".join(item[9:])]
    (apart,) = findings([" ".join(item)], [Text("a", pieces[0]), Text("b", pieces[1])])
    (together,) = findings([" ".join(item)], [Text("a", pieces[0]), Text("b", pieces[1], continues=True)])
    assert not apart.found
    assert together.whole


def test_a_document_is_one_whatever_the_batches(monkeypatch):
    """An item longer than a batch: several batches lie between its first word and its last."""
    monkeypatch.setattr(ngrams, "_BATCH_CHARACTERS", 40)
    item = [f"w{number}" for number in range(200)]
    text = ["zero", *item, "end"]
    pieces = [Text(f"piece {start}", " ".join(text[start : start + 7]), continues=start > 0) for start in range(0, len(text), 7)]
    found, other = findings([" ".join(item), " ".join(item[:-1]) + " other"], pieces)
    assert found.whole
    assert other.coverage == 199 / 200
    assert not other.whole


def test_what_many_items_hold_is_wording_and_what_few_hold_is_their_own():
    template = "a customer pays with a note of twenty dollars and asks how much change there is when buying"
    items = [f"{template} {number}" for number in range(40)]
    wording = findings(items, [Text("", template)])
    assert all(each.found and not each.own for each in wording)
    planted = findings(items, [Text("", items[7])])
    assert [index for index, each in enumerate(planted) if each.own] == [7]
    assert [index for index, each in enumerate(planted) if each.whole] == [7]


def test_what_is_kept_does_not_go_with_the_text(monkeypatch):
    """A stream without end would do: nothing of what was fed stays but the last words and what was found."""
    monkeypatch.setattr(ngrams, "_BATCH_CHARACTERS", 1000)
    rng, item = random.Random(1), " ".join(ALPHABET)
    overlap, seen = Overlap([item]), []

    def stream():
        for number in range(500):
            seen.append(sum(len(runs.where) for runs in overlap._runs.values()) + len(overlap._whole))
            yield Text(str(number), " ".join(rng.choice(ALPHABET) for _ in range(200)) + (item if number % 2 else ""))

    assert scan([overlap], stream()).texts == 500
    assert max(seen) <= len(ALPHABET)


def test_nothing_to_look_for_and_nothing_to_look_into():
    assert [each.found for each in findings(["", "..."], [Text("", "some text")])] == [False, False]
    assert not findings(["some text"], [])[0].found
    assert findings([], [Text("", "some text")]) == []
