"""Adapters in the kernels: what merged weights compute, and no bit of any row depends on the company of others."""

import copy
import platform
from dataclasses import replace

import numpy as np
import pytest
import torch
import transformers
from tiny_adapters import adaptable, matrices, merged, write_adapter
from tiny_models import randomise, tiny_model

from spoutnik.checkpoint.adapter import Adapter, LowRank, read_adapter
from spoutnik.engine.generator import Engine
from spoutnik.engine.kernels.adapters import Adapters
from spoutnik.engine.kernels.build import PAGE
from spoutnik.engine.kernels.native import DRAW, FORMATS, Chunk, NativeEngine
from spoutnik.engine.kernels.program import cache_shape, write_program
from spoutnik.engine.kernels.runner import KernelRunner
from spoutnik.engine.request import Request
from spoutnik.engine.scoring import Given
from spoutnik.engine.store import Store
from spoutnik.errors import UserError
from spoutnik.text.tokenizer import train_bpe

TOKENS = [5, 9, 2, 77, 31, 8, 8, 60, 13, 42, 3, 90, 17, 26, 1, 55, 71, 6, 34, 20, 4, 66, 48, 12, 95, 29, 7, 83, 11, 38, 50, 22, 64, 19, 87]
TOKENIZER = train_bpe(["the cat sat on the mat and the dog ran, 1 2 3 four five. " * 20], vocab_size=320)
PROMPT = (TOKENIZER.encode("the cat sat on the mat and the dog ran, ") * 9)[:75]


def adapter(model, folder, chosen=lambda name: True, dtype=torch.float32, **settings):
    tensors = matrices(model, chosen, **settings)
    written = write_adapter(folder, {name: tensor.to(dtype) for name, tensor in tensors.items()}, r=settings.get("rank", 3))
    return read_adapter(written, model)


def native(model, precision="float32", threads=2, adapters=(), march="native", most_rows=128):
    """An engine whose adapters have the numbers 0, 1, ..."""
    engine = NativeEngine(threads, march)
    program = write_program(model, engine, precision, most_rows, 64, 128)
    engine.cache(precision != "float32", model.config.num_hidden_layers, *cache_shape(model), 24)
    engine.loaded = Adapters(engine, model, program.sites)
    for index, one in enumerate(adapters):
        engine.loaded.add(str(index), one)
    return engine


def logits_of(engine, number=-1, pieces=(35,), pages=(6, 1)):
    """Logits of every token under an adapter, fed in pieces of the given lengths."""
    out, position = [], 0
    for length in pieces:
        chunk = Chunk(TOKENS[position : position + length], position, pages, number)
        out.append(engine.step([chunk], range(length), np.zeros(length, DRAW), True)[1])
        position += length
    return torch.cat(out)


def of_modules(model):
    with torch.no_grad():
        return model(torch.tensor([TOKENS]))[0]


MODULES = [(family, kind) for family in ("llama", "qwen2", "llama-bias", "deepseek-v2-lite", "deepseek-v3") for kind in
           sorted({name.split(".", 3)[3] for name in adaptable(tiny_model(family))})]  # fmt: skip


@pytest.mark.parametrize(("family", "kind"), MODULES)
def test_each_module_alone_gives_the_logits_of_merged_weights(family, kind, tmp_path):
    model = tiny_model(family)
    one = adapter(model, tmp_path, lambda name: name.endswith(kind), rank=5)
    expected = of_modules(merged(model, one))
    assert not torch.allclose(expected, of_modules(model), atol=1e-3 * expected.abs().max())
    assert torch.allclose(logits_of(native(model, adapters=[one]), 0), expected, atol=2e-5 * expected.abs().max())


@pytest.mark.parametrize("family", ["llama-bias", "deepseek-v3"])
@pytest.mark.parametrize("rank", [1, 16, 37])
def test_all_modules_together_give_the_logits_of_merged_weights_whatever_their_ranks_and_scales(family, rank):
    model, generator = tiny_model(family), torch.Generator().manual_seed(0)

    def change(index, module):
        own = rank + index % 3
        down, up = torch.randn(own, module.in_features, generator=generator), torch.randn(module.out_features, own, generator=generator)
        return LowRank(0.1 * down, 0.1 * up, 0.5 + index % 4)

    one = Adapter({name: change(index, module) for index, (name, module) in enumerate(adaptable(model).items())}, bytes(32))
    expected = of_modules(merged(model, one))
    assert torch.allclose(logits_of(native(model, adapters=[one]), 0), expected, atol=4e-5 * expected.abs().max())


@pytest.mark.parametrize("precision", ["bfloat16", "int8", "int4"])
def test_beside_weights_of_lower_precision_an_adapter_keeps_its_own(precision, tmp_path):
    """The base alone is rounded: what the adapter changes is far above that."""
    model = tiny_model("llama-3")
    randomise(model, std=0.12)
    one = adapter(model, tmp_path)
    expected = of_modules(merged(model, one))
    error = (logits_of(native(model, precision, adapters=[one]), 0) - expected).std() / expected.std()
    base_error = (logits_of(native(model, precision)) - of_modules(model)).std() / of_modules(model).std()
    assert error < 2 * base_error + 0.01


@pytest.mark.parametrize("family", ["deepseek-v3", "llama-bias", "mistral"])
@pytest.mark.parametrize(("precision", "march"), [*((precision, "native") for precision in FORMATS), ("float32", "x86-64-v3")])
def test_no_bit_depends_on_company_pieces_or_threads(family, precision, march, tmp_path):
    """Of rows without an adapter, either: they are those of an engine that has none."""
    if march != "native" and platform.machine() != "x86_64":
        pytest.skip("a build for another kind of processor")
    model = tiny_model(family)
    loaded = [
        adapter(model, tmp_path / "all", seed=1),
        adapter(model, tmp_path / "queries", lambda name: name.endswith(("q_proj", "v_proj", "kv_b_proj")), seed=2, rank=17),
        adapter(model, tmp_path / "half", dtype=torch.bfloat16, seed=3, rank=6),
    ]
    engine, plain = native(model, precision, 2, loaded, march), native(model, precision, march=march)
    alone = {number: logits_of(engine, number) for number in range(3)} | {-1: logits_of(plain)}
    assert torch.equal(logits_of(engine), alone[-1])
    single = native(model, precision, 1, loaded, march)
    for number in (-1, 0, 1, 2):
        assert torch.equal(logits_of(engine, number, [1, 16, 2, 13, 3], (0, 5)), alone[number])
        assert torch.equal(logits_of(single, number, [1] * 35), alone[number])
    assert len({float(logits.sum()) for logits in alone.values()}) == 4
    for order in ([0, -1, 2], [1, 1, 0], [-1, 2, 1]):
        chunks = [Chunk(TOKENS[:35], 0, [2 * index, 2 * index + 1], number) for index, number in enumerate(order)]
        for index, number in enumerate(order):
            rows = range(35 * index, 35 * index + 35)
            assert torch.equal(engine.step(chunks, rows, np.zeros(35, DRAW), True)[1], alone[number])


@pytest.mark.parametrize("family", ["deepseek-v3", "llama-bias"])
@pytest.mark.parametrize("precision", FORMATS)
@pytest.mark.parametrize("threads", [1, 3])
def test_where_a_step_has_many_rows_they_have_the_bits_of_small_steps(family, precision, threads, tmp_path):
    """From 128 rows a thread on, threads share rows without an adapter, but panels where any row has one."""
    model = tiny_model(family)
    loaded = [adapter(model, tmp_path / name, seed=seed, rank=5) for seed, name in enumerate(["red", "blue"], 1)]
    small, engine = native(model, precision, 2, loaded), native(model, precision, threads, loaded, most_rows=420)
    alone = {number: logits_of(small, number, [1, 2, 32], (0, 5)) for number in (-1, 0, 1)}
    for order in ([0] * 12, [0, 1, -1] * 4, [-1] * 12):  # 420 rows
        chunks = [Chunk(TOKENS, 0, [2 * index, 2 * index + 1], number) for index, number in enumerate(order)]
        for index in (0, 5, 7, 11):
            rows = range(35 * index, 35 * index + 35)
            assert torch.equal(engine.step(chunks, rows, np.zeros(35, DRAW), True)[1], alone[order[index]])


def test_bfloat16_matrices_are_read_as_they_are(tmp_path):
    model = tiny_model("deepseek-v3")
    half = adapter(model, tmp_path, dtype=torch.bfloat16)
    wide = Adapter({name: LowRank(one.down.float(), one.up.float(), one.scale) for name, one in half.modules.items()}, bytes(32))
    engine = native(model, adapters=[half, wide])
    assert torch.equal(logits_of(engine, 0), logits_of(engine, 1))
    sizes = [
        sum(tensor.nbytes for tensor in {id(tensor): tensor for tensor in packed.tensors}.values())
        for packed in engine.loaded._packed.values()
    ]
    assert sizes[0] < 0.7 * sizes[1]


def test_a_number_that_comes_free_is_given_again(tmp_path):
    model = tiny_model("llama-3")
    first, second = adapter(model, tmp_path / "1", seed=1), adapter(model, tmp_path / "2", seed=2)
    engine = native(model, adapters=[first, second])
    expected = logits_of(engine, 1)
    engine.loaded.remove("0")
    assert torch.equal(logits_of(engine, 1), expected)
    engine.loaded.add("again", second)
    assert engine.loaded.known["again"][0] == 0
    assert torch.equal(logits_of(engine, 0), expected)


# ---- with the runner: requests, pages, disk


@pytest.fixture(scope="module")
def base():
    model = tiny_model("llama-3", vocab_size=TOKENIZER.vocab_size, max_position_embeddings=160)
    randomise(model, std=0.12)
    return model


@pytest.fixture(scope="module")
def pair(base, tmp_path_factory):
    folder = tmp_path_factory.mktemp("adapters")
    return {name: adapter(base, folder / name, seed=seed) for seed, name in enumerate(["red", "blue"], 1)}


def engine_of(model, adapters, precision="float32", store=None):
    running = Engine(model, TOKENIZER, 4, 160, KernelRunner(model, precision, 4, 160, store=store))
    for name, one in adapters.items():
        running.add_adapter(name, one)
    return running


def drawn(completions):
    return [replace(completion, cached_tokens=0) for completion in completions]


@pytest.mark.parametrize("precision", ["float32", "int4"])
def test_one_batch_answers_for_the_base_and_several_adapters_as_each_is_answered_alone(base, pair, precision):
    requests = [Request(PROMPT, 12, seed=3, adapter=name) for name in ("red", "", "blue", "red")] + [
        Request(PROMPT[:9], 20, adapter="blue")
    ]
    together = engine_of(base, pair, precision).generate(requests)
    alone = [engine_of(base, pair, precision).generate([request])[0] for request in requests]
    assert drawn(together) == alone
    assert alone[1] == engine_of(base, {}, precision).generate([requests[1]])[0]
    assert len({tuple(completion.logprobs) for completion in together[:3]}) == 3
    assert [completion.cached_tokens for completion in together] == [0, 0, 0, 75, 0]


def test_a_prefix_is_found_by_the_same_adapter_only_whatever_its_name(base, pair):
    running = engine_of(base, pair)
    (first,) = running.generate([Request(PROMPT, 4, adapter="red")])
    found = {name: running.generate([Request(PROMPT, 4, adapter=name)])[0].cached_tokens for name in ("blue", "", "red")}
    assert found == {"blue": 0, "": 0, "red": 2 * PAGE}
    running.remove_adapter("red")
    running.remove_adapter("blue")
    running.add_adapter("red", pair["blue"])
    running.add_adapter("blue", pair["red"])
    (swapped,) = running.generate([Request(PROMPT, 4, adapter="blue")])
    assert swapped == replace(first, cached_tokens=2 * PAGE)
    assert drawn(running.generate([Request(PROMPT, 4, adapter="red")])) == engine_of(base, pair).generate(
        [Request(PROMPT, 4, adapter="blue")]
    )


def test_on_disk_too_pages_belong_to_the_adapter_and_not_to_its_name(base, pair, tmp_path):
    store = Store(tmp_path)
    (before,) = engine_of(base, pair, store=store).generate([Request(PROMPT, 4, adapter="red")])
    store.close()
    store = Store(tmp_path)
    restarted = engine_of(base, {"red": pair["blue"], "crimson": pair["red"]}, store=store)
    found = [restarted.generate([Request(PROMPT, 4, adapter=name)])[0] for name in ("red", "", "crimson")]
    assert [completion.cached_tokens for completion in found] == [0, 0, 2 * PAGE]
    assert drawn(found[2:]) == [before]
    store.close()


def test_a_refresh_follows_the_base_and_keeps_the_adapters(base, pair):
    model = copy.deepcopy(base)
    running = engine_of(model, pair)
    (before,) = running.generate([Request(PROMPT, 4, adapter="red")])
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.05)
    running.refresh()
    (after,) = running.generate([Request(PROMPT, 4, adapter="red")])
    assert after.logprobs != before.logprobs
    assert [after] == engine_of(model, pair).generate([Request(PROMPT, 4, adapter="red")])


def test_given_tokens_are_scored_with_the_adapter_that_drew_them_to_the_bit(base, pair):
    running = engine_of(base, pair)
    made = running.generate([Request(PROMPT, 12, seed=5, adapter=name) for name in ("red", "", "blue")])
    given = [Given([*PROMPT, *one.token_ids], len(PROMPT), adapter=name) for one, name in zip(made, ("red", "", "blue"), strict=True)]
    assert engine_of(base, pair).score(given) == running.score(given) == [one.logprobs for one in made]


def test_an_adapter_comes_while_others_run_and_goes_when_nobody_uses_it(base, pair):
    running = engine_of(base, {})
    first = running.add(Request(PROMPT, 9, seed=1))
    running.step()
    running.add_adapter("red", pair["red"])
    second = running.add(Request(PROMPT, 3, seed=1, adapter="red"))
    with pytest.raises(UserError, match="'red' is used by 1 request"):
        running.remove_adapter("red")
    events = []
    while running.busy:
        events += running.step()
        if second in {event.request_id for event in events} and "red" in running._adapters:
            running.remove_adapter("red")
    made = {event.request_id: event.completion for event in events}
    requests = [Request(PROMPT, 9, seed=1), Request(PROMPT, 3, seed=1, adapter="red")]
    assert drawn([made[first], made[second]]) == [engine_of(base, pair).generate([request])[0] for request in requests]
    assert "red" not in running._adapters


def test_names_that_are_taken_empty_or_unknown_are_refused(base, pair):
    running = engine_of(base, pair)
    for name, message in (("red", "remove the one of that name first"), ("", "give it a name")):
        with pytest.raises(UserError, match=message):
            running.add_adapter(name, pair["red"])
    with pytest.raises(UserError, match=r"no adapter 'green' \(loaded: blue, red\)"):
        running.generate([Request(PROMPT, 4, adapter="green")])
    with pytest.raises(UserError, match="no adapter 'green'"):
        running.score([Given(PROMPT, 70, adapter="green")])
    with pytest.raises(UserError, match="no adapter 'green'"):
        running.remove_adapter("green")
    with pytest.raises(UserError, match="base model"):
        running.remove_adapter("")


# ---- PEFT itself


def written_by_peft(model, folder, **settings):
    """PEFT's own model on transformers', with random adapters that are saved in the folder."""
    peft = pytest.importorskip("peft")
    main = {name: tensor for name, tensor in model.state_dict().items() if f"layers.{model.config.num_hidden_layers}." not in name}
    theirs = transformers.AutoModelForCausalLM.from_config(
        transformers.AutoConfig.for_model(**model.config.to_hf()), attn_implementation="eager"
    ).eval()
    theirs.load_state_dict(main)
    torch.manual_seed(0)
    theirs = peft.get_peft_model(theirs, peft.LoraConfig(init_lora_weights=False, task_type="CAUSAL_LM", **settings))
    theirs.save_pretrained(folder)
    return theirs


SETTINGS = {
    "a list": ("llama-3", {"target_modules": ["q_proj", "v_proj", "down_proj"], "r": 4, "lora_alpha": 12}),
    "a regular expression": ("qwen2", {"target_modules": r".*layers\.[02]\..*_proj", "r": 4, "use_rslora": True}),
    "all-linear": ("qwen2", {"target_modules": "all-linear", "rank_pattern": {"q_proj": 9}, "alpha_pattern": {"layers.1.mlp.up_proj": 30}}),
    "one layer": ("llama-bias", {"target_modules": ["o_proj", "gate_proj"], "layers_to_transform": [1]}),
    "V3": ("deepseek-v3", {"target_modules": ["q_a_proj", "q_b_proj", "kv_a_proj_with_mqa", "kv_b_proj", "o_proj"], "r": 5}),
}


@pytest.mark.parametrize("what", SETTINGS)
def test_an_adapter_that_peft_wrote_gives_the_logits_that_peft_computes(what, tmp_path):
    family, settings = SETTINGS[what]
    model = tiny_model(family)
    theirs = written_by_peft(model, tmp_path, **settings)
    one = read_adapter(tmp_path, model)
    with torch.no_grad():
        expected = theirs(torch.tensor([TOKENS])).logits[0]
    assert not torch.allclose(expected, of_modules(model), atol=0.1)
    assert torch.allclose(logits_of(native(model, adapters=[one]), 0), expected, atol=4e-5 * expected.abs().max())


def test_experts_that_peft_adapted_are_refused(tmp_path):
    model = tiny_model("deepseek-v3")
    written_by_peft(model, tmp_path, target_modules="all-linear")
    with pytest.raises(UserError, match="target_parameters"):
        read_adapter(tmp_path, model)
