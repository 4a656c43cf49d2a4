"""How fast the engine generates, against transformers on the same weights, prompts and threads, in one run.

    python benchmarks/engine.py smollm2                      the table
    python benchmarks/engine.py CHECKPOINT --batches 1 64    a Hugging Face directory, other batches

A rate is new tokens a second after every prompt is cached: 32 prompt tokens and 128 new ones a request, greedy, with sampling, paging
and the engine's own Python included. Prefill is one prompt of 512 tokens to its first new token. Every figure is the best of `--repeats`
runs, and the contestants take turns, so that a slow minute of the machine hits all alike.
"""

import argparse
import tempfile
import time
from collections.abc import Callable, Sequence

import torch

import spoutnik
from spoutnik.engine.generator import Engine
from spoutnik.engine.kernels.runner import KernelRunner
from spoutnik.engine.request import Request
from spoutnik.engine.torch_runner import TorchRunner

PROMPT, NEW, PREFILL, LENGTH = 32, 128, 512, 1024
Contestant = Callable[[int], float]
"""Takes a batch size (0: prefill) and returns tokens a second."""


def prompts(batch: int, length: int, vocabulary: int) -> list[list[int]]:
    generator = torch.Generator().manual_seed(batch * 1000 + length)
    return torch.randint(100 if vocabulary > 1000 else 5, vocabulary, (batch, length), generator=generator).tolist()


def ours(model: spoutnik.Model, precision: str | None) -> Contestant:
    """The engine on the kernels in a precision, or on the torch modules (None)."""
    network = model.model
    runner = TorchRunner(network, 64, LENGTH) if precision is None else KernelRunner(network, precision, 64, LENGTH)
    engine = Engine(network, model.tokenizer, 64, LENGTH, runner)
    eos = frozenset()

    def rate(batch: int) -> float:
        if isinstance(runner, KernelRunner):
            runner.blocks.forget()  # no prompt is found in the cache
        model.tokenizer.eos_token_ids = eos
        length, new = (PREFILL, 1) if batch == 0 else (PROMPT, NEW)
        for ids in prompts(max(batch, 1), length, model.config.vocab_size):
            engine.add(Request(ids, new, temperature=0))
        began = time.perf_counter()
        engine.step()
        if batch == 0:
            return PREFILL / (time.perf_counter() - began)
        began, before = time.perf_counter(), engine.tokens_generated
        while engine.busy:
            engine.step()
        return (engine.tokens_generated - before) / (time.perf_counter() - began)

    return rate


def transformers(directory: str, dtype: torch.dtype) -> Contestant:
    """generate() with its default cache."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(directory, dtype=dtype).eval()
    model.generation_config.eos_token_id = None

    def generate(batch: int, length: int, new: int) -> float:
        ids = torch.tensor(prompts(batch, length, model.config.vocab_size))
        began = time.perf_counter()
        with torch.inference_mode():
            model.generate(
                ids, attention_mask=torch.ones_like(ids), max_new_tokens=new, min_new_tokens=new, do_sample=False, pad_token_id=0
            )
        return time.perf_counter() - began

    def rate(batch: int) -> float:
        if batch == 0:
            return PREFILL / generate(1, PREFILL, 1)
        first = generate(batch, PROMPT, 1)
        return batch * (NEW - 1) / (generate(batch, PROMPT, NEW) - first)

    return rate


def measure(contestants: dict[str, Contestant], batches: Sequence[int], repeats: int) -> dict[str, dict[int, float]]:
    best = {name: dict.fromkeys(batches, 0.0) for name in contestants}
    for _ in range(repeats):
        for batch in batches:
            for name, rate in contestants.items():
                best[name][batch] = max(best[name][batch], rate(batch))
    return best


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--batches", type=int, nargs="+", default=[0, 1, 8, 32, 64], help="0 is prefill")
    parser.add_argument("--repeats", type=int, default=2)
    options = parser.parse_args()
    model = spoutnik.load(options.model)
    contestants = {f"ours, {precision}": ours(model, precision) for precision in ("float32", "bfloat16", "int8", "int4")}
    contestants["ours, torch float32"] = ours(model, None)
    with tempfile.TemporaryDirectory() as folder:
        model.save(folder)
        contestants["transformers float32"] = transformers(folder, torch.float32)
        contestants["transformers bfloat16"] = transformers(folder, torch.bfloat16)
    found = measure(contestants, options.batches, options.repeats)
    peer = {batch: max(rates[batch] for name, rates in found.items() if name.startswith("transformers")) for batch in options.batches}
    heads = ["prefill" if batch == 0 else f"batch {batch}" for batch in options.batches]
    print("| tokens/s (ratio to the better transformers) | " + " | ".join(heads) + " |")
    print("| --- |" + " --- |" * len(heads))
    for name, rates in found.items():
        print(f"| {name} | " + " | ".join(f"{rates[batch]:,.0f} ({rates[batch] / peer[batch]:.2f})" for batch in options.batches) + " |")


if __name__ == "__main__":
    main()
