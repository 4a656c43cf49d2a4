"""What the sandbox costs: programs a second, beside the same program in a plain Python process and a fresh runner for each one.

    python benchmarks/sandbox.py --runners 1 2

Each way runs the program for `--seconds`, in turns, three times; rates are the medians.
"""

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from statistics import median

from spoutnik.sandbox.limits import MODES
from spoutnik.sandbox.pool import SandboxPool

TURNS = 3
PROGRAM = "import math\nassert sum(math.sqrt(i) for i in range(1000)) > 0\n"


def rate(threads: int, seconds: float, once: Callable[[], object]) -> float:
    """Calls a second, from so many threads at once."""
    end = time.monotonic() + seconds

    def work(_: int) -> int:
        calls = 0
        while time.monotonic() < end:
            once()
            calls += 1
        return calls

    start = time.monotonic()
    with ThreadPoolExecutor(threads) as pool:
        calls = sum(pool.map(work, range(threads)))
    return calls / (time.monotonic() - start)


def plain() -> None:
    subprocess.run([sys.executable, "-S", "-s", "-P", "-c", PROGRAM], check=True)


def fresh() -> None:
    with SandboxPool() as pool:
        assert pool.run(PROGRAM).ok


def walled(pool: SandboxPool) -> None:
    assert pool.run(PROGRAM).ok


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runners", type=int, nargs="+", default=[1, os.cpu_count() or 1])
    parser.add_argument("--seconds", type=float, default=1.0)
    options = parser.parse_args()
    for runners in options.runners:
        pools = {mode: SandboxPool(runners, protections=protections) for mode, protections in MODES.items()}
        ways: dict[str, Callable[[], object]] = {"plain Python, no sandbox": plain, "a fresh runner for each program": fresh}
        for mode, pool in pools.items():
            ways[f"sandbox, {mode}"] = partial(walled, pool)
        rates: dict[str, list[float]] = {name: [] for name in ways}
        for pool in pools.values():
            pool.map([""] * runners)
        for _ in range(TURNS):
            for name, once in ways.items():
                rates[name].append(rate(runners, options.seconds, once))
        for name, measured in rates.items():
            print(f"{runners} at once, {name}: {median(measured):.0f} programs/s, {1000 * runners / median(measured):.1f} ms each")
        for pool in pools.values():
            pool.close()


if __name__ == "__main__":
    main()
