# ruff: noqa: RUF001  (DeepSeek writes its tokens with the full-width bar)
import json
from pathlib import Path

import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st

from spoutnik.errors import UserError
from spoutnik.text.r1_template import BOS, EOS, PLAIN_TOKENS, SPECIAL_TOKENS
from spoutnik.text.tokenizer import Tokenizer, train_bpe

CORPUS = [
    "Let me try 30 + 45 = 75, then 75 - 12 = 63.",
    "The quick brown fox jumps over the lazy dog.",
    "猫が好きです。",
    "a\tb\n\n  c",
] * 20
CHAT = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "2+2?"}]
ANSWERED = [*CHAT, {"role": "assistant", "content": "sum it\n</think>\n\n4"}, {"role": "user", "content": "sure?"}]


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train_bpe(CORPUS, vocab_size=300, digits=1)


@settings(deadline=None)
@given(text=st.text())
def test_every_text_survives_encoding(tokenizer: Tokenizer, text: str) -> None:
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_training_twice_gives_the_same_tokenizer(tokenizer: Tokenizer) -> None:
    assert train_bpe(CORPUS, vocab_size=300, digits=1).fingerprint() == tokenizer.fingerprint()
    assert train_bpe(CORPUS, vocab_size=300, digits=3).fingerprint() != tokenizer.fingerprint()


def test_numbers_are_split_into_groups_of_the_digits_asked_for(tokenizer: Tokenizer) -> None:
    one, three = (train_bpe(["12345 123 45 678"] * 50, vocab_size=300, digits=digits) for digits in (1, 3))
    assert [one.decode([i]) for i in one.encode("12345")] == list("12345")
    assert [three.decode([i]) for i in three.encode("12345")] == ["123", "45"]


def test_the_vocabulary_is_exactly_as_large_as_asked(tokenizer: Tokenizer) -> None:
    assert tokenizer.vocab_size == 300 == tokenizer.backend.get_vocab_size()


def test_special_tokens_come_first_and_tags_survive_decoding(tokenizer: Tokenizer) -> None:
    assert tokenizer.encode("".join(SPECIAL_TOKENS)) == [0, 1, 2, 3, 4]
    assert (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id) == (0, 1, 2)
    assert all(len(tokenizer.encode(tag)) == 1 for tag in PLAIN_TOKENS)
    ids = tokenizer.encode(f"{BOS}<think>x</think><answer>4</answer>{EOS}")
    assert tokenizer.decode(ids, skip_special_tokens=True) == "<think>x</think><answer>4</answer>"


def test_nothing_is_added_unless_asked(tokenizer: Tokenizer) -> None:
    assert tokenizer.encode("fox", add_special_tokens=True) == [0, *tokenizer.encode("fox")]


def test_the_template_opens_the_thinking_and_forgets_earlier_thinking(tokenizer: Tokenizer) -> None:
    assert tokenizer.render(CHAT) == f"{BOS}Be brief.<｜User｜>2+2?<｜Assistant｜><think>\n"
    assert tokenizer.render(ANSWERED) == f"{BOS}Be brief.<｜User｜>2+2?<｜Assistant｜>\n\n4{EOS}<｜User｜>sure?<｜Assistant｜><think>\n"


def test_a_training_example_is_the_prompt_followed_by_the_completion(tokenizer: Tokenizer) -> None:
    completion = ANSWERED[2]["content"]
    trained_on = tokenizer.render(ANSWERED[:3], add_generation_prompt=False, keep_reasoning=True)
    assert trained_on == tokenizer.render(CHAT) + completion + EOS


def test_an_unknown_role_is_refused(tokenizer: Tokenizer) -> None:
    with pytest.raises(UserError, match="tool"):
        tokenizer.render([{"role": "tool", "content": "x"}])


def test_saving_and_loading_changes_nothing(tokenizer: Tokenizer, tmp_path: Path) -> None:
    tokenizer.save(tmp_path)
    again = Tokenizer.from_dir(tmp_path)
    again.save(tmp_path / "again")
    assert again.fingerprint() == tokenizer.fingerprint()
    assert again.render(ANSWERED) == tokenizer.render(ANSWERED)
    assert (again.eos_token_ids, again.special_tokens) == (tokenizer.eos_token_ids, tokenizer.special_tokens)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        assert (tmp_path / name).read_bytes() == (tmp_path / "again" / name).read_bytes()


@pytest.mark.parametrize("model_type", [None, "deepseek_v3", "deepseek_v2", "llama", "mistral", "qwen2"])
def test_transformers_gives_the_same_ids_and_the_same_chat(tokenizer: Tokenizer, tmp_path: Path, model_type: str | None) -> None:
    transformers = pytest.importorskip("transformers")
    tokenizer.save(tmp_path)
    if model_type:
        (tmp_path / "config.json").write_text(json.dumps({"model_type": model_type}))
    oracle = transformers.AutoTokenizer.from_pretrained(tmp_path)
    text = "Try 30+45 = 75,  then\n\n<think>猫 75 - 12</think><answer>"
    assert oracle.encode(text, add_special_tokens=False) == tokenizer.encode(text)
    assert oracle.encode(text) == tokenizer.encode(text, add_special_tokens=True)
    assert oracle.decode(oracle.encode(text), skip_special_tokens=True) == tokenizer.decode(tokenizer.encode(text))
    for variables in ({}, {"keep_reasoning": True}):
        ours = tokenizer.render(ANSWERED, **variables)
        assert oracle.apply_chat_template(ANSWERED, tokenize=False, add_generation_prompt=True, **variables) == ours
    assert (oracle.bos_token_id, oracle.eos_token_id, oracle.pad_token_id) == (0, 1, 2)


def test_the_ends_of_turn_include_what_generation_config_names(tokenizer: Tokenizer, tmp_path: Path) -> None:
    tokenizer.save(tmp_path)
    (tmp_path / "generation_config.json").write_text(json.dumps({"eos_token_id": [1, 7]}))
    assert Tokenizer.from_dir(tmp_path).eos_token_ids == {1, 7}


def test_a_template_in_its_own_file_wins(tokenizer: Tokenizer, tmp_path: Path) -> None:
    tokenizer.save(tmp_path)
    (tmp_path / "chat_template.jinja").write_text("from the file")
    assert Tokenizer.from_dir(tmp_path).chat_template == "from the file"


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("tokenizer.json", "{"),
        ("tokenizer.json", "{}"),
        ("tokenizer_config.json", "{"),
        ("tokenizer_config.json", "[]"),
        ("tokenizer_config.json", '{"eos_token": "<never seen>"}'),
    ],
)
def test_broken_files_are_refused(tokenizer: Tokenizer, tmp_path: Path, name: str, content: str) -> None:
    tokenizer.save(tmp_path)
    (tmp_path / name).write_text(content)
    with pytest.raises(UserError):
        Tokenizer.from_dir(tmp_path)


def test_a_directory_without_tokenizer_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"tokenizer\.json"):
        Tokenizer.from_dir(tmp_path)


def test_a_tokenizer_without_template_cannot_chat() -> None:
    with pytest.raises(UserError, match="chat template"):
        Tokenizer(tokenizers.Tokenizer(tokenizers.models.BPE())).render(CHAT)


@pytest.mark.parametrize(
    "options", [{"vocab_size": 100}, {"vocab_size": 400, "digits": 4}, {"vocab_size": 400, "special_tokens": ("<a>", "<b>", "<c>")}]
)
def test_impossible_training_is_refused(options: dict) -> None:
    with pytest.raises(UserError):
        train_bpe(CORPUS, **options)


@pytest.mark.parametrize("corpus", [[], [""], ["", ""]])
def test_an_empty_corpus_is_refused(corpus: list[str]) -> None:
    with pytest.raises(UserError, match="no text"):
        train_bpe(corpus, vocab_size=400)
