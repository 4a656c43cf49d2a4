"""The fit finds the factors that stages were made of, and none that the work could not have."""

import importlib.util
from pathlib import Path

import pytest

from spoutnik.model.config import ModelConfig
from spoutnik.plan import laptop
from spoutnik.plan.probe import Probe
from spoutnik.plan.taken import Taken
from spoutnik.plan.uncertain import middle
from spoutnik.plan.work import Answers, Length, StageWork, Updates, Writing

spec = importlib.util.spec_from_file_location("laptop_benchmark", Path(__file__).parents[2] / "benchmarks" / "laptop.py")
benchmark = importlib.util.module_from_spec(spec)
spec.loader.exec_module(benchmark)

PROBE = Probe("here", "2026-01-01", 2e11, 1e12, 1e11, 1e10, 0.02, 1e9, 2e9)
TRUE = {"stage": 12.0, "update calls": 1.5, "update elements": 1.2, "update products float32": 1.4, "muon": 2.0, "decode calls": 3.0}
TRUE |= {"update weights": 1.0, "decode products float32": 4.0, "corpus": 2.0, "tokenizer": 0.5, "write": 3.0}


def stages():
    models = [ModelConfig("llama", 512, 32 * depth, 96 * depth, depth, depth, depth) for depth in (2, 4, 6, 8)]
    works = [
        StageWork("corpus", "corpus", (Writing(tokens, documents),))
        for tokens, documents in ((10**5, 2000), (10**6, 20_000), (10**7, 20_000))
    ]
    for config in models:
        for length in (64, 192):
            updates = Updates(config, 50, 4, Length(length), "float32", muon=length == 64, pretrains=True)
            works.append(StageWork("train", "pretrain", (updates,), made=config.hidden_size * 10**7))
        works.append(StageWork("ask", "sample", (Answers(config, 3, 128, 128, Length(30, 100), "float32"),)))
    for work in works:
        took = Taken(work.name, work.kind, 1.0, 0.0, 1.0, 0, answer=0.5)
        found = laptop.terms(work, PROBE, laptop.Shares(0.5, 1.0))
        took.seconds = sum(TRUE.get(name, 1.0) * middle(value) for name, value in found.items())
        yield benchmark.Stage(work, took)


def test_the_factors_that_stages_were_made_of_are_found_again():
    made = list(stages())
    found = benchmark.fit(made, PROBE)
    for stage in made:
        terms = laptop.terms(*stage.was(PROBE))
        assert sum(found[name] * middle(value) for name, value in terms.items()) == pytest.approx(stage.took.seconds, rel=0.05)
    for name in ("update elements", "corpus"):
        assert found[name] == pytest.approx(TRUE[name], rel=0.25)


def test_no_product_is_faster_than_the_probes():
    made = list(stages())
    for stage in made:
        stage.took.seconds /= 100
    found = benchmark.fit(made, PROBE)
    assert found["update products float32"] == 1.0
    assert min(found.values()) >= 0
