"""A stage that can be killed at any instruction, and goes on to the same bits.

Everything that the next step depends on lives in one state (weights, optimiser, data position, random streams, step counter); a step is a
pure function of it. A save is a new folder that a one-line pointer names only once it is whole and on disk.
"""

import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol, TypeVar

from spoutnik.errors import UserError
from spoutnik.run import interrupt
from spoutnik.run.context import StageContext


class HasStep(Protocol):
    step: int


State = TypeVar("State", bound=HasStep)


def run_stage(
    context: StageContext,
    steps: int,
    start: Callable[[], State],
    advance: Callable[[State], dict[str, Any]],
    save: Callable[[State, Path], None],
    load: Callable[[Path], State],
) -> State:
    """Makes the state of step `steps`: resumes from the newest whole state in `context.directory`, or starts.

    `advance` makes one step (and adds 1 to `state.step`) and returns its metrics, which go to the record and the progress bar; tokens and
    FLOPs it adds to `context.ledger` itself. The state is saved at the cadence that the context asks for, at the end, and before a
    KeyboardInterrupt that a signal asked for. What the record says of steps that were lost is dropped first, so nothing stands twice.
    """
    state = resume(context, load) or start()
    context.record.truncate_stage(context.name, state.step)
    saved_at, saved_step = time.monotonic(), state.step
    with context.progress(context.name, steps, done=state.step) as progress:
        while state.step < steps:
            metrics = advance(state)
            context.log("step", step=state.step, **metrics)
            progress.update(state.step, metrics)
            stop = interrupt.asked()
            by_steps = context.save_every_steps > 0 and state.step - saved_step >= context.save_every_steps
            by_time = context.save_every_steps == 0 and time.monotonic() - saved_at >= context.save_every_s
            if stop or by_steps or by_time or state.step == steps:
                write_state(context, state, save)
                saved_at, saved_step = time.monotonic(), state.step
            if stop and state.step < steps:
                raise KeyboardInterrupt
    return state


def resume(context: StageContext, load: Callable[[Path], State]) -> State | None:
    """The newest whole state of the stage, or None where nothing was saved."""
    pointer = context.directory / "latest"
    return load(context.directory / pointer.read_text(encoding="utf-8")) if pointer.exists() else None


def write_state(context: StageContext, state: State, save: Callable[[State, Path], None]) -> None:
    """Saves the state and the ledger. The state of the step before stays whole until this one is."""
    keep(context.directory, f"state-{state.step:08d}", lambda folder: save(state, folder))
    context.ledger.save()


def keep(directory: Path, name: str, write: Callable[[Path], None]) -> None:
    """Writes folder `name`, points `latest` at it and removes the older ones.

    On any failure `latest` still names the old, whole state. Raises UserError when the disk is full or cannot be written.
    """
    folder, pointer = directory / name, directory / "latest"
    old = pointer.read_text(encoding="utf-8") if pointer.exists() else None
    if old == name:
        return
    try:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        write(folder)
        for path in [*folder.rglob("*"), folder]:
            sync(path)
        aside = directory / "latest.new"
        aside.write_text(name, encoding="utf-8")
        sync(aside)
        os.replace(aside, pointer)
        sync(directory)
    except Exception as error:
        shutil.rmtree(folder, ignore_errors=True)
        if not isinstance(error, OSError) and "No space left" not in str(error):
            raise
        kept = f"the state saved before ({old}) is whole" if old else "no earlier state was saved"
        raise UserError(f"Cannot save to {folder}: {error}; {kept}: make room and run the same command again.") from error
    for stale in directory.glob("state-*"):
        if stale.name != name:
            shutil.rmtree(stale, ignore_errors=True)


def sync(path: Path) -> None:
    """Forces a file or folder onto disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
