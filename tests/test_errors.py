"""A mistake is one sentence, whose words and values can be told apart."""

import pickle

from spoutnik.errors import Phrase, UserError


def test_a_sentence_with_values_is_filled_in_and_one_without_stays_as_it_is():
    assert str(UserError("{count:,} chips, {name!r}", count=2048, name="x")) == "2,048 chips, 'x'"
    assert str(UserError('write it as {"prompt": "..."}')) == 'write it as {"prompt": "..."}'


def test_a_value_may_be_a_phrase_and_braces_in_values_are_no_blanks():
    error = UserError("{path} {found}", path="{a}", found=Phrase("holds {what}", what="{b}"))
    assert str(error) == "{a} holds {b}"


def test_a_mistake_can_be_handed_from_one_process_to_another():
    again = pickle.loads(pickle.dumps(UserError("{count} chips", count=3)))
    assert str(again) == "3 chips"
    assert again.phrase.values == {"count": 3}
