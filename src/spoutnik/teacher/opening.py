"""From a name in a recipe to a teacher."""

import os
from pathlib import Path

from spoutnik.errors import UserError
from spoutnik.recipe.teachers import TeacherSpec
from spoutnik.run.context import StageContext
from spoutnik.teacher.base import Teacher
from spoutnik.teacher.remote import RemoteTeacher
from spoutnik.teacher.terms import check_terms, examinee


def open_remote(spec: TeacherSpec, purse: str) -> RemoteTeacher:
    """The teacher of a [[teacher]] table. Raises UserError where its terms or a missing key forbid asking it."""
    provenance = check_terms(spec)
    return RemoteTeacher(spec, read_key(spec), ledger_of(spec), purse, provenance)


def open_examinee(spec: TeacherSpec, purse: str) -> RemoteTeacher:
    """A remote model that is evaluated. Terms bind what is trained on answers; an evaluation trains nothing, so it asks for none."""
    return RemoteTeacher(spec, read_key(spec), ledger_of(spec), purse, examinee(spec))


def open_teacher(name: str, context: StageContext, seed: int) -> Teacher:
    """The teacher that a stage names: a [[teacher]] of the recipe, else a model that answers here, drawn from `seed`."""
    if name in context.teachers:
        return open_remote(context.teachers[name], purse_of(context, name))
    from spoutnik.teacher.local import LocalTeacher  # torch

    return LocalTeacher(name, context.resolve(name), seed)


def purse_of(context: StageContext, teacher: str) -> str:
    """Whose money: recipes of one name share a cap for each teacher, in all their runs."""
    return f"{context.lineage.get('recipe', '')}/{teacher}"


def read_key(spec: TeacherSpec) -> str | None:
    """The API key from the environment; None for a server that needs none."""
    if spec.api_key_env is None:
        return None
    key = os.environ.get(spec.api_key_env, "").strip()
    if not key:
        raise UserError(f"Teacher {spec.name!r} needs its key in the environment variable {spec.api_key_env}, which is not set; set it.")
    if not key.isascii() or not key.isprintable() or " " in key:
        raise UserError(f"The environment variable {spec.api_key_env} holds something that is no key (a space or an unprintable sign).")
    return key


def ledger_of(spec: TeacherSpec) -> Path:
    """The teacher's own file, or the one for all: in the user's data, not in a cache, for to delete it is to pay again."""
    if spec.ledger:
        return Path(spec.ledger).expanduser()
    return Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share") / "spoutnik" / "teachers.sqlite"
