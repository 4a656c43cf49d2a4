"""The kernel runner computes what is new, shares what is known, follows the weights, and never runs out of pages."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_models import randomise, tiny_model

from spoutnik.engine.generator import Engine
from spoutnik.engine.kernels.build import PAGE
from spoutnik.engine.kernels.native import NativeEngine
from spoutnik.engine.kernels.runner import STEP_ROWS, KernelRunner
from spoutnik.engine.request import Request
from spoutnik.engine.scoring import Given
from spoutnik.engine.store import Store
from spoutnik.errors import UserError
from spoutnik.text.tokenizer import train_bpe

TOKENIZER = train_bpe(["the cat sat on the mat and the dog ran, 1 2 3 four five. " * 20], vocab_size=320)
PROMPT = (TOKENIZER.encode("the cat sat on the mat and the dog ran, ") * 9)[:75]
LONG = (np.random.default_rng(0).integers(5, TOKENIZER.vocab_size, 2 * STEP_ROWS + 100)).tolist()


def engine(precision="float32", max_batch=4, pages=None, family="llama-3", std=0.12, length=128, store=None, seed=0):
    model = tiny_model(family, vocab_size=TOKENIZER.vocab_size, max_position_embeddings=length)
    randomise(model, seed, std=std)
    runner = KernelRunner(model, precision, max_batch, length, store=store, speculate=False)  # the tests count rows
    if pages is not None:
        runner = KernelRunner(model, precision, max_batch, length, pages * len(runner._engine.page(0)), store, speculate=False)
    return Engine(model, TOKENIZER, max_batch, length, runner)


def drawn(completions):
    """What does not depend on the cache."""
    return [replace(completion, cached_tokens=0) for completion in completions]


def run(running):
    """Steps until nothing is left; the completions by request."""
    events = []
    while running.busy:
        events += running.step()
    return {event.request_id: event.completion for event in events if event.completion}


@pytest.fixture
def fed(monkeypatch):
    """The rows that each call of the kernels computes."""
    seen = []
    original = NativeEngine.run

    def run(self, tokens, *rest, **options):
        seen.append(len(tokens))
        return original(self, tokens, *rest, **options)

    monkeypatch.setattr(NativeEngine, "run", run)
    return seen


@pytest.mark.parametrize("family", ["llama-3", "deepseek-v3"])
@pytest.mark.parametrize("precision", ["float32", "bfloat16", "int8", "int4"])
def test_a_prompt_found_in_the_cache_gives_the_same_bits_as_one_computed(family, precision, fed):
    running = engine(precision, family=family)
    (first,) = running.generate([Request(PROMPT, 12, seed=3)])
    (again,) = running.generate([Request(PROMPT, 12, seed=3)])
    assert fed == [75, *[1] * 11, 75 - 2 * PAGE, *[1] * 11]
    assert again == replace(first, cached_tokens=2 * PAGE)
    longer = Request([*PROMPT, *first.token_ids, 5, 6], 6, seed=4)
    (cached,) = running.generate([longer])
    assert cached.cached_tokens == 2 * PAGE, "86 tokens were cached, of which 64 are whole pages"
    assert drawn([cached]) == engine(precision, family=family).generate([longer])


def test_what_was_generated_is_found_too():
    running = engine()
    (first,) = running.generate([Request(PROMPT, 22)])
    (second,) = running.generate([Request([*PROMPT, *first.token_ids, 5], 2)])
    assert second.cached_tokens == 3 * PAGE


def test_samples_of_one_prompt_compute_it_once(fed):
    requests = [Request(PROMPT, 8, seed=seed) for seed in range(4)]
    together = engine().generate(requests)
    assert fed == [75, *[4] * 7]
    assert [completion.cached_tokens for completion in together] == [0, 75, 75, 75]
    assert drawn(together) == [engine().generate([request])[0] for request in requests]


@pytest.mark.parametrize("family", ["llama-3", "deepseek-v3", "mistral"])
@pytest.mark.parametrize("precision", ["float32", "bfloat16", "int8"])
def test_samples_that_read_the_pages_of_one_prompt_together_are_those_of_each_alone(family, precision):
    other = [*PROMPT[:40], *reversed(PROMPT[:40])]  # shares its first page with the rest, and has two
    requests = [Request(PROMPT, 3 + 4 * (seed % 8), seed=seed) for seed in range(15)]
    requests += [Request(other, 20, seed=seed) for seed in range(5)] + [Request([*PROMPT, 7], 20), Request(PROMPT[:9], 20)]
    requests = [requests[place] for place in np.random.default_rng(0).permutation(len(requests))]
    together = engine(precision, family=family, max_batch=16).generate(requests)
    alone = engine(precision, family=family)
    assert drawn(together) == drawn([alone.generate([request])[0] for request in requests])


def test_an_owner_neither_uses_nor_notices_what_another_cached(fed):
    running = engine()
    mine, theirs = Request(PROMPT, 2, owner="mine"), Request(PROMPT, 2, owner="theirs")
    together = running.generate([mine, theirs])
    assert fed == [150, 2]
    assert [completion.cached_tokens for completion in together] == [0, 0]
    assert running.generate([theirs, Request(PROMPT, 2)])[0].cached_tokens == 2 * PAGE
    assert fed[2:] == [75 - 2 * PAGE + 75, 2]


@pytest.mark.parametrize("family", ["llama-3", "deepseek-v3", "mistral"])
@pytest.mark.parametrize("precision", ["float32", "bfloat16", "int8"])
def test_a_long_prompt_does_not_stop_who_runs_and_changes_no_bit(family, precision, fed):
    requests = [Request(PROMPT, 9, seed=1, stream=True), Request(LONG, 3, seed=2), Request(LONG[:700], 3, seed=3), Request(PROMPT[::-1], 3)]
    alone = [engine(precision, family=family, length=2048).generate([request])[0] for request in requests]
    fed.clear()
    running = engine(precision, family=family, length=2048)
    first = running.add(requests[0])
    running.step()
    ids = [first, *(running.add(request) for request in requests[1:])]
    events = [running.step() for _ in range(3)]
    assert all(event.request_id == first for step in events for event in step)
    assert [len(step) for step in events] == [1, 1, 1], "a token in each step"
    completions = run(running)
    assert fed[:4] == [75, STEP_ROWS, STEP_ROWS, 1 + 102 + 700 - 672 + 75]
    assert drawn(completions[request_id] for request_id in ids) == alone
    assert completions[ids[2]].cached_tokens == 672, "pages that the prompt before it had filled"


def test_a_prompt_goes_on_where_a_cancelled_one_left_its_pages(fed):
    request = Request(LONG, 3, seed=2)
    (alone,) = engine(length=2048).generate([request])
    fed.clear()
    running = engine(length=2048)
    first, second = running.add(request), running.add(request)
    running.step()
    running.cancel(first)
    completions = run(running)
    assert completions[first].finish_reason == "cancelled"
    assert completions[second] == replace(alone, cached_tokens=STEP_ROWS)
    assert fed == [STEP_ROWS, STEP_ROWS, 100, 1, 1]


def test_after_the_weights_changed_nothing_old_is_used(tmp_path):
    def changed(running):
        with torch.no_grad():
            for parameter in running.model.parameters():
                parameter.mul_(1.1)
        return running

    running = engine(store=Store(tmp_path))
    running.generate([Request(PROMPT, 4)])
    assert changed(running).generate([Request(PROMPT, 4)]) == changed(engine()).generate([Request(PROMPT, 4)])


def test_a_fused_optimiser_does_not_go_unnoticed():
    running = engine()
    before = running.generate([Request(PROMPT, 4, temperature=0)])
    parameters = list(running.model.parameters())
    for parameter in parameters:
        parameter.grad = torch.ones_like(parameter)
    torch.optim.AdamW(parameters, lr=1e-2, fused=True).step()
    after = running.generate([Request(PROMPT, 4, temperature=0)])
    assert after[0].logprobs != before[0].logprobs
    assert after == Engine(running.model, TOKENIZER, 4).generate([Request(PROMPT, 4, temperature=0)])


def test_a_refresh_sees_every_value_also_where_torch_counts_no_change():
    running, request = engine(), Request(PROMPT, 4, temperature=0)
    (before,) = running.generate([request])
    running.model.lm_head.weight.data.view(-1)[1] += 3.0
    (unseen,) = running.generate([request])
    assert unseen.logprobs == before.logprobs, "a single value that is not among those looked at: the reason for refresh()"
    running.refresh()
    (after,) = running.generate([request])
    assert after.logprobs != before.logprobs
    assert [after] == Engine(running.model, TOKENIZER, 4).generate([request])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_weights_put_in_by_assignment_are_followed_and_those_taken_out_left_alone(dtype):
    model = tiny_model("llama-3", vocab_size=TOKENIZER.vocab_size).to(dtype)
    other = tiny_model("llama-3", seed=1, vocab_size=TOKENIZER.vocab_size).to(dtype)
    request, running, ours = Request(PROMPT, 4, temperature=0), Engine(model, TOKENIZER, 4), list(model.parameters())
    before = running.generate([request])
    taken_out = [parameter.data for parameter in ours]
    copies = [tensor.clone() for tensor in taken_out]
    for parameter, new in zip(ours, other.parameters(), strict=True):
        parameter.data = new.data
    assert drawn(running.generate([request])) == Engine(other, TOKENIZER, 4).generate([request])
    assert all(torch.equal(tensor, copy) for tensor, copy in zip(taken_out, copies, strict=True))
    for parameter, old in zip(ours, taken_out, strict=True):
        parameter.data = old
    assert drawn(running.generate([request])) == before


def test_weights_are_not_refreshed_under_requests_that_run():
    running = engine()
    running.add(Request(PROMPT, 4))
    with pytest.raises(RuntimeError, match="idle engine"):
        running.refresh()


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="Linux tells the peak of a process's memory")
def test_a_refresh_takes_no_memory_but_that_of_a_matrix_at_a_time():
    model = tiny_model("llama", hidden_size=256, intermediate_size=1024, num_hidden_layers=16, vocab_size=TOKENIZER.vocab_size)
    randomise(model)
    running = Engine(model, TOKENIZER, 4, 128, KernelRunner(model, "float32", 4, 128))
    weights = sum(parameter.numel() * parameter.element_size() for parameter in model.parameters())
    assert weights > 50e6
    for _ in range(2):
        Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
        before = _memory("VmRSS")
        running.refresh()
        assert _memory("VmHWM") - before < weights / 4


def _memory(name):
    """Bytes, as the system counts them."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith(name))


def test_requests_wait_for_pages_and_all_end():
    small = engine(pages=4)
    requests = [Request([*PROMPT[:40], 5 + index], 30, seed=index) for index in range(5)]
    assert drawn(small.generate(requests)) == drawn(engine().generate(requests))
    assert small.runner.blocks.available == 4


def test_a_request_that_could_never_fit_is_refused_at_once_with_the_numbers():
    small = engine(pages=3)
    with pytest.raises(UserError, match=r"97 tokens \(75 of the prompt and 22 new ones\), but the cache holds 96"):
        small.add(Request(PROMPT, 22))
    assert not small.busy
    assert len(small.generate([Request(PROMPT, 21)])[0].token_ids) == 21


def test_cancelled_requests_give_their_pages_back_within_a_step():
    running = engine(length=2048)
    everything = running.runner.blocks.available
    ids = [running.add(Request(PROMPT, 40, seed=index)) for index in range(3)]
    running.step()
    ids += [running.add(Request(LONG, 40)), running.add(Request(PROMPT, 40))]
    running.step()
    assert len(running._scheduler.waiting) == 1
    assert running.runner.blocks.available < everything
    for request_id in ids:
        running.cancel(request_id)
    running.step()
    assert not running.busy
    assert running.runner.blocks.available == everything


def test_a_failure_leaves_nothing_that_is_trusted(fed):
    running = engine()

    def interrupt(ended, tokens):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        running.generate([Request(PROMPT, 9)], progress=interrupt)
    assert not running.busy
    running.generate([Request(PROMPT, 4)])
    assert fed == [75, 75, 1, 1, 1]
    assert running.runner.blocks.available == running.runner.blocks.pages


def test_pages_that_an_interrupted_scoring_had_taken_over_are_computed_by_who_shares_them(monkeypatch):
    prompt = LONG[: STEP_ROWS + 400]
    request = Request([*prompt, 5], 3, seed=2)
    (alone,) = engine(length=2048).generate([request])
    running = engine(length=2048)
    first, second = running.add(Request(prompt, 3)), running.add(request)
    running.step()

    def interrupt(self, *rest):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(NativeEngine, "run", interrupt)
        with pytest.raises(KeyboardInterrupt):
            running.score([Given(prompt, len(prompt) - 1)])
    running.cancel(first)
    assert drawn([run(running)[second]]) == [alone]


def test_scoring_uses_no_page_of_another_owner(fed):
    running = engine()
    running.score([Given(PROMPT, 70, "mine"), Given(PROMPT, 70, "theirs")])
    assert fed == [148]
    running.score([Given(PROMPT, 70, "mine")])
    assert fed == [148, 74 - 2 * PAGE]


def test_once_the_weights_are_mended_no_nan_is_left_in_any_page():
    running = engine()
    weight = running.model.model.layers[0].self_attn.v_proj.weight
    kept = weight.detach().clone()
    with torch.no_grad():
        weight[0] = torch.nan
    with pytest.raises(UserError, match="not finite"):
        running.generate([Request(PROMPT, 4)])
    with torch.no_grad():
        weight.copy_(kept)
    assert running.generate([Request(PROMPT[:20], 4)]) == engine().generate([Request(PROMPT[:20], 4)])


@pytest.mark.parametrize("family", ["llama-3", "deepseek-v3"])
@pytest.mark.parametrize("precision", ["float32", "bfloat16", "int8", "int4"])
def test_after_a_restart_a_prompt_is_read_from_disk_to_the_same_bits(family, precision, tmp_path, fed):
    request = Request(PROMPT, 5, seed=3)
    store = Store(tmp_path)
    (before,) = engine(precision, family=family, store=store).generate([request])
    store.close()
    restarted = engine(precision, family=family, store=Store(tmp_path))
    (after,) = restarted.generate([request])
    assert fed == [75, 1, 1, 1, 1, 75 - 2 * PAGE, 1, 1, 1, 1]
    assert after == replace(before, cached_tokens=2 * PAGE)


@pytest.mark.parametrize("other", [{"seed": 1}, {"precision": "bfloat16"}, {"length": 160}])
def test_another_model_reads_nothing(other, tmp_path):
    store = Store(tmp_path)
    engine(store=store).generate([Request(PROMPT, 2)])
    store.close()
    (completion,) = engine(store=Store(tmp_path), **other).generate([Request(PROMPT, 2)])
    assert completion.cached_tokens == 0


def test_on_disk_too_an_owner_finds_only_what_is_its_own(tmp_path):
    store = Store(tmp_path)
    engine(store=store).generate([Request(PROMPT, 2, owner="mine")])
    store.close()
    restarted = engine(store=Store(tmp_path))
    assert restarted.generate([Request(PROMPT, 2, owner="theirs")])[0].cached_tokens == 0
    assert restarted.generate([Request(PROMPT, 2, owner="mine")])[0].cached_tokens == 2 * PAGE


def test_a_damaged_page_is_computed_again(tmp_path, caplog):
    request = Request(PROMPT, 5, seed=3)
    store = Store(tmp_path)
    (before,) = engine("bfloat16", store=store).generate([request])
    store.close()
    second = max(store.folder.glob("*.page"), key=lambda path: path.stat().st_size)
    content = bytearray(second.read_bytes())
    content[-200:-100] = b"\xff" * 100  # NaN in any format
    second.write_bytes(content)
    restarted = engine("bfloat16", store=Store(tmp_path))
    (after,) = restarted.generate([request])
    assert after == replace(before, cached_tokens=PAGE)
    assert "damaged" in caplog.text


def test_a_step_reads_only_so_much_from_disk_and_those_who_run_go_on(tmp_path, monkeypatch, fed):
    request = Request(LONG, 3, seed=2)
    store = Store(tmp_path)
    (before,) = engine(length=2048, store=store).generate([request])
    store.close()
    fed.clear()
    restarted = engine(length=2048, store=Store(tmp_path))
    monkeypatch.setattr("spoutnik.engine.prompts.READ_BYTES", 20 * len(restarted.runner._engine.page(0)))
    running = restarted.add(Request(PROMPT, 9))
    restarted.step()
    first = restarted.add(request)
    completions = run(restarted)
    assert fed[:4] == [75, 1, 1 + 100 - 3 * PAGE, 2]
    assert completions[first] == replace(before, cached_tokens=1024 + 3 * PAGE)
    assert len(completions[running].token_ids) == 9
