"""Reads recipes: finds the file, parses the TOML, and turns every fault into one sentence with file, key and remedy."""

import difflib
import tomllib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from spoutnik.errors import UserError
from spoutnik.recipe.data_paths import fill_in
from spoutnik.recipe.distillation import DistillStage
from spoutnik.recipe.schema import SAMPLE_KINDS, AnyStage, Recipe, SampleStage


def load_recipe(path_or_name: str | Path, data: Mapping[str, str] | None = None) -> Recipe:
    """Reads a recipe from a TOML file, or by the name of one that ships with Spoutnik; `data` are the paths that it takes.

    Raises UserError naming the file, the key and the remedy when anything is wrong with it.
    """
    path = find_recipe(path_or_name)
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UserError("{path} is not valid TOML: {error}.", path=path, error=str(error)) from None
    return parse_recipe(fill_in(content, data or {}, str(path)), str(path))


def parse_recipe(content: dict[str, Any], origin: str) -> Recipe:
    """Checks the content of a recipe; `origin` names it in errors."""
    try:
        recipe = Recipe.model_validate(content)
    except ValidationError as error:
        faults = error.errors()
        more = f" ({len(faults) - 1} more after it.)" if len(faults) > 1 else ""
        raise UserError(f"{origin}: {_sentence(faults[0], content).rstrip('.')}.{more}".replace("?.", "?")) from None
    _check_order(recipe, origin)
    return recipe


def find_recipe(path_or_name: str | Path) -> Path:
    """A path resolves to itself; a bare name to `recipes/NAME.toml` in the package or in the checkout."""
    path = Path(path_or_name)
    if path.is_file():
        return path
    shipped = {file.stem: file for folder in recipe_folders() for file in sorted(folder.glob("*.toml"))}
    found = shipped.get(str(path_or_name))
    if found is None:
        close = difflib.get_close_matches(str(path_or_name), shipped, n=1)
        if close:
            raise UserError(
                "No recipe {name!r}: it is neither a file nor a recipe that ships with Spoutnik; did you mean {close!r}?",
                name=str(path_or_name),
                close=close[0],
            )
        raise UserError(
            "No recipe {name!r}: it is neither a file nor a recipe that ships with Spoutnik; give a path, or one of: {shipped}.",
            name=str(path_or_name),
            shipped=", ".join(sorted(shipped)),
        )
    return found


def recipe_folders() -> list[Path]:
    """Where recipes ship: beside the package's modules in a wheel, at the root of a checkout."""
    package = Path(__file__).resolve().parent.parent
    return [folder for folder in (package / "recipes", package.parent.parent / "recipes") if folder.is_dir()]


def check_models(recipe: Recipe, find: Callable[[str], Path], origin: str) -> None:
    """Refuses a recipe that names a model which is neither an earlier stage nor found by `find` (which raises UserError)."""
    known = {stage.name for stage in recipe.stages} | {teacher.name for teacher in recipe.teachers}
    for position, stage in enumerate(recipe.stages):
        for key, name in stage.inputs().items():
            if name in known or is_data(name):
                continue
            try:
                find(name)
            except UserError as error:
                raise UserError(f"{origin}: stage[{position}] {stage.name!r}: {key} = {name!r} is no earlier stage; {error}") from None


def is_data(name: str) -> bool:
    """Whether a name leads to data by itself: a JSONL file, or a folder of stored distributions."""
    return name.endswith(".jsonl") or is_stored(name)


def is_stored(name: str) -> bool:
    """Whether a name is the path of a folder of stored distributions."""
    return (Path(name) / "header.json").is_file()


def _check_order(recipe: Recipe, origin: str) -> None:
    """Every input that is a stage must come earlier and be of the right sort."""
    earlier: dict[str, AnyStage] = {}
    teachers = [teacher.name for teacher in recipe.teachers]
    later = {stage.name for stage in recipe.stages}
    for position, stage in enumerate(recipe.stages):
        where = f"{origin}: stage[{position}] {stage.name!r}"
        if stage.name in earlier:
            raise UserError("{where}: name is taken by an earlier stage; every stage needs its own.", where=where)
        if stage.name in teachers or len(set(teachers)) < len(teachers):
            raise UserError(
                "{origin}: teachers and stages share no names, and {name!r} is there twice; rename one.",
                origin=origin,
                name=_twice(teachers, stage.name),
            )
        for key, name in stage.inputs().items():
            fault = _teacher_fault(stage, key) if name in teachers else _input_fault(stage, key, name, earlier, later)
            if fault:
                raise UserError(f"{where}: {key} = {name!r} {fault}.")
        earlier[stage.name] = stage


def _twice(teachers: list[str], stage: str) -> str:
    return next((name for name in teachers if teachers.count(name) > 1), stage)


def _teacher_fault(stage: AnyStage, key: str) -> str | None:
    """A teacher over the network gives answers, no weights and no distributions."""
    if stage.kind == "eval" or (stage.kind, key) in (("sample", "from"), ("judge", "teacher")):
        return None
    return "is a teacher that only answers questions; it can be `from` of a sample stage, `teacher` of a judge stage, and evaluated"


def _input_fault(stage: AnyStage, key: str, name: str, earlier: dict[str, AnyStage], later: set[str]) -> str | None:
    """What is wrong with an input, as the end of a sentence; None where it is right or can only be told by looking for a model."""
    if name not in earlier and name in later:
        return "names a stage that comes no earlier; move that stage up"
    kind = earlier[name].kind if name in earlier else None
    if key != "data":
        produces_no_model = kind in ("corpus", "logits", *SAMPLE_KINDS, "eval", "report")
        return f"is a {kind} stage, which makes no model; name a stage that does" if produces_no_model else None
    if isinstance(stage, DistillStage) and stage.mode == "logits":
        stored = kind == "logits" or (kind is None and is_stored(name))
        if stored == (stage.teacher is None):
            return None if stored else _source_fault(stage, name, earlier)
        return _STORED_AND_TEACHER if stored else _NO_DISTRIBUTIONS
    return _source_fault(stage, name, earlier)


_STORED_AND_TEACHER = "holds a teacher's distributions, and `teacher` is named besides; leave `teacher` out"
_NO_DISTRIBUTIONS = "holds answers without distributions; name the `teacher` that has them, or a logits stage as `data`"


def _source_fault(stage: AnyStage, name: str, earlier: dict[str, AnyStage]) -> str | None:
    """What is wrong with the data of a stage that learns from a corpus or from answers."""
    kind = earlier[name].kind if name in earlier else None
    wanted = "corpus" if stage.kind == "pretrain" else "sample"
    if kind == wanted or (wanted == "sample" and kind in SAMPLE_KINDS):
        return _pairs_fault(stage, earlier[name])
    if wanted == "sample" and kind is None and name.endswith(".jsonl"):
        return None if Path(name).is_file() else "does not exist; give the path of a JSONL file or the name of an earlier sample stage"
    candidates = [known.name for known in earlier.values() if known.kind == wanted]
    offer = f"; there is: {', '.join(candidates)}" if candidates else "; add one before this stage"
    found = f"is a {kind} stage" if kind else "is no earlier stage"
    return f"{found}, expected a {wanted} stage{' or a .jsonl file' if wanted == 'sample' else ''}{offer}"


def _pairs_fault(stage: AnyStage, source: AnyStage) -> str | None:
    """DPO learns from pairs, all else from single answers."""
    pairs = isinstance(source, SampleStage) and source.keeps_pairs
    if pairs == (stage.kind == "dpo"):
        return None
    return "keeps pairs, of which only a dpo stage learns" if pairs else "keeps no pairs; name a sample stage with keep = 'pairs'"


def _sentence(fault: ErrorDetails, content: dict[str, Any]) -> str:
    where = _key_path(fault["loc"], content)
    if fault["type"] == "extra_forbidden":
        key = str(fault["loc"][-1])
        known = _known_keys(fault["loc"][:-1])
        close = difflib.get_close_matches(key, known, n=1)
        return f"{where} is unknown; " + (f"did you mean `{close[0]}`?" if close else f"known here: {', '.join(known)}")
    if fault["type"] == "missing":
        return f"{where} is missing; add it"
    if fault["type"] == "union_tag_not_found":
        return f"{where}.kind is missing; add one of {fault.get('ctx', {}).get('expected_tags', ', '.join(_kinds()))}"
    if fault["type"] == "union_tag_invalid":
        return f"{where}.kind is {fault['ctx']['tag']!r}; expected one of {fault['ctx']['expected_tags']}"
    message = fault["msg"].removeprefix("Value error, ")
    if fault["type"] == "value_error":
        return f"{where}: {message}" if where else message
    return f"{where} = {fault['input']!r}: {message[0].lower()}{message[1:]}"


def _key_path(loc: tuple[int | str, ...], content: dict[str, Any]) -> str:
    """("stage", 2, "rl", "clip") -> "stage[2] 'r1-zero' clip": the tag that pydantic inserts goes, the stage's name comes."""
    parts = list(loc)
    prefix = ""
    if len(parts) >= 2 and parts[0] == "stage" and isinstance(parts[1], int):
        table = content["stage"][parts[1]]
        name = f" {table['name']!r}" if isinstance(table, dict) and "name" in table else ""
        prefix = f"stage[{parts[1]}]{name}"
        parts = parts[3:] if len(parts) > 2 and parts[2] in _kinds() else parts[2:]
    path = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in parts).removeprefix(".")
    return f"{prefix}: {path}" if prefix and path else prefix + path


def _kinds() -> list[str]:
    return [str(model.model_fields["kind"].default) for model in get_args(AnyStage)]


def _known_keys(loc: tuple[int | str, ...]) -> list[str]:
    """The keys of the table at `loc`."""
    models: list[type[BaseModel]] = [Recipe]
    for part in loc:
        if isinstance(part, int):
            continue
        tagged = [model for model in models if "kind" in model.model_fields and model.model_fields["kind"].default == part]
        fields = [field for model in models for key, field in model.model_fields.items() if part in (key, field.alias)]
        models = tagged or [model for field in fields for model in _models_in(field.annotation)]
    return sorted({field.alias or key for model in models for key, field in model.model_fields.items()})


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    """The table types within an annotation: through lists, unions and Annotated."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    elif get_origin(annotation) in (Annotated, Union, UnionType, list):
        for argument in get_args(annotation):
            yield from _models_in(argument)
