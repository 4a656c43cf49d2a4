"""Every sentence about a mistake that the planner can make is there in French, with the same blanks, and none is left over."""

import ast
import re
import string
from pathlib import Path

import pytest

from spoutnik.errors import Phrase, UserError
from spoutnik.plan.speech import NARROW, speech
from spoutnik.plan.words import sentences

SOURCE = Path(__file__).parents[2] / "src" / "spoutnik"
PLANNER = sorted([*SOURCE.glob("plan/**/*.py"), *SOURCE.glob("cli/plan*.py")])
BELOW = [
    SOURCE / f"{name}.py"
    for name in (
        "checkpoint/find", "checkpoint/gguf_config", "checkpoint/gguf_head", "cli/output", "model/config", "recipe/data_paths",
        "recipe/loading", "rehearsal/against", "rehearsal/models", "rehearsal/work",
    )
]  # fmt: skip
"""What a plan reads. What these write as f-strings is English for everyone, as what is wrong within a recipe's tables."""
TAKERS = {"UserError": 0, "Phrase": 0, "_require": 1, "_need": 2, "fail": 0}
"""Who takes words with blanks, and as which argument."""


def told(path):
    """(line, what stands for the words, the names of its values or None where they are not written out) of each call that takes words."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call):
            name = getattr(node.func, "id", None) or getattr(node.func, "attr", None)
            if name in TAKERS and len(node.args) > TAKERS[name]:
                names = {keyword.arg for keyword in node.keywords}
                yield node.lineno, node.args[TAKERS[name]], None if None in names else names


def blanks(text):
    return {name for _, name, _, _ in string.Formatter().parse(text) if name is not None}


def templates():
    return [
        (f"{path.relative_to(SOURCE)}:{line}", words.value, names)
        for path in [*PLANNER, *BELOW]
        for line, words, names in told(path)
        if isinstance(words, ast.Constant)
    ]


TEMPLATES = templates()
FRENCH = sentences("fr")


def holds_words(text):
    return re.search("[a-z]{2}", re.sub(r"\{[^}]*\}", "", text))


def test_the_planner_keeps_the_words_and_values_of_its_mistakes_apart():
    written = [f"{path}:{line}" for path in PLANNER for line, words, _ in told(path) if isinstance(words, ast.JoinedStr)]
    assert not written, "an f-string cannot be looked up; give UserError the words and the values"
    for where, words, names in TEMPLATES:
        assert names is None or (blanks(words) if names else set()) == names, where


def test_every_mistake_is_there_in_french_and_none_is_left_over():
    wanted = {words for _, words, _ in TEMPLATES if holds_words(words)}
    assert sorted(words for words in wanted - set(FRENCH) if not speech("fr").has(f"phrase.{words}")) == []
    assert sorted(set(FRENCH) - wanted) == []


@pytest.mark.parametrize("english", FRENCH)
def test_a_french_sentence_has_the_blanks_of_the_english_one_and_french_marks(english):
    french = FRENCH[english]
    assert blanks(french) == blanks(english)
    assert not re.search(r" [;:!?%$»]|« |[^\u202f];", french)


@pytest.mark.parametrize("english", FRENCH)
def test_only_what_is_typed_is_written_with_an_english_point(english):
    for before in re.findall(r"(\S*) ?\{\w+:[^},]*[fg]\}", FRENCH[english]):
        assert before.startswith("--") or len(before) == 1, before


@pytest.mark.parametrize("english", FRENCH)
def test_a_sentence_can_be_filled_in(english):
    values = dict.fromkeys(blanks(english), 2.5)
    assert str(Phrase(english, **values))
    assert speech("fr").phrase(Phrase(english, **values)) != speech("en").phrase(Phrase(english, **values))


def test_numbers_to_be_read_have_french_marks_and_those_to_be_typed_have_none():
    phrase = UserError(
        "{budget_usd:,.0f} USD would not do: the run costs about {usual:,.0f} USD; that budget pays for about {tokens:.3g} tokens.",
        budget_usd=1234.0, usual=5.576e6, tokens=1.5e9,
    ).phrase  # fmt: skip
    french = speech("fr").phrase(phrase).replace(NARROW, "_").replace("\N{RIGHT SINGLE QUOTATION MARK}", "'")
    assert french == "1_234_$ ne suffiraient pas_: l'entraînement coûte environ 5,576_M_$_; ce budget paie environ 1,5_Md_de jetons."
    assert speech("en").phrase(phrase).startswith("1,234 USD would not do: the run costs about 5,576,000 USD")
    typed = UserError("--mtp {accepted:g} is no share of guesses; it must lie between 0 and 1, as in 0.85.", accepted=1.5).phrase
    assert speech("fr").phrase(typed).startswith("--mtp 1.5 ")


def test_what_has_no_french_is_said_in_english():
    assert speech("fr").phrase(UserError("The disk of {name} is full.", name="x{y}").phrase) == "The disk of x{y} is full."
