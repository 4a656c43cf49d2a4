"""The page pool shares what is equal, never what is not, and loses no page."""

from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spoutnik.engine.blocks import Blocks, Pages, Table

SIZE = 4


@dataclass
class Holder:
    """A running sequence of the model: what it was given and what its pages must hold."""

    table: Table
    prompt: list[int]
    more: int
    owner: str

    @property
    def tokens(self):
        return self.prompt + [7] * self.more


tokens = st.lists(st.integers(0, 1), max_size=20)
actions = st.lists(
    st.one_of(
        st.tuples(st.just("acquire"), tokens, st.integers(1, 12), st.sampled_from(["", "other"])),
        st.tuples(st.just("write"), st.integers(0, 9), st.integers(1, 20)),
        st.tuples(st.just("release"), st.integers(0, 9), st.booleans()),
        st.tuples(st.just("forget")),
        st.tuples(st.just("clear")),
    ),
    max_size=60,
)


@settings(deadline=None, max_examples=300)
@given(actions)
def test_pages_found_hold_exactly_the_tokens_asked_for_and_no_page_is_lost(actions):
    """Holders write their pages in any order and any pieces; `content` is what the pages really hold."""
    blocks = Blocks(12, SIZE)
    content: dict[int, tuple[str, list[int]]] = {}  # page -> owner and all tokens up to where it is written
    running: list[Holder] = []

    def write(holder, until):
        blocks.catch_up(holder.table)
        until = min(holder.table.written + until, len(holder.tokens))
        for place in range(holder.table.written // SIZE, blocks.needed(until)):
            content[holder.table.pages[place]] = (holder.owner, holder.tokens[: min((place + 1) * SIZE, until)])
        blocks.write(holder.table, until)

    for action, *details in actions:
        if action == "acquire":
            prompt, more, owner = details
            table = blocks.acquire(prompt, len(prompt) + more, owner)
            if table is None:
                assert running or blocks.needed(len(prompt) + more) > 12
                continue
            held_before = {page for holder in running for page in holder.table.pages}
            assert len(table.pages) == blocks.needed(len(prompt) + more)
            assert table.written <= table.cached <= len(prompt)
            for place in range(table.written // SIZE):
                assert content[table.pages[place]] == (owner, prompt[: (place + 1) * SIZE])
            assert set(table.pages[table.written // SIZE : table.cached // SIZE]) <= held_before, "promised by nobody"
            assert not held_before & set(table.pages[table.cached // SIZE :]), "a fresh page belonged to somebody"
            blocks.remember(table, prompt)
            running.append(Holder(table, prompt, more, owner))
        elif action == "write" and running:
            index, count = details
            write(running[index % len(running)], count)
        elif action == "release" and running:
            index, finished = details
            holder = running.pop(index % len(running))
            if finished:
                write(holder, len(holder.tokens))
                blocks.remember(holder.table, holder.tokens)
            blocks.release(holder.table)
        elif action == "forget":
            blocks.forget()
        elif action == "clear":
            assert set(blocks.clear()) == {page for holder in running for page in holder.table.pages}
            running.clear()
        for holder in running:
            blocks.catch_up(holder.table)
            for place in range(holder.table.written // SIZE):
                assert content[holder.table.pages[place]] == (holder.owner, holder.tokens[: (place + 1) * SIZE])
        held = {page for holder in running for page in holder.table.pages}
        assert blocks.available + len(held) == 12


def test_the_same_beginning_is_found_again_after_its_sequence_ended():
    blocks = Blocks(8, SIZE)
    first = blocks.acquire(list(range(10)), 12)
    blocks.remember(first, list(range(10)))
    blocks.write(first, 10)
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
        blocks.write(table, 4)
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


def test_a_promised_page_is_shared_and_whoever_is_left_writes_it():
    blocks = Blocks(4, SIZE)
    prompt = [1, 2, 3, 4, 5, 6]
    first = blocks.acquire(prompt, 7)
    blocks.remember(first, prompt)
    second = blocks.acquire(prompt, 7)
    assert (second.cached, second.written) == (4, 0)
    blocks.write(first, 3)
    blocks.release(first)
    assert blocks.acquire(prompt, 7).written == 0, "half of it was written"
    blocks.write(second, 4)
    assert blocks.acquire([1, 2, 3, 4], 4).written == 4


def test_a_promise_that_nobody_keeps_is_forgotten():
    blocks = Blocks(4, SIZE)
    table = blocks.acquire([1] * 8, 8)
    blocks.remember(table, [1] * 8)
    blocks.write(table, 5)
    blocks.release(table)
    assert blocks.available == 4
    assert blocks.acquire([1] * 8, 8).cached == 4


def test_a_serial_number_names_what_a_page_holds_and_never_comes_again():
    blocks = Blocks(1, SIZE)
    seen = set()
    for prompt in ([1] * 4, [2] * 4, [1] * 4):
        table = blocks.acquire(prompt, 4)
        blocks.write(table, 4)
        blocks.remember(table, prompt)
        seen.add(blocks.serial(table.pages[0]))
        blocks.release(table)
    assert len(seen) == 3
    blocks.forget()
    assert blocks.serial(0) is None


def test_owners_who_never_come_back_leave_nothing_behind_and_those_who_are_remembered_stay_known():
    blocks = Blocks(4, SIZE)
    kept = blocks.acquire([1] * 4, 4, "kept")
    blocks.write(kept, 4)
    blocks.remember(kept, [1] * 4)
    for owner in range(1000):
        blocks.release(blocks.acquire([2] * 3, 4, owner))
        assert len(blocks._roots) <= 2 * blocks.pages
    assert blocks.acquire([1] * 4, 4, "kept").cached == 4


def test_pages_are_counted_by_kind():
    blocks = Blocks(4, SIZE)
    assert blocks.count == Pages(used=0, free=4, cached=0)
    table = blocks.acquire([1] * 4, 8)
    blocks.write(table, 4)
    blocks.remember(table, [1] * 4)
    assert blocks.count == Pages(used=2, free=2, cached=0)
    blocks.release(table)
    assert blocks.count == Pages(used=0, free=3, cached=1)
    assert blocks.count + blocks.count == Pages(used=0, free=6, cached=2)
