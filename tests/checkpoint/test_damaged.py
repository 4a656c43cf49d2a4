"""Models from strangers: whatever is changed in their files, they open or are refused in one sentence, and claim no large memory."""

import contextlib
import copy
import json
import struct
import tracemalloc

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tiny_models import randomise, tiny_model

from spoutnik.checkpoint.gguf_export import save_gguf
from spoutnik.checkpoint.hf import save_checkpoint
from spoutnik.checkpoint.load import open_model
from spoutnik.errors import UserError
from spoutnik.text.tokenizer import Tokenizer, train_bpe

GIANT = st.sampled_from([0, 1, 2**8, 2**16, 2**31 - 1, 2**31, 2**32 - 1, 2**40, 2**62, 2**63 - 1, 2**63, 2**64 - 1])
ODD = st.sampled_from([None, True, 0, -1, 10**9, 2**63, 10**30, 0.5, 1e308, float("nan"), "", "x" * 1000, [], {}, [[]], "\ud800"])
JSON_FILES = ("config.json", "tokenizer.json", "tokenizer_config.json", "generation_config.json")


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """A folder with a model of each family as a directory and as a GGUF file."""
    folder = tmp_path_factory.mktemp("models")
    tokenizer = train_bpe(["the cat sat on the mat. " * 20], vocab_size=300)
    for family in ("deepseek-v3", "llama"):
        model = tiny_model(family, vocab_size=tokenizer.vocab_size, max_position_embeddings=64)
        randomise(model)
        save_checkpoint(model, tokenizer, folder / family)
        save_gguf(model, tokenizer, folder / f"{family}.gguf", "f16")
    return folder


def opened_or_refused(path):
    """Opens a model; what the interpreter and NumPy claim meanwhile is bounded."""
    tracemalloc.start()
    try:
        with contextlib.suppress(UserError):
            _, tokenizer = open_model(path)
            tokenizer.encode("the cat")
            if tokenizer.chat_template:
                tokenizer.render([{"role": "user", "content": "x"}])
        assert tracemalloc.get_traced_memory()[1] < 64 << 20
    finally:
        tracemalloc.stop()


def damaged(data, content: bytes) -> bytes:
    """Some bytes changed, numbers replaced by giant ones, stretches copied over others, or the end lost; mostly in the head."""
    content, most = bytearray(content), len(content) if data.draw(st.booleans()) else min(len(content), 4000)
    places = st.integers(0, most - 1)
    for _ in range(data.draw(st.integers(1, 4))):
        place, how = data.draw(places), data.draw(st.sampled_from(["bit", "giant", "copy", "cut"]))
        if how == "bit":
            content[place % len(content)] ^= 1 << data.draw(st.integers(0, 7))
        elif how == "giant":
            content[place : place + 8] = struct.pack("<Q", data.draw(GIANT))
        elif how == "copy":
            other = data.draw(places)
            content[place : place + 16] = content[other : other + 16]
        else:
            del content[max(place, 1) :]
            break
    return bytes(content)


@pytest.mark.parametrize("name", ["deepseek-v3.gguf", "llama.gguf", "deepseek-v3/model.safetensors", "llama/model.safetensors"])
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_damaged_model_is_refused_or_opened(models, tmp_path, name, data):
    whole = (models / name).read_bytes()
    if name.endswith(".gguf"):
        path = tmp_path / "x.gguf"
        path.write_bytes(damaged(data, whole))
    else:
        path = tmp_path
        for file in JSON_FILES:
            if (models / name).with_name(file).is_file():
                (path / file).write_bytes((models / name).with_name(file).read_bytes())
        (path / "model.safetensors").write_bytes(damaged(data, whole))
    opened_or_refused(path)


def places(value):
    """Every (container, key) in a JSON value."""
    if isinstance(value, dict | list):
        for key in value if isinstance(value, dict) else range(len(value)):
            yield value, key
            yield from places(value[key])


@pytest.mark.parametrize("name", JSON_FILES)
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_model_with_nonsense_in_its_json_is_refused_or_opened(models, tmp_path, name, data):
    for file in (models / "deepseek-v3").iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    content = json.loads((tmp_path / name).read_bytes())
    for _ in range(data.draw(st.integers(1, 2))):
        known = list(places(content))[:2000]
        container, key = known[data.draw(st.integers(0, len(known) - 1))]
        container[key] = copy.deepcopy(data.draw(ODD))  # lists of one example are not to grow in the next one
    (tmp_path / name).write_text(json.dumps(content))
    opened_or_refused(tmp_path)


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("generation_config.json", {"eos_token_id": 0.5}),
        ("generation_config.json", {"eos_token_id": ["a"]}),
        ("generation_config.json", {"eos_token_id": [[1]]}),
        ("tokenizer_config.json", {"eos_token": 0.5}),
        ("tokenizer_config.json", {"bos_token": {"content": 1}}),
        ("tokenizer_config.json", {"pad_token": "\ud800"}),
        ("tokenizer_config.json", {"chat_template": 5}),
        ("tokenizer_config.json", {"chat_template": [{"name": "default", "template": {}}]}),
        ("tokenizer_config.json", "[" * 100_000),
        ("chat_template.jinja", b"\xff"),
    ],
)
def test_a_tokenizer_with_nonsense_in_its_fields_is_refused(tmp_path, file, content):
    train_bpe(["the cat"], vocab_size=300).save(tmp_path)
    if isinstance(content, bytes):
        (tmp_path / file).write_bytes(content)
    else:
        (tmp_path / file).write_text(content if isinstance(content, str) else json.dumps(content))
    with pytest.raises(UserError):
        Tokenizer.from_dir(tmp_path)


def test_templates_without_a_default_are_none(tmp_path):
    train_bpe(["the cat"], vocab_size=300).save(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"chat_template": ["x", {"template": "y"}, {"name": "tool_use"}]}))
    assert Tokenizer.from_dir(tmp_path).chat_template is None


@pytest.mark.parametrize(("family", "field"), [("llama", "head_dim"), ("deepseek-v3", "qk_rope_head_dim")])
def test_a_head_of_any_size_claims_no_memory(models, tmp_path, family, field):
    """Frequencies are computed before weights are compared: 4 GB of them, once, for a single number in a configuration."""
    for file in (models / family).iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    config = json.loads((tmp_path / "config.json").read_bytes())
    assert field in config
    (tmp_path / "config.json").write_text(json.dumps(config | {field: 10**9}))
    with pytest.raises(UserError, match="more than 65536"):
        open_model(tmp_path)
