# ruff: noqa: RUF001  (DeepSeek writes its tokens with the full-width bar)
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spoutnik.errors import UserError
from spoutnik.text.gguf_tokenizer import PRE_TOKENIZERS, from_gguf_fields
from spoutnik.text.tokenizer import Tokenizer, train_bpe

TEXT = "The capital of France is Paris, isn't it?\n\n  def f(x):\n\treturn x + x  # naïve 猫 😀 Ünïcode — “quoted”…  \n"


def fields_of(tokenizer: Tokenizer, pre: str, **changes: Any) -> dict[str, Any]:
    """What a converter would write into a GGUF file about a tokenizer."""
    content = json.loads(tokenizer.backend.to_str())
    kinds = {token["content"]: 3 if token["special"] else 4 for token in content["added_tokens"]}
    tokens = sorted(tokenizer.backend.get_vocab(), key=tokenizer.backend.get_vocab().__getitem__)
    fields = {
        "model": "gpt2",
        "pre": pre,
        "tokens": tokens,
        "token_type": [kinds.get(token, 1) for token in tokens],
        "merges": [" ".join(pair) for pair in content["model"]["merges"]],
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "padding_token_id": tokenizer.pad_token_id,
    }
    return {f"tokenizer.ggml.{key}": value for key, value in (fields | changes).items()} | {
        "tokenizer.chat_template": tokenizer.chat_template
    }


@pytest.fixture(scope="module")
def original() -> Tokenizer:
    return train_bpe([TEXT] * 20, vocab_size=420)


@pytest.fixture(scope="module")
def rebuilt(original: Tokenizer) -> Tokenizer:
    return from_gguf_fields(fields_of(original, "deepseek-v3"))


@settings(deadline=None)
@given(text=st.text())
def test_the_rebuilt_tokenizer_gives_the_ids_of_the_original(original: Tokenizer, rebuilt: Tokenizer, text: str) -> None:
    for piece in (text, f"{text}<think>{text}<｜User｜>"):
        assert rebuilt.encode(piece) == original.encode(piece)
        assert rebuilt.decode(rebuilt.encode(piece), skip_special_tokens=True) == original.decode(
            original.encode(piece), skip_special_tokens=True
        )


def test_ids_and_template_come_along(original: Tokenizer, rebuilt: Tokenizer) -> None:
    assert rebuilt.special_tokens == original.special_tokens
    assert rebuilt.vocab_size == original.vocab_size
    assert rebuilt.render([{"role": "user", "content": "hi"}]) == original.render([{"role": "user", "content": "hi"}])


def test_an_end_of_turn_token_ends_generation_too(original: Tokenizer) -> None:
    assert from_gguf_fields(fields_of(original, "gpt-2", eot_token_id=3)).eos_token_ids == {1, 3}


def test_a_begin_token_is_added_only_where_the_file_says_so(original: Tokenizer) -> None:
    for pre, flag, expected in (("gpt-2", {}, False), ("llama-bpe", {}, True), ("qwen2", {"add_bos_token": True}, True)):
        tokenizer = from_gguf_fields(fields_of(original, pre, **flag))
        assert (tokenizer.encode("a", add_special_tokens=True)[0] == 0) == expected


@pytest.mark.parametrize(
    ("pre", "pieces"),
    [
        ("gpt-2", ["Pay", "Ġ1234", "Ġnow", "!!"]),
        ("smollm", ["Pay", "Ġ", "1", "2", "3", "4", "Ġnow", "!!"]),
        ("llama-bpe", ["Pay", "Ġ", "123", "4", "Ġnow", "!!"]),
        ("qwen2", ["Pay", "Ġ", "1", "2", "3", "4", "Ġnow", "!!"]),
        ("deepseek-r1-qwen", ["Pay", "Ġ", "1", "2", "3", "4", "Ġnow", "!!"]),
        ("deepseek-v3", ["Pay", "Ġ", "123", "4", "Ġnow", "!!"]),
    ],
)
def test_each_pre_tokenizer_cuts_as_its_models_do(pre: str, pieces: list[str]) -> None:
    assert [piece for piece, _ in PRE_TOKENIZERS[pre]().pre_tokenize_str("Pay 1234 now!!")] == pieces


@pytest.mark.parametrize("pre", PRE_TOKENIZERS)
def test_every_pre_tokenizer_keeps_the_text(original: Tokenizer, pre: str) -> None:
    tokenizer = from_gguf_fields(fields_of(original, pre))
    assert tokenizer.decode(tokenizer.encode(TEXT)) == TEXT


def test_a_rebuilt_tokenizer_saves_as_files_that_give_the_same_ids(rebuilt: Tokenizer, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    rebuilt.save(tmp_path)
    assert Tokenizer.from_dir(tmp_path).fingerprint() == rebuilt.fingerprint()
    assert transformers.AutoTokenizer.from_pretrained(tmp_path).encode(TEXT) == rebuilt.encode(TEXT, add_special_tokens=True)


def test_smollm2_gives_the_ids_of_transformers() -> None:
    """transformers rebuilds this tokenizer from the same file, but without cutting digits apart; so the text for it holds none."""
    transformers = pytest.importorskip("transformers")
    pytest.importorskip("gguf")
    from spoutnik.checkpoint.find import find
    from spoutnik.checkpoint.gguf import GGUF

    path = find("smollm2")
    tokenizer = from_gguf_fields(GGUF(path).metadata)
    oracle = transformers.AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)
    messages = [{"role": "user", "content": TEXT.strip()}]
    assert tokenizer.encode(TEXT) == oracle.encode(TEXT, add_special_tokens=False)
    assert tokenizer.render(messages) == oracle.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    assert tokenizer.encode(tokenizer.render(messages)) == oracle.encode(tokenizer.render(messages), add_special_tokens=False)
    assert [tokenizer.decode([token]) for token in tokenizer.encode("x = 1957")] == ["x", " =", " ", "1", "9", "5", "7"]


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"model": "llama"}, "kind 'llama'"),
        ({"pre": "mystery"}, "'mystery'.*smollm"),
        ({"pre": None}, "None"),
        ({"tokens": None}, "tokens"),
        ({"tokens": ["a", "a"], "token_type": [1, 1]}, "twice"),
        ({"token_type": [1]}, "one entry per token"),
        ({"merges": ["ab"]}, "merges"),
        ({"merges": ["never seen"]}, "merges"),
        ({"merges": [1]}, "merges"),
        ({"eos_token_id": 10**6}, "eos_token_id"),
        ({"bos_token_id": -1}, "bos_token_id"),
        ({"bos_token_id": "x"}, "bos_token_id"),
    ],
)
def test_fields_that_contradict_each_other_are_refused(original: Tokenizer, change: dict[str, Any], complaint: str) -> None:
    with pytest.raises(UserError, match=complaint):
        from_gguf_fields(fields_of(original, change.pop("pre", "gpt-2"), **change))
