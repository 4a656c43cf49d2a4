"""Where data and weights come from, carried along: records name their teachers, checkpoints inherit them, a card says it.

A teacher's terms bind what was made from its answers, and what was made from that. So each stage takes over the teachers of all that it
builds on (`teachers_of`), and its README.md says who they were, what their terms say, and in which words a user went on regardless.
"""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from spoutnik.run.directory import write_whole
from spoutnik.teacher.base import Provenance

KEY = "teachers"
"""Of a record in JSONL, of a checkpoint's spoutnik.json, and of stored distributions' header.json."""
CARD = "README.md"


def teachers_of(path: Path) -> list[Provenance]:
    """The teachers of samples (a .jsonl file, or a folder with samples.jsonl), of stored distributions, or of a checkpoint; [] if none."""
    samples = path / "samples.jsonl" if path.is_dir() else path
    if samples.suffix == ".jsonl" and samples.is_file():
        with samples.open(encoding="utf-8", errors="replace") as lines:
            return merge(_of(line) for line in lines if f'"{KEY}"' in line)
    found = [file for file in (path / "spoutnik.json", path / "header.json") if file.is_file()]
    return merge(_of(file.read_text(encoding="utf-8", errors="replace")) for file in found)


def merge(lists: Iterable[Sequence[Provenance]]) -> list[Provenance]:
    """Each teacher once, in the order of their first appearance."""
    seen: dict[str, Provenance] = {}
    for entry in (entry for entries in lists for entry in entries):
        seen.setdefault(json.dumps(entry, sort_keys=True), entry)
    return list(seen.values())


def write_card(folder: Path, title: str, lineage: dict[str, Any], teachers: Sequence[Provenance]) -> None:
    """Writes README.md with a front matter that the Hugging Face hub reads."""
    made_by = f"the stage `{lineage.get('stage')}` ({lineage.get('kind')}) of the recipe `{lineage.get('recipe')}`"
    parents = "".join(f"- {key}: {name}\n" for key, name in dict(lineage.get("parents", {})).items())
    sections = [
        "---\ntags:\n- synthetic\n- distillation\n---\n",
        f"# {title}\n\nMade by {made_by}, from\n\n{parents}",
        "## Teachers\n\nThis was made, directly or through what it builds on, from the answers of models whose terms may bind its use:\n",
        *map(_section, teachers),
    ]
    write_whole(folder / CARD, "\n".join(sections))


def _section(teacher: Provenance) -> str:
    source = f", see {teacher['terms_source']}" if teacher.get("terms_source") else ""
    accepted = "\n".join(f"> {line}" for line in str(teacher.get("accepted") or "").splitlines())
    regardless = f"\nIt was used regardless, with these words of the user's:\n\n{accepted}\n" if accepted else ""
    return (
        f"### {teacher.get('model')}\n\nAsked as `{teacher.get('teacher')}` at {teacher.get('endpoint')}. "
        f"Training other models on its answers: **{teacher.get('terms')}** (says {teacher.get('terms_said_by')}{source}).\n{regardless}"
    )


def _of(text: str) -> list[Provenance]:
    """What a JSON text says under KEY; what is no such text says nothing here and is refused by whoever reads it in earnest."""
    try:
        entries = json.loads(text)[KEY]
    except (ValueError, KeyError, TypeError, RecursionError):
        return []
    return [entry for entry in entries if isinstance(entry, dict)] if isinstance(entries, list) else []
