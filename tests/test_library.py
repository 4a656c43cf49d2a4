"""The names of the first example are a promise to users."""

import os
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from tiny_adapters import matrices, write_adapter
from tiny_models import randomise, tiny_model

import spoutnik
from spoutnik.checkpoint.hf import save_checkpoint
from spoutnik.engine.kernels.build import compiler
from spoutnik.errors import UserError
from spoutnik.text.reasoning import split, starts_thinking
from spoutnik.text.tokenizer import train_bpe


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    """A checkpoint of a random model whose chat template opens <think>, as DeepSeek-R1's does."""
    tokenizer = train_bpe(["the cat sat on the mat and thought about it. " * 20], vocab_size=320)
    model = tiny_model("deepseek-v3", vocab_size=tokenizer.vocab_size, max_position_embeddings=64)
    randomise(model, std=0.12)
    path = tmp_path_factory.mktemp("checkpoint") / "tiny"
    save_checkpoint(model, tokenizer, path)
    return path


@pytest.fixture(scope="module")
def loaded(directory):
    return spoutnik.load(directory)


def test_importing_spoutnik_imports_no_torch():
    code = "import sys, spoutnik; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_logits_are_those_of_the_module(loaded):
    ids = [[5, 6, 7], [8, 9, 10]]
    logits = loaded.logits(ids)
    assert logits.shape == (2, 3, loaded.config.vocab_size)
    assert logits.dtype == torch.float32
    with torch.no_grad():
        assert torch.equal(logits, loaded.model(torch.tensor(ids)))


def test_generation_is_repeatable_and_equal_prompts_get_different_answers(loaded):
    prompts = ["the cat", "the cat", "a mat"]
    first = loaded.generate(prompts, max_new_tokens=8, temperature=1.0, seed=1)
    assert first == loaded.generate(prompts, max_new_tokens=8, temperature=1.0, seed=1)
    assert first[0].token_ids != first[1].token_ids
    assert first[0].token_ids != loaded.generate(prompts, max_new_tokens=8, temperature=1.0, seed=2)[0].token_ids
    assert {completion.finish_reason for completion in first} <= {"stop", "length"}
    assert all(len(completion.logprobs) == len(completion.token_ids) <= 8 for completion in first)


def test_chat_sets_the_thinking_apart_from_the_state_that_the_prompt_left(loaded):
    messages = [{"role": "user", "content": "the cat"}]
    completion = loaded.chat(messages, max_new_tokens=20, seed=4)
    prompt = loaded.tokenizer.render(messages)
    assert starts_thinking(prompt)
    assert completion.prompt_tokens == len(loaded.tokenizer.encode(prompt))
    whole = loaded.tokenizer.decode([token for token in completion.token_ids if token not in loaded.tokenizer.eos_token_ids])
    assert (completion.reasoning, completion.text) == split(whole, thinking=True)
    assert completion.reasoning


def test_a_streamed_answer_is_that_of_chat_and_a_streamed_text_that_of_generate(loaded):
    messages = [{"role": "user", "content": "the cat"}]
    pieces = list(loaded.stream(messages, max_new_tokens=20, seed=4))
    answer = loaded.chat(messages, max_new_tokens=20, seed=4)
    assert pieces[-1].completion == replace(answer, cached_tokens=pieces[-1].completion.cached_tokens)
    assert "".join(piece.reasoning for piece in pieces) == answer.reasoning
    *_, last = loaded.stream("the cat", max_new_tokens=8, temperature=1.0, top_p=1.0, seed=1)
    assert last.completion == loaded.generate(["the cat"], max_new_tokens=8, seed=1)[0]


def test_an_adapter_answers_where_it_is_named_and_the_base_elsewhere(directory, tmp_path):
    def tensors(seed):
        return matrices(spoutnik.load(directory).model, lambda name: name.endswith("o_proj"), seed=seed, std=0.5)

    folders = {name: write_adapter(tmp_path / name, tensors(seed)) for seed, name in enumerate(["red", "blue"])}
    model = spoutnik.load(directory, adapters={"red": folders["red"]})
    messages = [{"role": "user", "content": "the cat"}]
    base, red = (model.chat(messages, max_new_tokens=8, adapter=name).token_ids for name in ("", "red"))
    assert base == spoutnik.load(directory).chat(messages, max_new_tokens=8).token_ids != red
    *_, last = model.stream(messages, max_new_tokens=8, adapter="red")
    assert last.completion.token_ids == red
    model.add_adapter("blue", str(folders["blue"]))
    assert len({tuple(model.generate(["the cat"], 8, adapter=name)[0].logprobs) for name in ("", "red", "blue")}) == 3
    model.remove_adapter("red")
    with pytest.raises(UserError, match=r"no adapter 'red' \(loaded: blue\)"):
        model.chat(messages, adapter="red")
    with pytest.raises(UserError, match="adapter_config"):
        spoutnik.load(directory, adapters={"red": directory})


def test_what_is_saved_loads_with_the_same_logits(loaded, tmp_path):
    loaded.save(tmp_path / "copy")
    ids = [[5, 6, 7]]
    assert torch.equal(spoutnik.load(tmp_path / "copy").logits(ids), loaded.logits(ids))


def test_bfloat16_runs(directory):
    half = spoutnik.load(directory, dtype="bfloat16")
    assert half.model.lm_head.weight.dtype == torch.bfloat16
    assert len(half.generate(["the cat"], max_new_tokens=4)[0].token_ids) <= 4


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda model: model.generate(["the cat " * 100]), r"The prompt has \d+ tokens, but the context holds 64"),
        (lambda model: model.chat([{"role": "user", "content": "cat " * 100}]), r"The prompt has \d+ tokens, but the context holds 64"),
        (lambda model: next(model.stream("cat " * 100)), r"The prompt has \d+ tokens, but the context holds 64"),
        (lambda model: model.stream([], temperature=-1.0), "temperature is -1.0"),
        (lambda model: model.generate("the cat"), r"write \[prompt\]"),
        (lambda model: model.generate(["the cat"], top_p=0), "top_p is 0"),
        (lambda model: model.logits([[1] * 65]), "65 tokens, but the context holds 64"),
        (lambda model: model.logits([[1, 5000]]), "holds 1 to 5000"),
        (lambda model: model.logits([1, 2]), r"\[B, T\]"),
        (lambda model: model.logits([[1, 2], [3]]), r"\[B, T\]"),
        (lambda model: model.logits([[]]), "not empty"),
    ],
    ids=[
        "long prompt",
        "long conversation",
        "long streamed text",
        "temperature",
        "one string",
        "top_p",
        "long rows",
        "unknown token",
        "one row",
        "ragged rows",
        "nothing",
    ],
)
def test_a_fault_of_input_is_one_clear_sentence(loaded, call, message):
    with pytest.raises(UserError, match=message):
        call(loaded)


def test_an_unknown_dtype_or_name_is_refused():
    with pytest.raises(UserError, match=r"dtype is 'int3'.*float32, bfloat16"):
        spoutnik.load("anything", dtype="int3")
    with pytest.raises(UserError):
        spoutnik.load("no-such-model-anywhere")
    with pytest.raises(AttributeError, match="nonsense"):
        _ = spoutnik.nonsense


@pytest.mark.skipif(compiler() is None, reason="no C++ compiler here")
def test_a_later_process_reads_a_prompt_from_the_cache_folder(directory, tmp_path):
    code = """if True:
        import sys, spoutnik
        model = spoutnik.load(sys.argv[1], cache_dir=sys.argv[2])
        (one,) = model.generate(["the cat sat on the mat " * 8], max_new_tokens=4)
        print(one.cached_tokens, one.token_ids, one.logprobs)"""
    command = [sys.executable, "-c", code, str(directory), str(tmp_path)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    first, second = (subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout for _ in range(2))
    assert first.startswith("0 [")
    assert second == "32 " + first.removeprefix("0 ")


def test_where_the_kernels_cannot_run_nothing_is_cached_and_that_is_said(directory, tmp_path, caplog):
    model = spoutnik.load(directory, dtype="float16", cache_dir=tmp_path)
    model.generate(["the cat"], max_new_tokens=2)
    assert "Nothing is cached" in caplog.text


def test_a_cache_folder_that_cannot_be_is_refused(directory, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="give a folder that you may write to"):
        spoutnik.load(directory, cache_dir=tmp_path / "file")
