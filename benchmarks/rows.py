"""The rows of the comparison, and how one is measured."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace

from contestants.job import Job
from contestants.worker import Contestant
from quiet import undisturbed

JOBS = {
    "prefill": Job(1, 512, 1),
    **{f"batch {size}": Job(size, 32, 128) for size in (1, 8, 32, 64)},
    "rollouts": Job(64, 32, 128, temperature=1.0, logprobs=True),
    "group": Job(64, 256, 128, shared=True, temperature=1.0, logprobs=True),
    "no group": Job(64, 256, 128, temperature=1.0, logprobs=True),
    "start": Job(1, 5, 1),
}
SECONDS = ("group", "no group", "start")
"""Rows whose figure is seconds, all others tokens a second."""
IN_BFLOAT16 = ("rollouts", "group", "no group")


@dataclass
class Row:
    """What was found: every contestant's values, turn by turn; the reasons of those that failed; how many values others may have slowed."""

    name: str
    values: dict[str, list[float]] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    disturbed: dict[str, int] = field(default_factory=dict)

    @property
    def unit(self) -> str:
        return "s" if self.name in SECONDS else "tokens/s"


def measure(names: Sequence[str], contestants: Sequence[Contestant], repeats: int) -> Iterator[Row]:
    """Row by row, `repeats` times around the field. Who fails is out from there on, with the reason."""
    failed: dict[str, str] = {}
    for name in names:
        row = Row(name)
        for turn in range(repeats):
            for contestant in contestants:
                if contestant.name in failed or (name in IN_BFLOAT16 and not contestant.name.lower().endswith(("bfloat16", "bf16"))):
                    continue
                try:
                    value, calm = undisturbed(_work(name, contestant, turn))
                except (OSError, RuntimeError) as reason:
                    failed[contestant.name] = f"{name}: {reason}"
                    print(f"{contestant.name} is out: {reason}", file=sys.stderr)
                    continue
                row.values.setdefault(contestant.name, []).append(value)
                if not calm:
                    row.disturbed[contestant.name] = row.disturbed.get(contestant.name, 0) + 1
                print(f"{name:10} {contestant.name:24} {value:10,.2f} {'' if calm else 'disturbed'}", file=sys.stderr, flush=True)
        row.failed = dict(failed)
        yield row


def _work(name: str, contestant: Contestant, turn: int) -> Callable[[int], float]:
    """One measurement, in the row's unit. Every try has prompts of its own, for engines remember what they have read."""
    job = JOBS[name]

    def work(attempt: int) -> float:
        if name == "start":
            return _start(contestant)
        timing = contestant.run(replace(job, seed=1 + 100 * turn + attempt))
        if name == "prefill":
            return job.length / timing.first
        return timing.total if name in SECONDS else (job.prompts * (job.new - 1) - timing.early) / (timing.total - timing.first)

    return work


def _start(contestant: Contestant) -> float:
    """Seconds from the command to its first output. Raises RuntimeError if there is none."""
    command, environment = contestant.start_command()
    began = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env={**os.environ, **environment})
    assert process.stdout is not None
    output = process.stdout.read(1)
    took = time.perf_counter() - began
    process.communicate()
    if not output:
        raise RuntimeError(f"no first token (exit status {process.returncode})")
    return took
