"""Both languages say the same things; phrases are written in English where they are used."""

import string

import pytest

from spoutnik.errors import UserError
from spoutnik.plan.words import LANGUAGES, words


def blanks(text):
    return {name for _, name, _, _ in string.Formatter().parse(text) if name is not None}


def test_languages_have_the_same_keys_and_blanks():
    tables = {lang: words(lang) for lang in LANGUAGES}
    english = tables["en"]
    for lang, table in tables.items():
        assert {key for key in sorted(table.keys()) if not key.startswith("phrase.")} == english.keys(), lang
        for key in sorted(english.keys()):
            assert blanks(table._table[key]) == blanks(english._table[key]), (lang, key)


def test_a_phrase_has_the_blanks_of_the_english_one_that_it_stands_for():
    table = words("fr")._table
    for key in sorted(key for key in table if key.startswith("phrase.")):
        assert blanks(table[key]) == blanks(key.removeprefix("phrase.")), key


def test_a_language_that_is_not_there_is_refused():
    with pytest.raises(UserError, match="speaks en and fr"):
        words("de")
