"""Text that comes token by token equals text decoded at once, and a stop string is found however tokens cut it."""

from hypothesis import example, given, settings
from hypothesis import strategies as st

from spoutnik.engine.detokenizer import Detokenizer
from spoutnik.text.tokenizer import train_bpe

TOKENIZER = train_bpe(["the cat sat on the mat, naïve café über 你好 👩‍🚀 end of text. " * 20], vocab_size=420)


HALF_A_CHARACTER = TOKENIZER.encode("я")[0]


def pieces(tokens, stop=()):
    detokenizer, found = Detokenizer(TOKENIZER.decode, stop), []
    for token in tokens:
        found.append(detokenizer.feed(token))
        if detokenizer.stopped:
            break
    return [*found, detokenizer.close()], detokenizer


def cut(text, stop):
    places = [text.find(string) for string in stop if string in text]
    return text[: min(places)] if places else text


ANY_TOKENS = st.lists(st.integers(0, TOKENIZER.vocab_size - 1), max_size=60)


@settings(deadline=None)
@given(ANY_TOKENS)
@example([HALF_A_CHARACTER] * 60)
def test_pieces_join_to_the_text_decoded_at_once_for_any_tokens(tokens):
    joined, detokenizer = pieces(tokens)
    assert "".join(joined) == detokenizer.text == TOKENIZER.decode(tokens)


@settings(deadline=None)
@given(st.text(max_size=40))
def test_no_piece_shows_half_a_character(text):
    joined, _ = pieces(TOKENIZER.encode(text))
    assert "".join(joined) == text
    assert not any("\ufffd" in piece for piece in joined) or "\ufffd" in text


@settings(deadline=None)
@given(ANY_TOKENS, st.lists(st.text("the cat", min_size=1, max_size=4), min_size=1, max_size=3))
def test_text_ends_before_the_first_stop_string_and_no_part_of_it_was_shown(tokens, stop):
    joined, detokenizer = pieces(tokens, stop)
    whole = TOKENIZER.decode(tokens)
    assert "".join(joined) == cut(whole, stop)
    assert detokenizer.stopped == any(string in whole for string in stop)


def test_the_cost_of_a_token_does_not_grow_with_the_text():
    decoded = 0

    def decode(ids):
        nonlocal decoded
        decoded += len(ids)
        return TOKENIZER.decode(ids)

    assert TOKENIZER.decode([HALF_A_CHARACTER]) == "\ufffd"
    detokenizer = Detokenizer(decode, ("never written",))
    for token in [HALF_A_CHARACTER] * 2000:
        detokenizer.feed(token)
    assert decoded < 2000 * 30
