"""`builtin:english`: English prose that every Python ships, so that a recipe needs no download.

It is the text of Python's own language reference as the standard library carries it for `help()` (PSF licence).
"""

import re
from pathlib import Path

from spoutnik.errors import UserError

BUILTIN = "builtin:english"
_SHORTEST = 80
_PLAIN_QUOTES = {0x201C: '"', 0x201D: '"', 0x2019: "'"}


def read_text(source: str) -> list[str]:
    """The documents of a text source: `builtin:english`, a UTF-8 file (documents apart by blank lines), or a folder of `.txt` files."""
    if source == BUILTIN:
        return _reference_manual()
    path = Path(source)
    files = sorted(path.glob("**/*.txt")) if path.is_dir() else [path]
    if not files or not all(file.is_file() for file in files):
        raise UserError(f"The text source {source!r} is neither {BUILTIN!r} nor a text file nor a folder that holds .txt files.")
    documents = [document for file in files for document in _documents(file)]
    if not documents:
        raise UserError(f"The text source {source!r} is empty; give it at least one paragraph of text.")
    return documents


def _documents(file: Path) -> list[str]:
    try:
        text = file.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise UserError(f"{file} is not UTF-8 text (byte {error.start}); convert it, for instance with iconv.") from error
    return [part.strip() for part in re.split(r"\n\s*\n", text) if part.strip()]


def _reference_manual() -> list[str]:
    """One document a paragraph of prose; code samples, tables and headings of the manual are left out."""
    from pydoc_data.topics import topics

    paragraphs = [re.sub(r"\s+", " ", part).strip() for name in sorted(topics) for part in re.split(r"\n\s*\n", topics[name])]
    prose = [part for part in paragraphs if len(part) >= _SHORTEST and re.match(r"[A-Z]", part) and part.endswith(".")]
    return [part.translate(_PLAIN_QUOTES) for part in dict.fromkeys(prose)]
