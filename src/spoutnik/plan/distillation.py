"""Distillation: what the teacher says and what the student learns from it, in the three modes of `spoutnik distill`.

samples: the teacher writes answers, of which a share is kept, and the student learns them for some epochs. logits: answers exist; the
teacher reads them once, its likeliest tokens go to disk, and the student learns. on-policy: the student writes, the teacher reads what it
wrote, and the student learns, once.
"""

from dataclasses import dataclass

from spoutnik.errors import UserError
from spoutnik.plan import inference, units
from spoutnik.plan.bill import Rent
from spoutnik.plan.chips import Chip
from spoutnik.plan.figure import Figure, Input
from spoutnik.plan.rates import decode_reach, prefill_reach
from spoutnik.plan.result import Line, Plan
from spoutnik.plan.shape import Model
from spoutnik.plan.sums import line_of, model_figures, with_totals
from spoutnik.plan.update import update_devices, update_fits, update_hours

MODES = ("samples", "logits", "on-policy")
STORED = 298.0
"""Bytes that the likeliest tokens of one place take on disk (V3's vocabulary: 58 of them, as `spoutnik logits` writes them)."""


@dataclass(frozen=True)
class Lesson:
    """What is taught."""

    mode: str
    samples: float
    length: float
    """Mean tokens of a kept answer, its question included."""
    epochs: float = 2.0
    kept: float = 1.0
    """Share of what the teacher writes that is kept (mode samples)."""

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise UserError("--mode {mode} is no way to distil; choose one of {modes}.", mode=self.mode, modes=", ".join(MODES))
        if min(self.samples, self.length, self.epochs) <= 0 or not 0 < self.kept <= 1:
            raise UserError("Distillation needs --samples, --length and --epochs above 0, and --kept above 0 and at most 1.")
        if self.kept != 1 and self.mode != "samples":
            raise UserError(
                "--kept is the share of what the teacher writes; --mode {mode} has it write nothing, so leave it out.", mode=self.mode
            )


def plan_distillation(teacher: Model, student: Model, title: str, chip: Chip, devices: int | None, lesson: Lesson, rent: Rent) -> Plan:
    """Hours and money of the teacher's and the student's part. `devices`: None for a node, or as many as the models take.

    Raises UserError where the teacher fits on no number of the chips."""
    if lesson.mode != "samples" and teacher.vocab_size != student.vocab_size:
        raise UserError(
            "The teacher's {teacher} tokens are not the student's {student}, so their distributions do not compare; use --mode samples.",
            teacher=teacher.vocab_size,
            student=student.vocab_size,
        )
    devices = devices or _enough_devices(teacher, student, chip, lesson)
    units.check_holds(teacher, chip, devices, lesson.length)
    update_fits(student, chip, devices)
    tokens = _tokens(lesson)
    times = lesson.epochs if lesson.mode != "on-policy" else 1.0
    epochs = Input("epochs", times, "", "--epochs", "assumed")
    learned = Figure("learned_tokens", tokens.value * times, "tokens", "lesson_tokens * epochs", (tokens, epochs))
    lines: list[Line] = []
    if lesson.mode == "samples":
        lines.append(
            line_of(
                "teacher_writes",
                "distill",
                "teacher",
                written_hours("teacher_hours", teacher, chip, devices, _asked(lesson, tokens), lesson.length),
                chip,
                rent,
            )
        )
    else:
        if lesson.mode == "on-policy":
            lines.append(
                line_of(
                    "student_writes",
                    "distill",
                    "student",
                    written_hours("rollout_hours", student, chip, devices, tokens, lesson.length),
                    chip,
                    rent,
                )
            )
        lines.append(
            line_of("teacher_reads", "distill", "teacher", read_hours("teacher_hours", teacher, chip, tokens, lesson.length), chip, rent)
        )
    lines.append(
        line_of("student_learns", "distill", "student", update_hours("student_hours", student, learned, lesson.length, chip), chip, rent)
    )
    figures = model_figures(student, lesson.length) | {"learned_tokens": learned}
    if lesson.mode == "logits":
        place = Input("bytes_per_place", STORED, "bytes", "spoutnik logits", "measured")
        figures["stored_bytes"] = Figure("stored_bytes", tokens.value * STORED, "bytes", "lesson_tokens * bytes_per_place", (tokens, place))
    memory, figures["memory_gib_per_device"] = _held(teacher, chip, devices, lesson)
    return with_totals(Plan("distill", title, figures, tuple(lines), memory), devices)


def _enough_devices(teacher: Model, student: Model, chip: Chip, lesson: Lesson) -> int:
    """A node, or as many as the teacher works best on and the student's training takes."""
    if lesson.mode == "samples":
        unit, _, _ = units.bulk(teacher, chip, lesson.length)
    else:
        unit = units.smallest_unit(teacher, chip, lesson.length)
    return max(chip.devices_per_node, unit.devices, update_devices(student, chip))


def _held(teacher: Model, chip: Chip, devices: int, lesson: Lesson) -> tuple[dict[str, float], Figure]:
    """What a device of the teacher's holds: beside its weights the cache of all that it writes at once, or of one text that it reads."""
    if lesson.mode == "samples":
        unit, many, _ = units.bulk(teacher, chip, lesson.length, devices)
        return units.held(teacher, unit, chip, many, lesson.length)
    return units.held(teacher, units.smallest_unit(teacher, chip, lesson.length), chip, 1.0, lesson.length)


def written_hours(name: str, config: Model, chip: Chip, devices: int, tokens: Figure, length: float) -> Figure:
    """GPU-hours to write so many tokens where nobody waits for any of them: the widest batch that fits."""
    unit, _, seconds = units.bulk(config, chip, length, devices)
    least = Input("least_seconds_per_written_token", seconds, "s", f"plan/inference.py, {unit.devices} x {chip.title}", "computed")
    reach = decode_reach(chip)
    value = tokens.value * (seconds / 3600) / reach.value
    return Figure(
        name, value, "GPU-hours", f"{tokens.name} * least_seconds_per_written_token / (3600 * decode_reach)", (tokens, least, reach)
    )


def read_hours(name: str, config: Model, chip: Chip, tokens: Figure, length: float) -> Figure:
    """GPU-hours of one forward pass over so many tokens."""
    unit = units.smallest_unit(config, chip, length)
    seconds = inference.prefill(config, unit, chip, length)
    least = Input("least_seconds_per_read_token", seconds, "s", f"plan/inference.py, {unit.devices} x {chip.title}", "computed")
    reach = prefill_reach(chip)
    value = tokens.value * (seconds / 3600) / reach.value
    return Figure(
        name, value, "GPU-hours", f"{tokens.name} * least_seconds_per_read_token / (3600 * prefill_reach)", (tokens, least, reach)
    )


def _tokens(lesson: Lesson) -> Figure:
    parts = (Input("samples", lesson.samples, "", "--samples", "assumed"), Input("length", lesson.length, "tokens", "--length", "assumed"))
    return Figure("lesson_tokens", lesson.samples * lesson.length, "tokens", "samples * length", parts)


def _asked(lesson: Lesson, tokens: Figure) -> Figure:
    kept = Input("kept", lesson.kept, "share", "--kept", "assumed")
    return Figure("written_tokens", tokens.value / lesson.kept, "tokens", "lesson_tokens / kept", (tokens, kept))
