"""Whether a teacher's terms allow training other models on its answers, and what is written down when a user says to go on regardless.

The recipe says it; a small dated table (terms.toml) knows some providers. Where the table says "forbidden", that holds, whatever the recipe
says; else the recipe's word counts, else the table's. What is not "allowed" is refused unless the user accepts in words.
"""

import fnmatch
import functools
import tomllib
from dataclasses import dataclass
from importlib.resources import files
from typing import Any
from urllib.parse import urlsplit

from spoutnik.errors import UserError
from spoutnik.recipe.teachers import LOOPBACK, TeacherSpec
from spoutnik.teacher.base import Provenance


@dataclass(frozen=True)
class Row:
    """What the table knows of a provider or a model."""

    terms: str
    note: str
    source: str
    seen: str
    checked: str


def look_up(base_url: str, model: str) -> Row | None:
    """The table's row for a provider; for a server on this machine, for the model."""
    table = _table()
    host = urlsplit(base_url).hostname or ""
    rows = [row for row in table["host"] if host == row["domain"] or host.endswith("." + row["domain"])]
    if LOOPBACK.match(base_url):
        rows = [row for row in table["model"] if fnmatch.fnmatchcase(model.lower(), row["pattern"].lower())]
    return Row(**{key: str(rows[0][key]) for key in Row.__dataclass_fields__}) if rows else None


def check_terms(spec: TeacherSpec) -> Provenance:
    """What must be written into everything that is made from this teacher's answers. Raises UserError where it may not be used."""
    row = look_up(spec.base_url, spec.model)
    verdict, said_by = _verdict(spec, row)
    if verdict != "allowed" and spec.accept_terms is None:
        reason = {
            "forbidden": "has terms that forbid training other models on its answers",
            "unknown": "has terms of which it is not known whether they allow training other models on its answers",
        }[verdict]
        found = f" ({row.note} {row.source}, checked {row.checked})" if row else ""
        raise UserError(
            f"Teacher {spec.name!r} at {spec.base_url} {reason}{found}; take another teacher, or read the terms"
            + (' and set terms = "allowed" if they do' if verdict == "unknown" else "")
            + ', or write accept_terms = "I ..." into its table, in words of your own that will stand in every record and in the data card.'
        )
    return {
        "teacher": spec.name, "model": spec.model, "endpoint": spec.base_url, "terms": verdict, "terms_said_by": said_by,
        "terms_source": row.source if row else None, "accepted": spec.accept_terms if verdict != "allowed" else None,
    }  # fmt: skip


def examinee(spec: TeacherSpec) -> Provenance:
    """Of answers that are only graded: whatever the terms are, nothing is trained on them."""
    return {"teacher": spec.name, "model": spec.model, "endpoint": spec.base_url, "terms": "not asked: evaluated only", "accepted": None}


def _verdict(spec: TeacherSpec, row: Row | None) -> tuple[str, str]:
    """(terms, who says so)"""
    if row and (row.terms == "forbidden" or spec.terms == "unknown"):
        return row.terms, f"the table of {row.checked}"
    return spec.terms, "the recipe" if spec.terms != "unknown" else "nobody"


@functools.cache
def _table() -> dict[str, list[dict[str, Any]]]:
    return tomllib.loads(files("spoutnik.teacher").joinpath("terms.toml").read_text(encoding="utf-8"))
