"""The corpus: a mixture that is a pure function of its seed and never holds a held-out problem."""

import json
import re
from collections import Counter
from itertools import islice

import pytest

from spoutnik.data.corpus import documents, held_out_documents, held_out_name, open_corpus, prompt_of, run_corpus
from spoutnik.data.tokens import TokenFile
from spoutnik.errors import UserError
from spoutnik.recipe.schema import CorpusStage, Source
from spoutnik.run import interrupt
from spoutnik.tasks import make
from spoutnik.tasks.base import split_of

PUZZLES = {"task": {"name": "countdown", "numbers": [2], "high": 5}}


def sources(*given):
    return [Source.model_validate(source) for source in given]


def stage(*given, tokens=3000, **settings):
    return CorpusStage.model_validate({"name": "corpus", "sources": list(given), "tokens": tokens, "vocab_size": 300, **settings})


def test_the_mixture_follows_the_weights_and_the_seed():
    mixture = sources({**PUZZLES, "weight": 3.0}, {"text": "builtin:english", "weight": 1.0})
    first = list(islice(documents(mixture, 7), 800))
    assert first == list(islice(documents(mixture, 7), 800))
    assert first[:5] != list(islice(documents(mixture, 8), 5))
    assert Counter(document.source for document in first)[0] == pytest.approx(600, abs=60)


def test_every_text_comes_once_before_any_comes_again(tmp_path):
    (tmp_path / "a.txt").write_text("\n\n".join(f"text {number}" for number in range(9)), encoding="utf-8")
    drawn = [document.text for document in islice(documents(sources({"text": str(tmp_path / "a.txt")}), 0), 27)]
    epochs = [drawn[start : start + 9] for start in (0, 9, 18)]
    assert all(len(set(epoch)) == 9 for epoch in epochs)
    assert epochs[0] != epochs[1]


def test_no_document_holds_a_held_out_problem_even_where_nearly_all_problems_occur():
    task, seen = make("countdown", numbers=[2], high=5), set()
    for document in islice(documents(sources(PUZZLES), 3), 1500):
        target, numbers = re.search(r"Make (\d+) from ([\d, ]+) using", document.text).groups()
        content = f"{' '.join(map(str, sorted(map(int, numbers.split(', ')))))} -> {target}"
        assert split_of("countdown", content) == "train"
        seen.add(content)
    held_out = {task.problem("held-out", 0, index).prompt for index in range(100)}
    assert len(seen) > 15
    assert held_out


def test_a_document_is_what_the_model_will_be_asked_and_shall_write(tokenizer):
    (document,) = islice(documents(sources(PUZZLES), 3), 1)
    problem = make("countdown", numbers=[2], high=5).problem("train", 3, 0)
    assert document.text.startswith(prompt_of(problem.prompt))
    asked = tokenizer.render([{"role": "user", "content": problem.prompt}])
    assert asked == tokenizer.special_tokens["bos_token"] + prompt_of(problem.prompt)
    assert "</think>\n<answer>" in document.text


def test_the_stage_writes_the_same_files_every_time(context, tmp_path):
    settings = stage({**PUZZLES, "weight": 1.0}, {**PUZZLES, "weight": 2.0})
    made = []
    for _ in range(2):
        run_corpus(settings, context)
        made.append({name: (context.directory / name).read_bytes() for name in ("tokens.bin", "tokenizer.json", "corpus.json")})
    assert made[0] == made[1]
    tokens, tokenizer = open_corpus(context.directory)
    summary = json.loads(made[0]["corpus.json"])
    assert len(tokens) == summary["tokens"] == sum(source["tokens"] for source in summary["sources"]) >= 3000
    assert len(summary["sources"]) == 2
    text = tokenizer.decode(tokens.batch(0, 1, 200)[0].tolist())
    first = next(documents(settings.sources, context.seed)).text
    assert text.startswith(first + tokenizer.special_tokens["eos_token"])


def test_what_is_set_aside_is_in_no_document_that_is_trained_on(tmp_path):
    (tmp_path / "a.txt").write_text("\n\n".join(f"text {number}" for number in range(90)), encoding="utf-8")
    puzzles, texts = sources(PUZZLES, {"text": str(tmp_path / "a.txt")})
    trained = {document.text for document in islice(documents([puzzles, texts], 3, set_aside=True), 2000)}
    aside = list(held_out_documents(texts, 3))
    assert 0 < len(aside) < 30
    assert not set(aside) & trained
    assert set(aside) | {text for text in trained if text.startswith("text")} == {f"text {number}" for number in range(90)}
    for document in islice(held_out_documents(puzzles, 3), 50):
        target, numbers = re.search(r"Make (\d+) from ([\d, ]+) using", document).groups()
        assert split_of("countdown", f"{' '.join(map(str, sorted(map(int, numbers.split(', ')))))} -> {target}") == "held-out"


def test_the_stage_writes_the_held_out_tokens_of_each_source_and_says_how_many(context):
    run_corpus(stage(PUZZLES, {"text": "builtin:english"}, held_out_tokens=2000), context)
    summary = json.loads((context.directory / "corpus.json").read_text())
    _, tokenizer = open_corpus(context.directory)
    for index, source in enumerate(summary["sources"]):
        tokens = TokenFile(context.directory / held_out_name(index), tokenizer.vocab_size)
        texts = tokenizer.decode(tokens.batch(0, 1, len(tokens))[0].tolist()).split(tokenizer.special_tokens["eos_token"])[:-1]
        assert source["held_out"] == {"tokens": len(tokens), "bytes": len("".join(texts).encode())}
        assert 2000 <= len(tokens) < 2400


def test_a_text_too_short_to_set_a_part_aside_is_refused_in_one_sentence(context, tmp_path):
    (tmp_path / "a.txt").write_text("text 1", encoding="utf-8")
    with pytest.raises(UserError, match="too short to set a part of it aside"):
        run_corpus(stage(PUZZLES, {"text": str(tmp_path / "a.txt")}, held_out_tokens=100), context)


def test_ctrl_c_is_heard_while_documents_are_written(context, monkeypatch):
    monkeypatch.setattr(interrupt, "asked", lambda: True)
    with pytest.raises(KeyboardInterrupt):
        run_corpus(stage(PUZZLES), context)
    assert not (context.directory / "tokens.bin").exists()
