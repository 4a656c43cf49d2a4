"""The page pool shares what is equal, never what is not, and loses no page."""

from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spoutnik.engine.blocks import Blocks, Table

SIZE = 4


@dataclass
class Holder:
    """A running sequence of the model: what it was given and what its pages must hold."""

    table: Table
    tokens: list[int]
    owner: str


tokens = st.lists(st.integers(0, 1), max_size=20)
actions = st.lists(
    st.one_of(
        st.tuples(st.just("acquire"), tokens, st.integers(1, 12), st.sampled_from(["", "other"])),
        st.tuples(st.just("release"), st.integers(0, 9), st.booleans()),
        st.tuples(st.just("forget")),
    ),
    max_size=60,
)


@settings(deadline=None, max_examples=300)
@given(actions)
def test_pages_found_hold_exactly_the_tokens_asked_for_and_no_page_is_lost(actions):
    blocks = Blocks(12, SIZE)
    content: dict[int, tuple[str, list[int]]] = {}  # page -> owner and all tokens up to its end, as the engine would have written them
    running: list[Holder] = []
    for action, *details in actions:
        if action == "acquire":
            prompt, more, owner = details
            table = blocks.acquire(prompt, len(prompt) + more, owner)
            if table is None:
                assert running or blocks.needed(len(prompt) + more) > 12
                continue
            held_before = {page for holder in running for page in holder.table.pages}
            assert len(table.pages) == blocks.needed(len(prompt) + more)
            for place in range(table.cached // SIZE):
                assert content[table.pages[place]] == (owner, prompt[: (place + 1) * SIZE])
            assert not held_before & set(table.pages[table.cached // SIZE :]), "a fresh page belonged to somebody"
            for place in range(table.cached // SIZE, len(table.pages)):
                content[table.pages[place]] = (owner, (prompt + [7] * more)[: (place + 1) * SIZE])
            blocks.remember(table, prompt)
            running.append(Holder(table, prompt + [7] * more, owner))
        elif action == "release" and running:
            index, finished = details
            holder = running.pop(index % len(running))
            if finished:
                blocks.remember(holder.table, holder.tokens)
            blocks.release(holder.table)
        elif action == "forget":
            blocks.forget()
        held = {page for holder in running for page in holder.table.pages}
        assert blocks.available + len(held) == 12


def test_the_same_beginning_is_found_again_after_its_sequence_ended():
    blocks = Blocks(8, SIZE)
    first = blocks.acquire(list(range(10)), 12)
    blocks.remember(first, list(range(10)))
    pages = first.pages[:2]
    blocks.release(first)
    again = blocks.acquire([*range(8), 99, 98], 12)
    assert again.cached == 8
    assert again.pages[:2] == pages
    assert blocks.acquire([0, 1, 2, 99], 4).cached == 0


def test_what_another_owner_cached_is_not_found():
    blocks = Blocks(8, SIZE)
    blocks.remember(blocks.acquire([1, 2, 3, 4], 4, "alice"), [1, 2, 3, 4])
    assert blocks.acquire([1, 2, 3, 4, 5], 5, "bob").cached == 0
    assert blocks.acquire([1, 2, 3, 4, 5], 5, "alice").cached == 4


def test_the_page_unused_longest_makes_room_first():
    blocks = Blocks(2, SIZE)
    for prompt in ([1] * 4, [2] * 4):
        table = blocks.acquire(prompt, 4)
        blocks.remember(table, prompt)
        blocks.release(table)
    blocks.release(blocks.acquire([3], 4))
    assert blocks.acquire([2] * 4, 4).cached == 4
    assert blocks.acquire([1] * 4, 4).cached == 0


def test_a_sequence_that_does_not_fit_gets_nothing_and_takes_nothing():
    blocks = Blocks(4, SIZE)
    held = blocks.acquire([1], 9)
    assert blocks.acquire([1], 8) is None
    assert blocks.available == 1
    blocks.release(held)
    assert blocks.acquire([1], 16) is not None


def test_forgotten_pages_are_never_found():
    blocks = Blocks(4, SIZE)
    table = blocks.acquire([1] * 4, 4)
    blocks.remember(table, [1] * 4)
    blocks.forget()
    assert blocks.acquire([1] * 4, 5).cached == 0
    blocks.release(table)
    assert blocks.available == 2


@pytest.mark.parametrize(("count", "pages"), [(0, 0), (1, 1), (4, 1), (5, 2)])
def test_pages_are_whole(count, pages):
    assert Blocks(4, SIZE).needed(count) == pages
