"""The scheduler against a plain model of what it promises: rows without gaps, first come first served, nothing lost."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from spoutnik.engine.request import Request
from spoutnik.engine.scheduler import Scheduler, prefill_groups
from spoutnik.errors import UserError


class SchedulerMachine(RuleBasedStateMachine):
    """Adds, cancels, ends, sweeps and admits in any order, and follows the cache's rows as the engine would."""

    @initialize(max_batch=st.integers(1, 5))
    def start(self, max_batch):
        self.scheduler = Scheduler(max_batch, max_length=10)
        self.alive, self.admitted, self.reported, self.over = [], [], [], set()
        self.rows = [None] * max_batch  # whose data a cache row holds

    @rule(length=st.integers(1, 9))
    def add(self, length):
        self.alive.append(self.scheduler.add(Request([0] * length)))

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


@settings(deadline=None)
@given(st.lists(st.integers(1, 200), max_size=60), st.integers(1, 500))
def test_prefill_groups_hold_every_prompt_once_within_bounds_of_size_and_padding(lengths, max_tokens):
    groups = prefill_groups(lengths, max_tokens)
    assert sorted(index for group in groups for index in group) == list(range(len(lengths)))
    for group in groups:
        longest = lengths[group[0]]
        assert len(group) == 1 or longest * len(group) <= max_tokens
        assert all(longest - max(16, longest // 4) <= lengths[index] <= longest for index in group)
