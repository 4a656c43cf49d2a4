"""Whatever comes, is cancelled or ends: pages hold exactly a sequence's tokens before it reads them, and none is lost or held twice."""

import threading
from collections import Counter

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from spoutnik.engine.blocks import Blocks
from spoutnik.engine.prompts import Prompts
from spoutnik.engine.request import Request
from spoutnik.engine.scheduler import Scheduler
from spoutnik.engine.shelf import Shelf
from spoutnik.engine.store import Store
from spoutnik.errors import UserError

SIZE, PAGES, CONTEXT, BATCH = 4, 9, 24, 4

POPULAR = [[1, 2, 3, 4, 5, 6, 7, 8, 9, 1, 2], [1, 2, 3, 4, 5, 6, 7, 8], [1, 2, 3, 4, 9, 9], [1, 2, 3, 4, 5], [1, 2], [2]]


class PromptsMachine(RuleBasedStateMachine):
    """Plays the runner over pages of one byte a token, which must be that token's; 255 is what nobody wrote."""

    @initialize(rows=st.sampled_from([2, 3, 5, 9]))
    def start(self, rows):
        self.rows = rows
        self.memory = [bytearray([255] * SIZE) for _ in range(PAGES)]
        self.prompts = Prompts(Blocks(PAGES, SIZE), lambda page: memoryview(self.memory[page]))
        self.scheduler = Scheduler(BATCH, CONTEXT, most_tokens=PAGES * SIZE - 6)
        self.submitted = []  # (owner, prompt) of all that were ever admitted
        self.steps_waited = Counter()

    @rule(prompt=st.sampled_from(POPULAR), times=st.integers(1, 4), new=st.sampled_from([1, 2, 9]), owner=st.sampled_from("aab"))
    def add_samples(self, prompt, times, new, owner):
        for _ in range(times):
            self.add(prompt, [], new, owner)

    @rule(
        prompt=st.sampled_from(POPULAR), tail=st.lists(st.integers(1, 2), max_size=6), new=st.integers(1, 20), owner=st.sampled_from("ab")
    )
    def add(self, prompt, tail, new, owner):
        prompt = prompt + tail
        try:
            self.scheduler.add(Request(prompt, new, owner=owner))
        except UserError:
            assert len(prompt) + min(new, CONTEXT - len(prompt)) > PAGES * SIZE - 6

    @precondition(lambda self: self.scheduler.busy)
    @rule(data=st.data())
    def cancel(self, data):
        here = [sequence.id for sequence in (*self.scheduler.waiting, *self.scheduler.running)]
        if here:
            self.scheduler.cancel(data.draw(st.sampled_from(here)))
            self.retire()

    @rule()
    def step(self):
        first = self.scheduler.waiting[0].id if self.scheduler.waiting else None
        for sequence in self.scheduler.admit(self.prompts.admit):
            table = self.prompts.tables[sequence.id]
            assert len(table.pages) * SIZE >= len(sequence.prompt_ids) + sequence.room, "it may run out"
            self.submitted.append((sequence.request.owner, sequence.prompt_ids))
        running = self.scheduler.running
        assert running or first is None, "nothing runs, and yet the first in line must wait"
        decoding = [sequence for sequence in running if sequence.id not in self.prompts.unfinished]
        pieces = self.prompts.plan(self.rows)
        assert bool(pieces) == bool(self.prompts.unfinished), "a step without progress"
        assert sum(piece.end - piece.start for piece in pieces) <= self.rows
        for piece in pieces:
            self.write(piece.sequence, piece.start, piece.end)
        for sequence in decoding:
            self.write(sequence, sequence.last_position, sequence.last_position + 1)
        for piece in pieces:
            self.check(piece.sequence, piece.end)
        self.prompts.finish(pieces)
        beginners = [sequence for piece in pieces if piece.complete for sequence in (piece.sequence, *piece.company)]
        for sequence in beginners:
            self.check(sequence, len(sequence.prompt_ids))
            assert sequence.cached_tokens <= self.known(sequence)
        for sequence in decoding + beginners:
            self.check(sequence, sequence.last_position + 1)
            sequence.append(1 + sequence.id % 2, 0.0, None)
            if sequence.room == 0:
                sequence.finish_reason = "length"
        self.retire()

    @rule()
    def fail(self):
        self.prompts.plan(self.rows)
        self.scheduler.clear()
        self.prompts.reset()
        assert self.prompts.blocks.available == PAGES
        self.submitted.clear()

    def retire(self):
        for sequence in self.scheduler.sweep()[0]:
            self.prompts.release(sequence)
            self.submitted.append((sequence.request.owner, (*sequence.prompt_ids, *sequence.token_ids)))

    def known(self, sequence):
        """How many tokens of the prompt its owner has shown before at most."""
        mine = (sequence.request.owner, sequence.prompt_ids)
        others = [tokens for owner, tokens in self.submitted if owner == mine[0]]
        others.remove(mine[1])
        return max((common(tokens, mine[1]) for tokens in others), default=0)

    def write(self, sequence, start, end):
        tokens, pages = (*sequence.prompt_ids, *sequence.token_ids), self.prompts.tables[sequence.id].pages
        for place in range(start, end):
            self.memory[pages[place // SIZE]][place % SIZE] = tokens[place]

    def check(self, sequence, end):
        tokens, pages = (*sequence.prompt_ids, *sequence.token_ids), self.prompts.tables[sequence.id].pages
        assert [self.memory[pages[place // SIZE]][place % SIZE] for place in range(end)] == list(tokens[:end])

    @invariant()
    def pages_are_accounted_for(self):
        if not hasattr(self, "prompts"):
            return
        tables = self.prompts.tables
        assert set(tables) == {sequence.id for sequence in self.scheduler.running}
        held = Counter(page for table in tables.values() for page in table.pages)
        assert self.prompts.blocks.available + len(held) == PAGES
        for page, count in held.items():
            holders = [sequence for sequence in self.scheduler.running if page in tables[sequence.id].pages]
            assert len(holders) == count, "a page twice in one table"
            place = tables[holders[0].id].pages.index(page)
            for sequence in holders[1:]:
                end = (place + 1) * SIZE
                assert sequence.request.owner == holders[0].request.owner
                assert sequence.prompt_ids[:end] == (*holders[0].prompt_ids, *holders[0].token_ids)[:end], "shared, but not equal"

    def teardown(self):
        while hasattr(self, "scheduler") and self.scheduler.busy:
            self.step()


def common(one, other):
    return next((place for place, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))


TestAnyInterleaving = PromptsMachine.TestCase
TestAnyInterleaving.settings = settings(deadline=None, stateful_step_count=40, max_examples=200)


def test_the_first_in_line_is_never_passed_by_however_much_it_needs():
    """Small requests come without end; the large one is let in as soon as those before it have ended."""
    scheduler, prompts = Scheduler(BATCH, CONTEXT, most_tokens=PAGES * SIZE), Prompts(Blocks(PAGES, SIZE), lambda page: memoryview(b""))
    before = [scheduler.add(Request([index + 1], 7)) for index in range(3)]
    scheduler.admit(prompts.admit)
    large = scheduler.add(Request([9], 23))
    for index in range(60):
        scheduler.add(Request([index + 10], 3))
        scheduler.admit(prompts.admit)
        running = [sequence.id for sequence in scheduler.running]
        assert all(number <= large for number in running) or large in running
        if large in running:
            break
        scheduler.running[0].finish_reason = "stop"
        for sequence in scheduler.sweep()[0]:
            prompts.release(sequence)
    assert large in running
    assert not set(before) <= set(running)


def test_a_page_that_changes_hands_before_it_is_written_to_disk_is_not_written(tmp_path):
    memory = [bytearray([255] * SIZE) for _ in range(2)]
    prompts = Prompts(Blocks(2, SIZE), lambda page: memoryview(memory[page]))
    scheduler, store, go_on = Scheduler(1, 8), Store(tmp_path), threading.Event()
    prompts.shelf = Shelf(store, b"m" * 32, SIZE, SIZE)

    def run(prompt):
        scheduler.add(Request(prompt, 1))
        (sequence,) = scheduler.admit(prompts.admit)
        pieces = prompts.plan(9)
        for place in range(pieces[0].start, len(prompt)):
            memory[prompts.tables[sequence.id].pages[place // SIZE]][place % SIZE] = prompt[place]
        prompts.finish(pieces)
        sequence.append(0, 0.0, None)
        sequence.finish_reason = "stop"
        scheduler.sweep()
        prompts.release(sequence)

    blocker = Shelf(store, b"x" * 32, SIZE, SIZE)
    blocker.keep(blocker.prefix("", [0] * SIZE), 0, lambda: go_on.wait() and None)
    run([1, 2, 3, 4, 5])
    run([6, 7, 8, 9, 6, 7, 8])
    go_on.set()
    store.close()
    read = bytearray(SIZE)
    assert not prompts.shelf.read(prompts.shelf.prefix("", [1, 2, 3, 4]), 0, memoryview(read))
    assert prompts.shelf.read(prompts.shelf.prefix("", [6, 7, 8, 9]), 0, memoryview(read))
    assert list(read) == [6, 7, 8, 9]
