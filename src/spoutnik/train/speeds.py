"""How fast this machine does what training is made of: products, copies, a small model's step, writing to disk.

`python -m spoutnik.train.speeds FOLDER` prints the figures as JSON; `plan.probe` asks for them so, since it imports no torch. Each is the
best of several tries, for whatever else runs beside makes a try slower and never faster.
"""

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch

from spoutnik.model.depth import depth_config
from spoutnik.model.init import initialise
from spoutnik.model.transformer import CausalLM
from spoutnik.train.losses import token_logprobs

LARGE, SMALL = 2048, 128
"""Sides of the square products: one that fills the units, and one of a small model's width (with SMALL_ROWS rows)."""
SMALL_ROWS = 1152
COPIED = 2**28
WRITTEN = 2**28
"""Bytes."""
SECONDS = 4.0
"""What each figure may take."""


def measure(folder: Path) -> dict[str, float]:
    """gemm_* in operations a second (a multiply-add counts as 2), bandwidth, disk_write and disk_read in bytes a second, small_step in
    seconds. `folder` is on the disk in question; what is written there is removed."""
    write, read = _disk(folder)
    return {
        "gemm_float32": _gemm(LARGE, LARGE, torch.float32), "gemm_bfloat16": _gemm(LARGE, LARGE, torch.bfloat16),
        "gemm_small": _gemm(SMALL_ROWS, SMALL, torch.float32), "bandwidth": _bandwidth(), "small_step": _small_step(),
        "disk_write": write, "disk_read": read,
    }  # fmt: skip


def best(work: Callable[[], object], most: int = 1000) -> float:
    """Seconds of the fastest of as many tries as SECONDS allow, after one that warms up."""
    work()
    until, fastest = time.perf_counter() + SECONDS, float("inf")
    for _ in range(most):
        began = time.perf_counter()
        work()
        ended = time.perf_counter()
        fastest = min(fastest, ended - began)
        if ended >= until:
            break
    return fastest


def _gemm(rows: int, side: int, dtype: torch.dtype) -> float:
    """Operations a second of [rows, side] times [side, side]; a small product is repeated within a try."""
    left, right = torch.randn(rows, side).to(dtype), torch.randn(side, side).to(dtype)
    repeated = max(1, 2 * 10**8 // (2 * rows * side * side))

    def work() -> None:
        for _ in range(repeated):
            left @ right

    return 2.0 * rows * side * side * repeated / best(work)


def _bandwidth() -> float:
    """Bytes a second that a copy reads and writes."""
    source = torch.ones(COPIED // 4)
    target = torch.empty_like(source)
    return 2 * COPIED / best(lambda: target.copy_(source))


def _small_step() -> float:
    """Seconds of forward and backward of a V3 model of two layers over 6 x 192 tokens: its products are next to nothing, so this is what
    calling so many operations costs."""
    model = CausalLM(depth_config("deepseek_v3", 2, 512))
    initialise(model, 0)
    ids_BT = torch.randint(0, 512, (6, 192))

    def work() -> None:
        loss = -token_logprobs(model.head(model.hidden(ids_BT[:, :-1])), ids_BT[:, 1:]).mean()
        loss.backward()
        model.zero_grad(set_to_none=True)

    return best(work)


def _disk(folder: Path) -> tuple[float, float]:
    """Bytes a second written until they are on the disk, and read back without what the system still holds of them."""
    path, block = folder / f"speeds-{os.getpid()}", os.urandom(2**24)

    def write() -> None:
        with path.open("wb", buffering=0) as file:
            for _ in range(WRITTEN // len(block)):
                file.write(block)
            os.fsync(file.fileno())

    def read() -> None:
        with path.open("rb", buffering=0) as file:
            if hasattr(os, "posix_fadvise"):
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            while file.read(len(block)):
                pass

    try:
        return WRITTEN / best(write, most=3), WRITTEN / best(read, most=3)
    finally:
        path.unlink(missing_ok=True)


if __name__ == "__main__":
    print(json.dumps(measure(Path(sys.argv[1]))))
