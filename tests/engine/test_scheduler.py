"""The scheduler against a plain model of what it promises: rows without gaps, first come first served, nothing lost."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from spoutnik.engine.request import Request
from spoutnik.engine.scheduler import QueueFullError, Scheduler, prefill_groups
from spoutnik.errors import UserError


class SchedulerMachine(RuleBasedStateMachine):
    """Adds, cancels, ends, sweeps and admits in any order, and follows the cache's rows as the engine would."""

    @initialize(max_batch=st.integers(1, 5), max_queue=st.none() | st.integers(1, 4))
    def start(self, max_batch, max_queue):
        self.scheduler = Scheduler(max_batch, max_length=10, max_queue=max_queue)
        self.alive, self.admitted, self.reported, self.over = [], [], [], set()
        self.rows = [None] * max_batch  # whose data a cache row holds

    @rule(length=st.integers(1, 9))
    def add(self, length):
        scheduler = self.scheduler
        beyond_rows = len(scheduler.waiting) - (scheduler.max_batch - len(scheduler.running))
        if scheduler.max_queue is not None and beyond_rows >= scheduler.max_queue:
            with pytest.raises(QueueFullError):
                scheduler.add(Request([0] * length))
        else:
            self.alive.append(scheduler.add(Request([0] * length)))

    @precondition(lambda self: self.alive)
    @rule(data=st.data())
    def cancel(self, data):
        chosen = data.draw(st.sampled_from(self.alive))
        assert self.scheduler.cancel(chosen) == (chosen not in self.over)
        self.over.add(chosen)

    @rule()
    def cancel_what_is_not_there(self):
        assert not self.scheduler.cancel(-1)

    @rule(data=st.data())
    def end_some(self, data):
        for sequence in self.scheduler.running:
            if sequence.finish_reason is None and data.draw(st.booleans()):
                sequence.finish_reason = "stop"
                self.over.add(sequence.id)

    @rule()
    def admit(self):
        before = len(self.scheduler.running)
        line = [sequence.id for sequence in self.scheduler.waiting]
        new = self.scheduler.admit()
        assert [sequence.id for sequence in new] == line[: self.scheduler.max_batch - before], "not first come, first served"
        for row, sequence in enumerate(new, start=before):
            self.rows[row] = sequence.id
        self.admitted += [sequence.id for sequence in new]

    @rule()
    def sweep(self):
        ended, moves = self.scheduler.sweep()
        assert not {source for source, _ in moves} & {target for _, target in moves}, "moves cannot be made at once"
        for source, target in moves:
            self.rows[target] = self.rows[source]
        for sequence in ended:
            self.alive.remove(sequence.id)
            self.reported.append(sequence.id)
        assert all(sequence.finish_reason is None for sequence in self.scheduler.running)

    @invariant()
    def holds(self):
        if not hasattr(self, "scheduler"):
            return
        running = [sequence.id for sequence in self.scheduler.running]
        assert len(running) <= self.scheduler.max_batch
        assert self.rows[: len(running)] == running, "a row's cache belongs to another request"
        assert self.admitted == sorted(self.admitted)
        assert len(set(self.reported)) == len(self.reported), "reported twice"
        parts = [*running, *(s.id for s in self.scheduler.waiting), *(s.id for s in self.scheduler._withdrawn)]
        assert sorted(parts) == self.alive, "lost or doubled"
        assert self.scheduler.busy == bool(self.alive)


TestAnyInterleaving = SchedulerMachine.TestCase
TestAnyInterleaving.settings = settings(deadline=None, stateful_step_count=30)


def test_a_prompt_as_long_as_the_context_is_refused_with_both_lengths():
    scheduler = Scheduler(max_batch=1, max_length=8)
    with pytest.raises(UserError, match=r"prompt has 8 tokens.*context holds 8"):
        scheduler.add(Request([0] * 8))
    scheduler.add(Request([0] * 7, max_new_tokens=100))
    assert scheduler.admit()[0].room == 1


def test_more_tokens_than_the_memory_holds_are_refused_with_the_numbers():
    scheduler = Scheduler(max_batch=1, max_length=100, most_tokens=32)
    scheduler.add(Request([0] * 12, max_new_tokens=20))
    with pytest.raises(UserError, match=r"33 tokens \(12 of the prompt and 21 new ones\), but the cache holds 32"):
        scheduler.add(Request([0] * 12, max_new_tokens=21))
    with pytest.raises(UserError, match=r"100 tokens .*holds 32"):
        scheduler.add(Request([0] * 12, max_new_tokens=1000))
    assert len(scheduler.waiting) == 1


def test_a_full_line_says_how_many_wait_and_from_the_pace_of_the_ends_when_to_come_back():
    now = [100.0]
    scheduler = Scheduler(max_batch=2, max_length=10, max_queue=1, clock=lambda: now[0])

    def refused():
        with pytest.raises(QueueFullError) as caught:
            scheduler.add(Request([0]))
        return caught.value

    def end(count):
        for sequence in scheduler.running[:count]:
            sequence.finish_reason = "stop"
        scheduler.sweep()

    for _ in range(3):
        scheduler.add(Request([0]))
    scheduler.admit()
    now[0] = 104.0
    assert (refused().waiting, refused().retry_after) == (1, None)
    assert str(refused()) == "The line is full (1 waiting); try again soon."
    end(2)
    scheduler.admit()
    scheduler.add(Request([0]))
    scheduler.add(Request([0]))
    now[0] = 106.0
    assert refused().retry_after == 3.0, "two ended in six seconds"
    assert "in about 3 s" in str(refused())
    scheduler.admit()
    end(2)
    scheduler.admit()
    end(2)
    assert not scheduler.busy
    now[0] = 500.0
    for _ in range(3):
        scheduler.add(Request([0]))
    assert refused().retry_after is None, "the pace of before a rest says nothing"


def test_while_memory_is_short_free_rows_are_no_places():
    scheduler = Scheduler(max_batch=4, max_length=10, max_queue=2)
    for _ in range(6):
        scheduler.add(Request([0]))
    scheduler.admit(lambda sequence: sequence.id == 0)
    with pytest.raises(QueueFullError, match="5 waiting"):
        scheduler.add(Request([0]))
    scheduler.admit()
    assert len(scheduler.waiting) == 2
    with pytest.raises(QueueFullError, match="2 waiting"):
        scheduler.add(Request([0]))


@settings(deadline=None)
@given(st.lists(st.integers(1, 200), max_size=60), st.integers(1, 500))
def test_prefill_groups_hold_every_prompt_once_within_bounds_of_size_and_padding(lengths, max_tokens):
    groups = prefill_groups(lengths, max_tokens)
    assert sorted(index for group in groups for index in group) == list(range(len(lengths)))
    for group in groups:
        longest = lengths[group[0]]
        assert len(group) == 1 or longest * len(group) <= max_tokens
        assert all(longest - max(16, longest // 4) <= lengths[index] <= longest for index in group)
