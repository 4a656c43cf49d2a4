"""Pools by what protects them; the machine's refusal skips with its own words."""

import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from spoutnik.errors import UserError
from spoutnik.sandbox.limits import FULL, MIB, Limits, Result
from spoutnik.sandbox.pool import SandboxPool

LIMITS = Limits(wall_s=5, cpu_s=4, memory_bytes=128 * MIB, processes=8, file_bytes=MIB, disk_bytes=4 * MIB, output_bytes=10_000)

Run = Callable[..., Result]


@pytest.fixture(scope="session")
def pools() -> Iterator[Callable[[frozenset[str]], SandboxPool]]:
    made: dict[frozenset[str], SandboxPool] = {}

    def pool(protections: frozenset[str]) -> SandboxPool:
        if protections not in made:
            made[protections] = SandboxPool(limits=LIMITS, protections=protections)
            try:
                made[protections].check()
            except UserError as error:
                pytest.skip(str(error))
        return made[protections]

    yield pool
    for each in made.values():
        each.close()


@pytest.fixture
def run(pools: Callable[[frozenset[str]], SandboxPool]) -> Run:
    """run(program, without={...}): with all protections but some. An attack must fail with all, and succeed where they are taken out."""

    def execute(program: str, stdin: str = "", without: frozenset[str] | set[str] = frozenset(), limits: Limits = LIMITS) -> Result:
        return pools(FULL - frozenset(without)).run(program, stdin, limits=limits)

    return execute


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that every user may read and write, so that only a wall can be what stands before it."""
    path = Path(tempfile.mkdtemp(prefix="spoutnik-open-", dir="/var/tmp"))
    path.chmod(0o777)
    (path / "secret").write_text("the secret")
    (path / "secret").chmod(0o666)
    yield path
    shutil.rmtree(path)
