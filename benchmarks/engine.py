"""The engine against llama.cpp, vLLM and transformers: the same weights, prompts and threads, in one run.

    python benchmarks/engine.py smollm2                          every row
    python benchmarks/engine.py v3-134m --rows prefill "batch 1"   V3's architecture with random weights; these rows alone
    python benchmarks/engine.py CHECKPOINT                       a Hugging Face directory or a GGUF file

Rows: prefill of one prompt of 512 tokens; decoding of 1, 8, 32 and 64 requests (prompts of 32 tokens, 128 new ones each, greedy; the rate
is that of new tokens once each request has its first); rollouts (64 at temperature 1, with their log-probabilities, in bfloat16); a group
of 64 samples of one prompt of 256 tokens and 64 prompts of 256 tokens, in seconds from the prompts to the last token; and the seconds from
a command to its first token, in a fresh process whose files the system has read before.

Contestants take turns within each row, an idle one is stopped, and a figure is the best of `--repeats`: a slow minute of the machine hits
all alike. A peer that is not installed (see peers.py) or fails is named with its reason, and the rest runs. Tables and the roofline go to
standard output and to results/. On 2 cores all rows of SmolLM2-135M take about half an hour; rows can be measured in several calls,
each of which replaces its own.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import peers
import report
import roofline
import weights
from contestants import hugging_face, llama_cpp, ours, virtual_llm
from contestants.job import Job
from contestants.worker import Contestant

from spoutnik.run.machine import cores, inspect

RESULTS = Path(__file__).resolve().parent / "results"
JOBS = {
    "prefill": Job(1, 512, 1),
    **{f"batch {size}": Job(size, 32, 128) for size in (1, 8, 32, 64)},
    "rollouts": Job(64, 32, 128, temperature=1.0, logprobs=True),
    "group": Job(64, 256, 128, shared=True, temperature=1.0, logprobs=True),
    "no group": Job(64, 256, 128, temperature=1.0, logprobs=True),
    "start": Job(1, 5, 1),
}
SECONDS = ("group", "no group", "start")
"""Rows whose figure is seconds, all others tokens a second."""
IN_BFLOAT16 = ("rollouts", "group", "no group")


def value(row: str, contestant: Contestant, seed: int) -> float:
    """One measurement, in the row's unit."""
    job = JOBS[row]
    if row == "start":
        return start(contestant)
    timing = contestant.run(Job(job.prompts, job.length, job.new, job.shared, job.temperature, job.logprobs, seed))
    if row == "prefill":
        return job.length / timing.first
    return timing.total if row in SECONDS else job.prompts * (job.new - 1) / (timing.total - timing.first)


def start(contestant: Contestant) -> float:
    """Seconds from the command to its first output. Raises RuntimeError if there is none."""
    command, environment = contestant.start_command()
    began = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env={**os.environ, **environment})
    assert process.stdout is not None
    output = process.stdout.read(1)
    took = time.perf_counter() - began
    process.communicate()
    if not output:
        raise RuntimeError(f"no first token (exit status {process.returncode})")
    return took


def measure(
    rows: Sequence[str],
    field: Sequence[Contestant],
    repeats: int,
    failed: dict[str, str],
    keep: Callable[[str, dict[str, list[float]]], None],
) -> None:
    """Row by row, `repeats` times around the field. Who fails is out, with the reason; `keep` is given each finished row."""
    for row in rows:
        found: dict[str, list[float]] = {}
        for turn in range(repeats):
            for contestant in field:
                if contestant.name in failed or (row in IN_BFLOAT16 and not contestant.name.lower().endswith(("bfloat16", "bf16"))):
                    continue
                try:
                    measured = value(row, contestant, seed=1 + turn)
                except (OSError, RuntimeError) as reason:
                    failed[contestant.name] = f"{row}: {reason}"
                    print(f"{contestant.name} is out: {failed[contestant.name]}", file=sys.stderr)
                    continue
                found.setdefault(contestant.name, []).append(measured)
                print(f"{row:10} {contestant.name:24} {measured:10,.2f}", file=sys.stderr, flush=True)
        keep(row, found)


def line_up(folder: Path, options: argparse.Namespace, missing: dict[str, str], gguf_fault: str | None) -> list[Contestant]:
    """Everyone who can take part; `missing` is told who cannot, and why."""
    hf, threads = str(folder / "hf"), options.threads
    field: list[Contestant] = [ours.contestant(hf, precision, threads) for precision in ours.PRECISIONS]
    try:
        if gguf_fault:
            raise peers.MissingError(gguf_fault)
        programs = peers.llama_cpp(options.peers, build=False)
        for kind in llama_cpp.TYPES:
            field.append(llama_cpp.LlamaCpp(programs, llama_cpp.convert(programs, folder / "f16.gguf", kind), kind, threads))
    except (peers.MissingError, RuntimeError) as reason:
        missing["llama.cpp"] = str(reason)
    try:
        found = peers.vllm(options.peers, install=False)
        field.append(virtual_llm.contestant(hf, threads, found.python, found.preload, options.peers / "vllm" / "cache"))
    except peers.MissingError as reason:
        missing["vLLM"] = str(reason)
    return field + [hugging_face.contestant(hf, dtype, threads) for dtype in hugging_face.DTYPES]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help=f"a checkpoint, a GGUF file, a name such as smollm2, or {weights.RANDOM_V3}")
    parser.add_argument("--rows", nargs="+", choices=JOBS, default=list(JOBS), metavar="ROW", help=", ".join(JOBS))
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=cores())
    parser.add_argument("--peers", type=Path, default=peers.ROOT, help="where peers.py installed")
    options = parser.parse_args()
    name = Path(options.model).name
    folder = options.peers / "models" / name
    folder.mkdir(parents=True, exist_ok=True)
    gguf_fault = None
    try:
        weights.prepare(options.model, folder)
    except RuntimeError as reason:
        gguf_fault = str(reason)
    path = RESULTS / f"engine-{name}.json"
    results: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {"rows": {}}
    missing: dict[str, str] = {}
    field = line_up(folder, options, missing, gguf_fault)
    results |= {
        "model": name, "machine": str(inspect()), "threads": options.threads, "limits": roofline.machine(options.threads),
        "versions": report.versions(), "missing": missing,
    }  # fmt: skip

    failed: dict[str, str] = {}

    def keep(row: str, found: dict[str, list[float]]) -> None:
        now = datetime.now(UTC).isoformat(timespec="seconds")
        results["rows"][row] = {"unit": "s" if row in SECONDS else "tokens/s", "measured": now, "values": found, "failed": dict(failed)}
        RESULTS.mkdir(exist_ok=True)
        path.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")

    signal.signal(signal.SIGTERM, lambda *_: sys.exit("terminated"))  # or stopped contestants would outlive this process
    try:
        measure(options.rows, field, options.repeats, failed, keep)
    finally:
        for contestant in field:
            contestant.close()
    report.write(results, folder / "hf", JOBS, RESULTS)


if __name__ == "__main__":
    main()
