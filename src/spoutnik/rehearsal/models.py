"""What is known of the models that a recipe names before any is opened: their configurations, and how to get those that are not here."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from spoutnik.checkpoint.find import HUB_PREFIX, find, in_hub_cache
from spoutnik.checkpoint.gguf import GGUF
from spoutnik.checkpoint.gguf_model import config_of
from spoutnik.checkpoint.hf import read_config
from spoutnik.checkpoint.shards import read_json
from spoutnik.errors import UserError
from spoutnik.model.config import ModelConfig
from spoutnik.model.flops import parameters


@dataclass(frozen=True)
class Known:
    """A model's configuration; `missing` says what would be fetched, where the model is not here."""

    config: ModelConfig
    missing: str | None = None


def known(name: str, given: Mapping[str, Path]) -> Known:
    """What is known of a model that is no stage. `given` are configurations by name.

    Raises UserError where there is neither a model nor a configuration. Fetches nothing.
    """
    here = in_hub_cache(name.removeprefix(HUB_PREFIX)) if name.startswith(HUB_PREFIX) else None
    if name in given:
        config = read_config(given[name]) if given[name].is_dir() else ModelConfig.from_hf(read_json(given[name]))
        return Known(config, None if here else _missing(name, config))
    if name.startswith(HUB_PREFIX) and here is None:
        if name not in published():
            raise UserError("{name} is not here and its sizes are not known; give its config.json with --config {name}=PATH.", name=name)
        config = ModelConfig.from_hf(published()[name])
        return Known(config, _missing(name, config))
    path = here or find(name)
    return Known(read_config(path) if path.is_dir() else config_of(GGUF(path)))


@cache
def published() -> dict[str, dict[str, Any]]:
    """Configurations, as published, of the models that our recipes name."""
    content: dict[str, dict[str, Any]] = json.loads((Path(__file__).parent / "published.json").read_text(encoding="utf-8"))
    return content


def _missing(name: str, config: ModelConfig) -> str:
    return f"{name} is not here: running fetches it (about {2 * parameters(config).total / 1e9:.1f} GB, `pip install 'spoutnik[hub]'`)"
