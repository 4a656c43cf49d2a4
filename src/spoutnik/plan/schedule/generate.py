"""The schedules by name: checks what each one needs and hands out the order of work of every device."""

from collections.abc import Callable

from spoutnik.errors import UserError
from spoutnik.plan.schedule import bidirectional, one_way
from spoutnik.plan.schedule.cells import Program, Task

SCHEDULES = ("1f1b", "interleaved", "zb1p", "zbv", "dualpipe", "dualpipev")


def chunks_per_device(name: str, chunks: int = 2) -> int:
    """How many stages of the model lie on one device."""
    return {"interleaved": chunks, "zbv": 2, "dualpipe": 2, "dualpipev": 2}.get(name, 1)


def check(name: str, devices: int, microbatches: int, chunks: int = 2) -> None:
    """Raises UserError, saying what would work, where a schedule cannot be made so."""
    if name not in SCHEDULES:
        raise UserError("There is no pipeline schedule {name!r}; it must be one of {schedules}.", name=name, schedules=", ".join(SCHEDULES))
    if devices < 1 or microbatches < 1:
        raise UserError(
            "A pipeline of {devices} devices and {microbatches} microbatches cannot be; both must be 1 or more.",
            devices=devices,
            microbatches=microbatches,
        )
    if name == "interleaved" and chunks < 2:
        raise UserError("The interleaved schedule has {chunks} chunks on a device; it needs 2 or more, or take 1f1b.", chunks=chunks)
    if name == "interleaved" and microbatches % devices:
        raise UserError(
            "Interleaved stages cannot deal {microbatches} microbatches to {devices} devices; take a multiple of {devices}.",
            microbatches=microbatches,
            devices=devices,
        )
    if name == "dualpipe" and devices % 2:
        raise UserError("DualPipe cannot run on {devices} devices; their number must be even.", devices=devices)
    if name == "dualpipe" and (microbatches % 2 or microbatches < 2 * devices):
        least = 2 * devices
        raise UserError(
            "DualPipe on {devices} devices needs an even number of microbatches, {least} or more, not {microbatches}.",
            devices=devices,
            least=least,
            microbatches=microbatches,
        )
    if name == "dualpipev" and microbatches < 2 * devices:
        raise UserError(
            "DualPipeV on {devices} devices needs {least} microbatches or more; {microbatches} were asked for.",
            devices=devices,
            least=2 * devices,
            microbatches=microbatches,
        )


def generate(name: str, devices: int, microbatches: int, chunks: int = 2) -> Program:
    """The program of `devices` devices for one step of `microbatches` microbatches.

    The model is cut into `devices` stages for 1f1b, zb1p and dualpipe (which holds it twice), into `chunks` times as many for interleaved,
    and into twice as many for zbv and dualpipev, whose devices lie in a V. Raises UserError where a schedule cannot be made so.
    """
    check(name, devices, microbatches, chunks)
    makers: dict[str, Callable[[], tuple[list[list[Task]], int, int]]] = {
        "1f1b": lambda: (one_way.one_f_one_b(devices, microbatches), devices, 1),
        "zb1p": lambda: (one_way.zb1p(devices, microbatches), devices, 1),
        "interleaved": lambda: (one_way.interleaved(devices, microbatches, chunks), devices * chunks, 1),
        "zbv": lambda: (one_way.zbv(devices, microbatches), 2 * devices, 1),
        "dualpipe": lambda: (bidirectional.dualpipe(devices, microbatches), devices, 2),
        "dualpipev": lambda: (bidirectional.dualpipev(devices, microbatches), 2 * devices, 1),
    }
    rows, stages, copies = makers[name]()
    return Program(name, stages, microbatches, tuple(tuple(row) for row in rows), copies)
