"""llama.cpp runs what we write as we do: same tokens of a text, same prompt from the template, same greedy continuation.

Runs where the environment variable SPOUTNIK_LLAMA_CPP names the folder of llama.cpp's binaries, with `llama-server` among them.
"""

import json
import os
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_models import RAW, tiny_config, tiny_model

from spoutnik.checkpoint.gguf_export import save_gguf
from spoutnik.checkpoint.load import open_model
from spoutnik.model.depth import depth_config
from spoutnik.model.init import initialise
from spoutnik.model.transformer import CausalLM
from spoutnik.text.tokenizer import Tokenizer, train_bpe

FOLDER = os.environ.get("SPOUTNIK_LLAMA_CPP")
pytestmark = pytest.mark.skipif(not FOLDER, reason="SPOUTNIK_LLAMA_CPP does not name the folder of llama.cpp's binaries")

Call = Callable[[str, dict[str, Any]], dict[str, Any]]
LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}
CHANGES: dict[str, dict[str, Any]] = {
    "llama-3": {"rope_scaling": LLAMA3},
    "mistral": {"sliding_window": None},  # llama.cpp knows no window here, nor V2's scoring of groups; see gguf_export.differences
    "deepseek-v2": {"topk_group": 4},
}
FAMILIES = [name for name in RAW if name != "qwen2-window"]
IN_FLOAT32 = ("-ctk", "f32", "-ctv", "f32", "-fa", "off")
"""Keys and values that are not rounded. With weights in f32 nothing is; f16 weights make llama.cpp round activations, too."""
NEW = 48
TEXTS = (
    "The 1st of May, 2024: isn't x_1 = -12345.678 (99%)?\n\n  def f(a):\n\treturn a+1  # naïve 猫の手 “quoted”…  \r\nHELLO World's end!!\n",
    "1234567890 12 3 45678 9,876,543.21 0x1F", "don't DON'T we'll I'M he'd 'tis l'été", "\n\n\n   \n\t\t x \r\n\r\n y  ", " lead", "trail ",
    "a b\u3000d 😀👍🏽 ½ ²³ ١٢٣٤٥ Ⅷ e\u0301 ﬁ ǅ ʰ", "<think>\nx</think><answer>5</answer>", '{"a": [1, {"b": null}]} // $%&/()=?`^°',
    "日本語テキスト漢字カタカナひらがな한국어 русский العربية עברית ไทย",
)  # fmt: skip
TALK = [
    {"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"},
    {"role": "assistant", "content": "<think>\nhm</think>Yes."}, {"role": "user", "content": "2+2?"},
]  # fmt: skip


@contextmanager
def serving(path: Path, *options: str) -> Iterator[Call]:
    """llama-server on a port of its own, until the block ends."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    where = ("--host", "127.0.0.1", "--port", str(port))
    command = [f"{FOLDER}/llama-server", "-m", str(path), *where, "-c", "512", "-np", "1", "-t", "1", "--jinja", *options]
    log = path.with_suffix(".log")
    with log.open("w") as stream:
        process = subprocess.Popen(command, stdout=stream, stderr=subprocess.STDOUT)

    def call(route: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        data = None if body is None else json.dumps(body).encode()
        with urllib.request.urlopen(urllib.request.Request(f"http://127.0.0.1:{port}/{route}", data), timeout=120) as answer:
            return json.load(answer)

    try:
        while True:
            assert process.poll() is None, log.read_text()[-3000:]
            try:
                call("health")
                break
            except urllib.error.URLError:
                time.sleep(0.05)
        yield call
    finally:
        process.terminate()
        process.wait()


def continue_greedily(call: Call, model: CausalLM, prompt: list[int]) -> tuple[list[bool], list[float], float]:
    """For each token of llama.cpp's continuation: whether it is our likeliest one there, and how far our two likeliest lie apart.

    The third is the largest difference of log-probabilities, over the likeliest tokens at some places of the continuation. We compute in
    float64, so that no two experts, nor groups of them, seem equally good to us.
    """
    settings = {"temperature": 0, "top_k": 1, "samplers": ["top_k"], "cache_prompt": False}
    tokens = call("completion", {"prompt": prompt, "n_predict": NEW, "return_tokens": True, **settings})["tokens"]
    assert tokens
    with torch.no_grad():
        logprobs_TV = model.double()(torch.tensor([prompt + tokens]))[0, len(prompt) - 1 : -1].log_softmax(-1)
    best_T2 = logprobs_TV.topk(2).values
    furthest, seen = 0.0, 0
    for place in range(0, len(tokens), 8):
        answer = call("completion", {"prompt": prompt + tokens[:place], "n_predict": 1, "n_probs": 20, **settings})
        for entry in answer.get("completion_probabilities", []):  # none for a token that ends within a character
            found = [abs(likely["logprob"] - float(logprobs_TV[place, likely["id"]])) for likely in entry["top_logprobs"]]
            furthest, seen = max(furthest, *found), seen + 1
    assert seen
    return (logprobs_TV.argmax(-1) == torch.tensor(tokens)).tolist(), (best_T2[:, 0] - best_T2[:, 1]).tolist(), furthest


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train_bpe([*TEXTS, "some words to learn from, again and again"] * 9, vocab_size=400)


@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_continues_alike_in_float32_and_in_f16(name: str, tokenizer: Tokenizer, tmp_path: Path) -> None:
    model = tiny_model(name, vocab_size=410, **CHANGES.get(name, {}))
    prompt = [0, *(place * 37 % 390 + 5 for place in range(20))]
    for file_type, options, tie, tolerance in (("f32", IN_FLOAT32, 1e-4, 1e-3), ("f16", (), 0.05, 0.05)):
        save_gguf(model, tokenizer, tmp_path / "x.gguf", file_type)
        read = open_model(tmp_path / "x.gguf")[0]
        with serving(tmp_path / "x.gguf", *options) as call:
            same, gaps, furthest = continue_greedily(call, read, prompt)
        assert all(alike or gap < tie for alike, gap in zip(same, gaps, strict=True)), file_type
        assert furthest < tolerance, file_type


def test_a_deepseek_v3_of_millions_of_parameters_continues_alike(tokenizer: Tokenizer, tmp_path: Path) -> None:
    """Exactly in float32. In f16 rounded activations now and then send a token to another expert, and random experts differ wildly."""
    yarn = {"rope_type": "yarn", "factor": 40.0, "mscale": 1.0, "mscale_all_dim": 1.0, "original_max_position_embeddings": 128}
    config = depth_config("deepseek_v3", 8, 4096).with_(n_routed_experts=16, n_group=4, routed_scaling_factor=2.5, rope_scaling=yarn)
    model = CausalLM(config)
    initialise(model, 0)
    parameters = sum(tensor.numel() for tensor in model.parameters())
    assert 10e6 < parameters < 30e6
    prompts = [torch.randint(5, 390, (40,), generator=torch.Generator().manual_seed(seed)).tolist() for seed in range(3)]
    for file_type, options, tie, share in (("f32", IN_FLOAT32, 1e-4, 1.0), ("f16", (), 0.0, 0.8)):
        save_gguf(model, tokenizer, tmp_path / "x.gguf", file_type)
        read = open_model(tmp_path / "x.gguf")[0]
        with serving(tmp_path / "x.gguf", *options) as call:
            found = [continue_greedily(call, read, prompt) for prompt in prompts]
        alike = [right or gap < tie for same, gaps, _ in found for right, gap in zip(same, gaps, strict=True)]
        assert sum(alike) >= share * len(alike), (file_type, sum(alike), len(alike))
        if file_type == "f32":
            assert max(furthest for _, _, furthest in found) < 1e-3


def test_smollm2_continues_alike_and_answers(tmp_path: Path) -> None:
    model, tokenizer = open_model("smollm2")
    save_gguf(model, tokenizer, tmp_path / "x.gguf")
    read = open_model(tmp_path / "x.gguf")[0]
    with serving(tmp_path / "x.gguf") as call:
        for question in ("What is the capital of France?", "Write a short story about a lighthouse keeper."):
            prompt = tokenizer.render([{"role": "user", "content": question}])
            assert call("apply-template", {"messages": [{"role": "user", "content": question}]})["prompt"] == prompt
            same, _, furthest = continue_greedily(call, read, tokenizer.encode(prompt))
            assert all(same)
            assert furthest < 0.03
    (tmp_path / "x.gguf").unlink()


@pytest.mark.parametrize("which", ["groups of 3 digits", "single digits", "smollm2"])
def test_texts_get_our_tokens_and_conversations_our_prompt(which: str, tmp_path: Path) -> None:
    """The tokens of a prompt count: llama.cpp may leave its first one to the tokenizer."""
    if which == "smollm2":
        tokenizer = open_model("smollm2")[1]
    else:
        learnt = ["some words, 1984 and 2024 of them,  don't you? x_1 = -12345.678\n\n  again and again"]
        tokenizer = train_bpe(learnt * 9, vocab_size=400, digits=3 if which == "groups of 3 digits" else 1)
    model = tiny_model("llama", vocab_size=tokenizer.vocab_size + 7)
    save_gguf(model, tokenizer, tmp_path / "x.gguf")
    with serving(tmp_path / "x.gguf") as call:
        for text in TEXTS:
            body = {"content": text, "add_special": False, "parse_special": True}
            assert call("tokenize", body)["tokens"] == tokenizer.encode(text), text
        prompt = call("apply-template", {"messages": TALK})["prompt"]
        found = call("tokenize", {"content": prompt, "add_special": True, "parse_special": True})["tokens"]
    assert found == tokenizer.encode(tokenizer.render(TALK))


def test_what_is_said_to_differ_does(tokenizer: Tokenizer, tmp_path: Path) -> None:
    """A warning that warns of nothing would be noise."""
    for name in ("mistral", "deepseek-v2"):
        save_gguf(tiny_model(name, vocab_size=410), tokenizer, tmp_path / "x.gguf", "f32")
        with serving(tmp_path / "x.gguf", *IN_FLOAT32) as call:
            _, _, furthest = continue_greedily(call, open_model(tmp_path / "x.gguf")[0], [0, *range(5, 25)])
        assert furthest > 0.01, name
        assert tiny_config(name).model_type == name.replace("-", "_")
