"""Recipes that take paths: `[data]` names what the user must give and says what it is, `${name}` anywhere in a text stands for it.

[data]
train = "GSM8K's training file: JSON lines with `question` and `answer`"
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from spoutnik.errors import UserError

_PLACE = re.compile(r"\$\{([^}]*)\}")


def fill_in(content: dict[str, Any], given: Mapping[str, str], origin: str) -> dict[str, Any]:
    """The recipe's content without `[data]`, with the paths that were given in their places; `~` is the user's folder.

    Raises UserError naming what is missing, superfluous, used without being declared, or no file.
    """
    declared = content.get("data", {})
    if not isinstance(declared, dict) or not all(isinstance(value, str) for value in declared.values()):
        raise UserError("{origin}: [data] must hold a text for each path that the recipe takes: what the file is.", origin=origin)
    for name in given:
        if name not in declared:
            if not declared:
                raise UserError("{origin} takes no path {name!r}; it takes none: leave --data out.", origin=origin, name=name)
            raise UserError("{origin} takes no path {name!r}; it takes {known}.", origin=origin, name=name, known=", ".join(declared))
    for name, meaning in declared.items():
        if name not in given:
            raise UserError(
                "{origin} needs the path of {name} ({meaning}); give it with --data {name}=PATH.",
                origin=origin,
                name=name,
                meaning=meaning.rstrip("."),
            )
    paths = {name: str(Path(path).expanduser()) for name, path in given.items()}
    for name, path in paths.items():
        if not Path(path).is_file():
            raise UserError(
                "{origin}: {name} = {path!r} is no file; give the path of {meaning}.",
                origin=origin,
                name=name,
                path=path,
                meaning=declared[name].rstrip("."),
            )
    return {key: _filled(value, paths, origin) for key, value in content.items() if key != "data"}


def _filled(value: Any, paths: Mapping[str, str], origin: str) -> Any:
    if isinstance(value, dict):
        return {key: _filled(item, paths, origin) for key, item in value.items()}
    if isinstance(value, list):
        return [_filled(item, paths, origin) for item in value]
    if not isinstance(value, str):
        return value

    def path(place: re.Match[str]) -> str:
        if place[1] not in paths:
            raise UserError(
                "{origin}: {place} stands for a path that [data] does not name; add {name!r} there, with what it is.",
                origin=origin,
                place=place[0],
                name=place[1],
            )
        return paths[place[1]]

    return _PLACE.sub(path, value)
