"""The engine against llama.cpp, vLLM and transformers: the same weights, prompts and threads, in one run.

    python benchmarks/engine.py smollm2                          every row
    python benchmarks/engine.py v3-128m --rows prefill "batch 1"   V3's architecture with random weights; these rows alone
    python benchmarks/engine.py CHECKPOINT                       a Hugging Face directory or a GGUF file

Rows: prefill of one prompt of 512 tokens; decoding of 1, 8, 32 and 64 requests (prompts of 32 tokens, 128 new ones each, greedy; the rate
is that of new tokens once each request has its first); rollouts (64 at temperature 1, with their log-probabilities, in bfloat16); a group
of 64 samples of one prompt of 256 tokens and 64 prompts of 256 tokens, in seconds from the prompts to the last token; and the seconds from
a command to its first token, in a fresh process whose files the system has read before.

Contestants take turns within each row, an idle one is stopped, and a figure is the best of `--repeats`; what was measured while something
else used the processor is measured again. A peer that is not installed (see peers.py) or fails is named with its reason, and the rest
runs. Tables and the roofline go to standard output and to results/. On 2 cores all rows of a model of 130 M parameters take about half an
hour; rows can be measured in several calls, each of which replaces its own.
"""

import argparse
import fcntl
import json
import signal
import sys
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import peers
import report
import roofline
import weights
from contestants import hugging_face, llama_cpp, ours, virtual_llm
from contestants.worker import Contestant
from quiet import undisturbed
from rows import JOBS, measure

from spoutnik.errors import UserError
from spoutnik.run.machine import cores, inspect

RESULTS = Path(__file__).resolve().parent / "results"


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
    running = (options.peers / "running").open("w")
    try:
        fcntl.flock(running, fcntl.LOCK_EX | fcntl.LOCK_NB)  # two at once would spoil each other's figures, and share the models' files
    except OSError:
        sys.exit(f"Another comparison is running with {options.peers}; wait for its end.")
    gguf_fault = None
    try:
        weights.prepare(options.model, folder)
    except RuntimeError as reason:
        gguf_fault = str(reason)
    except UserError as error:
        sys.exit(str(error))
    path = RESULTS / f"engine-{name}.json"
    results: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {"rows": {}}
    missing: dict[str, str] = {}
    field = line_up(folder, options, missing, gguf_fault)
    limits, _ = undisturbed(lambda _: roofline.machine(options.threads))
    results |= {
        "model": name, "machine": str(inspect()), "threads": options.threads, "limits": limits, "versions": report.versions(),
        "missing": missing, "notes": [note for contestant in field for note in contestant.notes],
    }  # fmt: skip
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("terminated"))  # or stopped contestants would outlive this process
    try:
        for row in measure(options.rows, field, options.repeats):
            now = datetime.now(UTC).isoformat(timespec="seconds")
            results["rows"][row.name] = {"unit": row.unit, "measured": now, **asdict(row)}
            RESULTS.mkdir(exist_ok=True)
            path.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    finally:
        for contestant in field:
            contestant.close()
    report.write(results, folder / "hf", RESULTS)


if __name__ == "__main__":
    main()
