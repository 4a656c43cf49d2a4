"""Whose terms forbid it, or are unknown, does not teach, unless the user says so in words that stay with the data."""

import datetime
import json
import tomllib
from importlib.resources import files

import pytest

from spoutnik.errors import UserError
from spoutnik.recipe import TeacherSpec
from spoutnik.teacher.card import merge, teachers_of, write_card
from spoutnik.teacher.terms import check_terms, look_up

WORDS = "I have read the terms and answer for this."
OPENAI, LOCAL = "https://api.openai.com/v1", "http://127.0.0.1:8000/v1"


def spec(base_url="https://llm.example.org/v1", model="m", **changes):
    settings = {"name": "t", "dialect": "openai", "price": {"prompt": 1, "completion": 1}, "max_cost": 1}
    return TeacherSpec.model_validate({**settings, "base_url": base_url, "model": model, **changes})


@pytest.mark.parametrize(
    ("teacher", "expected"),
    [
        (spec(), "not known"),
        (spec(terms="forbidden"), "forbid training"),
        (spec(OPENAI), "forbid training"),
        (spec(OPENAI, terms="allowed"), "forbid training"),
        (spec("https://eu.api.anthropic.com", terms="allowed"), "forbid training"),
        (spec("https://api.deepseek.com"), "not known"),
        (spec(LOCAL, "some-model"), "not known"),
        (spec("https://elsewhere.example", "deepseek-ai/DeepSeek-R1"), "not known"),
        (spec("https://api.openai.com.evil.example"), "not known"),
    ],
)
def test_what_is_not_allowed_is_refused_in_one_sentence_that_says_what_to_write(teacher, expected):
    with pytest.raises(UserError, match=expected) as caught:
        check_terms(teacher)
    assert 'accept_terms = "I ..."' in str(caught.value)
    assert "\n" not in str(caught.value)
    accepted = check_terms(teacher.model_copy(update={"accept_terms": WORDS}))
    assert accepted["accepted"] == WORDS
    assert accepted["terms"] in ("forbidden", "unknown")


@pytest.mark.parametrize(
    ("teacher", "said_by"),
    [
        (spec(terms="allowed"), "the recipe"),
        (spec(LOCAL, "deepseek-ai/DeepSeek-R1"), "the table"),
        (spec("https://api.deepseek.com", terms="allowed"), "the recipe"),
    ],
)
def test_what_is_allowed_goes_on_and_says_who_says_so(teacher, said_by):
    provenance = check_terms(teacher)
    assert (provenance["terms"], provenance["accepted"]) == ("allowed", None)
    assert provenance["terms_said_by"].startswith(said_by)


def test_a_licence_of_weights_says_nothing_of_models_that_were_made_from_them():
    assert look_up(LOCAL, "deepseek-ai/DeepSeek-R1-Distill-Llama-70B") is None


def test_every_row_of_the_table_has_a_source_and_a_date():
    table = tomllib.loads(files("spoutnik.teacher").joinpath("terms.toml").read_text(encoding="utf-8"))
    for row in [*table["host"], *table["model"]]:
        assert row["terms"] in ("allowed", "forbidden", "unknown")
        assert row["source"].startswith("https://")
        assert isinstance(row["checked"], datetime.date)
        assert row["seen"]
        assert row["note"]


def test_a_mere_yes_is_no_acceptance():
    with pytest.raises(ValueError, match="a sentence of your own"):
        spec(accept_terms="yes")


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"base_url": "http://llm.example.org/v1", "api_key_env": "KEY"}, "unencrypted"),
        ({"base_url": "https://user:secret@llm.example.org"}, "base_url"),
        ({"base_url": "ftp://llm.example.org"}, "base_url"),
        ({"options": {"max_tokens": 3}}, r"options\.max_tokens"),
        ({"dialect": "anthropic", "max_tokens_field": "max_completion_tokens"}, "belongs to dialect"),
        ({"max_cost": None}, "max_cost"),
    ],
)
def test_a_teacher_that_cannot_be_is_refused(changes, expected):
    with pytest.raises(ValueError, match=expected):
        spec(**changes)
    assert spec(LOCAL, api_key_env="KEY").api_key_env == "KEY"


def test_teachers_are_found_in_samples_and_checkpoints_and_told_once(tmp_path):
    one, other = {"teacher": "a", "model": "m"}, {"teacher": "b", "model": "n"}
    rows = [
        {"prompt": "p", "completion": "c"},
        {"prompt": 'says "teachers"', "completion": "c", "teachers": [one]},
        {"teachers": [one, other]},
    ]
    lines = [*map(json.dumps, rows), '{"teachers": [3, null]}', '{"teachers": "x"}', '"teachers"', '{"teachers": [']
    (tmp_path / "samples.jsonl").write_text("\n".join(lines), encoding="utf-8")
    assert teachers_of(tmp_path) == teachers_of(tmp_path / "samples.jsonl") == [one, other]
    (tmp_path / "checkpoint").mkdir()
    (tmp_path / "checkpoint" / "spoutnik.json").write_text(json.dumps({"teachers": [other]}))
    assert teachers_of(tmp_path / "checkpoint") == [other]
    assert teachers_of(tmp_path / "nowhere") == []
    assert merge([[one], [other, one]]) == [one, other]


def test_the_card_says_who_taught_and_quotes_the_user(tmp_path):
    teacher = check_terms(spec(OPENAI, accept_terms="I alone answer for this.\nAnd I mean it."))
    write_card(tmp_path, "run: samples", {"stage": "s", "kind": "sample", "recipe": "run", "parents": {"from": "t"}}, [teacher])
    card = (tmp_path / "README.md").read_text(encoding="utf-8")
    assert "**forbidden**" in card
    assert "> I alone answer for this.\n> And I mean it." in card
    assert OPENAI in card
