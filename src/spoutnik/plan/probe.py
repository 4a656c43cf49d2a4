"""How fast this machine is: probed once, in about half a minute, and kept in the user's cache until the machine or torch is another."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from spoutnik.errors import UserError
from spoutnik.plan.chips import THIS_MACHINE, Chip
from spoutnik.plan.figure import Figure, Input
from spoutnik.run import machine
from spoutnik.run.directory import write_whole

MODULE = "spoutnik.train.speeds"
"""What measures, in a process of its own: it needs torch, and its threads must not meet others'."""

WATTS_PER_CORE = 10.0
"""Assumed, as ledgers do where the processor has no counter."""


@dataclass(frozen=True)
class Probe:
    """gemm_* in operations a second (a multiply-add counts as 2), bandwidth, disk_write and disk_read in bytes a second, small_step in
    seconds: forward and backward of a model of two small layers. `identity` says of which machine, `date` when (UTC)."""

    identity: str
    date: str
    gemm_float32: float
    gemm_bfloat16: float
    gemm_small: float
    bandwidth: float
    small_step: float
    disk_write: float
    disk_read: float


UNITS = {
    "gemm_float32": ("FLOP/s", "products of 2,048 x 2,048 float32 matrices"),
    "gemm_bfloat16": ("FLOP/s", "products of 2,048 x 2,048 bfloat16 matrices"),
    "gemm_small": ("FLOP/s", "products of 1,152 x 128 by 128 x 128 float32 matrices"),
    "bandwidth": ("bytes/s", "read and written by a copy of 256 MiB"),
    "small_step": ("s", "forward and backward of a V3 model of two layers over 6 x 192 tokens"),
    "disk_write": ("bytes/s", "256 MiB written until they are on the disk"),
    "disk_read": ("bytes/s", "256 MiB read back"),
}


def identity() -> str:
    """What a probe holds for: processor, cores and threads, and the library that multiplies."""
    here = machine.inspect()
    threads = os.environ.get("OMP_NUM_THREADS") or str(here.cores)
    return f"{here.processor}, {here.cores} cores, {threads} threads, {'/'.join(here.instruction_sets) or 'plain'}, torch {_torch()}"


def probed(again: bool = False, folder: Path | None = None) -> Probe:
    """This machine's probe: the kept one if it is this machine's, else a new one. Raises UserError if nothing can be measured."""
    path = (folder or cache_folder()) / "probe.json"
    kept = None if again else read_probe(path)
    if kept is not None and kept.identity == identity():
        return kept
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path.parent / "probe.try", "")
    except OSError as error:
        raise UserError(
            "{folder} cannot keep this machine's speed ({strerror}); set XDG_CACHE_HOME to a folder that can be written.",
            folder=path.parent, strerror=error.strerror,
        ) from error  # fmt: skip
    (path.parent / "probe.try").unlink(missing_ok=True)
    found = Probe(identity(), time.strftime("%Y-%m-%dT%H:%MZ", time.gmtime()), **_measured(path.parent))
    write_whole(path, json.dumps(asdict(found), indent=2) + "\n")
    return found


def kept() -> Probe:
    """This machine's probe. Raises UserError if it was not measured yet."""
    found = read_probe(cache_folder() / "probe.json")
    if found is None or found.identity != identity():
        raise UserError("This machine was not measured yet; run `spoutnik plan machine` once.")
    return found


def read_probe(path: Path) -> Probe | None:
    """What a file holds; None where it is missing or not a probe of this version."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return Probe(**{field.name: content[field.name] for field in fields(Probe)})
    except (OSError, ValueError, KeyError, TypeError):
        return None


def cache_folder() -> Path:
    """Where the probe is kept."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "spoutnik"


def figures(probe: Probe) -> tuple[Figure, ...]:
    """The probe as figures, each with how it was measured."""
    return tuple(_figure(probe, name, unit, how) for name, (unit, how) in UNITS.items())


def as_chip(probe: Probe) -> Chip:
    """This machine as one device of a plan: what was probed, so plans for it are about what it does and not what a data sheet says."""
    here = machine.inspect()
    return Chip(
        THIS_MACHINE, here.processor, probe.date[:10], f"spoutnik plan machine, {probe.date}", bf16_tflops=probe.gemm_bfloat16 / 1e12,
        memory_gb=here.memory / 1e9, bandwidth_tbs=probe.bandwidth / 1e12, scale_up_gbs=0.0, scale_out_gbs=0.0, devices_per_node=1,
        tdp_w=WATTS_PER_CORE * here.cores, status="measured", assumed=("tdp_w",),
    )  # fmt: skip


def _figure(probe: Probe, name: str, unit: str, how: str) -> Figure:
    value = getattr(probe, name)
    return Figure(name, value, unit, "the best of several tries", (Input(how, value, unit, f"{probe.identity}, {probe.date}", "measured"),))


def _measured(folder: Path) -> Mapping[str, float]:
    run = subprocess.run([sys.executable, "-m", MODULE, str(folder)], capture_output=True, text=True, check=False)
    try:
        found: dict[str, float] = json.loads(run.stdout)
    except ValueError:
        last = (run.stderr.strip().splitlines() or [f"status {run.returncode}"])[-1]
        raise UserError(
            "This machine's speed cannot be measured: {last}; see whether `spoutnik doctor` finds something missing.", last=last
        ) from None
    return found


def _torch() -> str:
    try:
        return version("torch")
    except PackageNotFoundError:
        return "missing"
