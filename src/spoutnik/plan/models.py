"""From a name, a path or a few flags to a model's sizes."""

import difflib
import json
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spoutnik.checkpoint.find import HUB_PREFIX, NAMED, find, in_hub_cache
from spoutnik.checkpoint.gguf_config import sizes_of
from spoutnik.checkpoint.gguf_head import Head
from spoutnik.errors import UserError
from spoutnik.model.config import ARCHITECTURES, ModelConfig
from spoutnik.model.depth import depth_config
from spoutnik.plan.chips import Chip
from spoutnik.plan.families import shape_from_hf
from spoutnik.plan.shape import Model

if TYPE_CHECKING:
    from spoutnik.recipe import Recipe

MOST_LAYERS = 10_000
"""Ten times what anybody trained; layers are looked at one by one, so that a number beyond all reason would never be answered."""
NEEDED = ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "vocab_size")
"""What flags must give where there is no model to start from."""


@dataclass(frozen=True)
class Entry:
    """A model of the catalogue: its title, its configuration in Hugging Face's names, and where that was published."""

    name: str
    title: str
    source: str
    config: Mapping[str, Any]
    note: str = ""
    trained: Mapping[str, Any] = field(default_factory=dict)
    """`precision` and `batch_tokens` of its pretraining, where they were published and are not what plans assume."""


def open_model(name_or_path: str | None, flags: Mapping[str, Any] | None = None) -> Model:
    """The sizes of a model.

    `name_or_path`: a name of the catalogue, a `config.json` or a folder with one, a GGUF file, a model that is installed, `hf:owner/name`
    if the hub's cache holds it, or `recipe:stage` for what a recipe pretrains (the stage may be left out where there is one). `flags` are
    Hugging Face's fields: they change that model, or make one by themselves. Fetches nothing. Raises UserError where there is no such
    model or it cannot be.
    """
    flags = {key: value for key, value in (flags or {}).items() if value is not None}
    model = _from_flags(flags) if name_or_path is None else _changed(_opened(name_or_path), flags)
    if model.num_hidden_layers > MOST_LAYERS:
        raise UserError("The model has {layers:,} layers; a plan takes {most:,} at most.", layers=model.num_hidden_layers, most=MOST_LAYERS)
    return model


def _changed(model: Model, flags: Mapping[str, Any]) -> Model:
    known = {one.name for one in fields(model)}
    unknown = [key for key in flags if key not in known]
    if unknown:
        raise UserError(
            "{field} is no field of a {model_type} model; leave it out, or give sizes without a model's name.",
            field=unknown[0],
            model_type=model.model_type,
        )
    return model.with_(**flags) if flags else model


def from_hf(raw: Mapping[str, Any]) -> Model:
    """The object of a `config.json`: of a family that Spoutnik runs, or of one that it only plans for."""
    if isinstance(raw.get("text_config"), dict):
        raw = raw["text_config"]  # a model that also sees or hears: what writes is planned
    return ModelConfig.from_hf(dict(raw)) if raw.get("model_type") in ARCHITECTURES else shape_from_hf(raw)


@cache
def catalogue() -> dict[str, Entry]:
    """Published models by name."""
    content = tomllib.loads(files("spoutnik.plan").joinpath("models.toml").read_text(encoding="utf-8"))
    found: dict[str, Entry] = {}
    for name, row in content.items():
        same = content[row["same_as"]] if "same_as" in row else row
        note = row.get("note", "")
        found[name] = Entry(name, row["title"], row.get("source", same["source"]), same["config"], note, same.get("trained", {}))
    return found


def title_of(name: str, flags: Mapping[str, Any] | None = None) -> str:
    """A catalogue model's title, else what the user called it; with the sizes that `flags` change."""
    entry = catalogue().get(name.lower())
    title = entry.title if entry else Path(name).name or name
    changed = ", ".join(f"{key} {value}" for key, value in (flags or {}).items() if value is not None)
    return f"{title} ({changed})" if changed else title


def trained_as(name: str | None, chip: Chip) -> Mapping[str, Any]:
    """How a model of the catalogue was pretrained, as far as that is not what plans assume and the chip can do it."""
    entry = catalogue().get((name or "").lower())
    known = dict(entry.trained) if entry else {}
    if not chip.fp8_tflops:
        known.pop("precision", None)
    return known


def _opened(name: str) -> Model:
    entry = catalogue().get(name.lower())
    if entry is not None:
        return from_hf(entry.config)
    path = Path(name).expanduser()
    if name in NAMED:
        path = find(name)
    elif name.startswith(HUB_PREFIX):
        cached = in_hub_cache(name.removeprefix(HUB_PREFIX))
        if cached is None:
            raise UserError(
                "{name} is not in the hub's cache, and a plan fetches nothing; give its config.json, or its sizes as flags.", name=name
            )
        path = cached
    if path.is_dir():
        path = path / "config.json"
    if path.is_file() and path.suffix != ".toml":
        return sizes_of(Head(path)) if path.suffix == ".gguf" else _from_json(path)
    if (recipe := _recipe_path(name)) is not None:
        return _from_recipe(recipe, name.rpartition(":")[2] if ":" in name else None)
    close = difflib.get_close_matches(name.lower(), catalogue(), n=3, cutoff=0.4) or list(catalogue())[:5]
    raise UserError(
        "No model {name!r}: it is neither a file nor a folder with a config.json, nor a recipe, nor a name of the "
        "catalogue; near it are {close} (spoutnik plan models lists all).",
        name=name,
        close=", ".join(close),
    )


def _from_json(path: Path) -> Model:
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError("{path} is not JSON ({error}); give a Hugging Face config.json.", path=path, error=str(error)) from None
    if not isinstance(raw, dict):
        raise UserError(
            "{path} holds a JSON {found}, expected an object; give a Hugging Face config.json.", path=path, found=type(raw).__name__
        )
    return from_hf(raw)


def _recipe_path(name: str) -> Path | None:
    """The recipe that `recipe` or `recipe:stage` names, if there is one. Recipes need pydantic, so they are read only here."""
    from spoutnik.recipe.loading import find_recipe

    try:
        return find_recipe(name.partition(":")[0] or name)
    except UserError:
        return None


def _from_recipe(path: Path, stage: str | None) -> ModelConfig:
    from spoutnik.recipe.loading import load_recipe

    made = pretrained(load_recipe(path))
    if not made:
        raise UserError("{path} pretrains no model; name one of the catalogue (spoutnik plan models lists it).", path=path)
    if stage is None and len(made) == 1:
        return next(iter(made.values()))
    if stage not in made:
        several = {"path": path, "stem": path.stem, "made": ", ".join(made)}
        if stage:
            raise UserError("{path} has no pretrain stage {stage!r}; write {stem}:STAGE with one of {made}.", stage=stage, **several)
        raise UserError("{path} pretrains several models; write {stem}:STAGE with one of {made}.", **several)
    return made[stage]


def pretrained(recipe: "Recipe") -> dict[str, ModelConfig]:
    """The models that a recipe trains from nothing, by stage. A vocabulary is as large as its corpus stage asks for."""
    vocabularies = {stage.name: stage.vocab_size for stage in recipe.stages if stage.kind == "corpus"}
    return {
        stage.name: depth_config(stage.model.family, stage.model.depth, vocabularies[stage.data]).with_(**stage.model.overrides)
        for stage in recipe.stages
        if stage.kind == "pretrain"
    }


def _from_flags(flags: Mapping[str, Any]) -> Model:
    """A model made of flags alone: with latent attention where kv_lora_rank is given, else llama's family."""
    missing = [f"--{name.replace('_', '-')}" for name in NEEDED if name not in flags]
    if missing:
        raise UserError(
            "The model's sizes lack {missing}; give them, or a model's name (spoutnik plan models lists them).", missing=", ".join(missing)
        )
    family = flags.get("model_type") or ("deepseek_v3" if flags.get("kv_lora_rank") else "llama")
    raw = {"model_type": family, "max_position_embeddings": 4096} | dict(flags)
    if family in ("deepseek_v3", "deepseek_v2"):
        # What a few flags leave out is V3's.
        raw = {"qk_nope_head_dim": 128, "qk_rope_head_dim": 64, "v_head_dim": 128} | raw
        if not raw.get("n_routed_experts"):
            raw["first_k_dense_replace"] = raw["num_hidden_layers"]
    elif raw.get("n_routed_experts"):
        raw["model_type"] = "mixtral"
        return shape_from_hf(raw)
    return ModelConfig.from_hf(raw)
