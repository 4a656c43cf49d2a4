"""What is said of the machine agrees with what the system says."""

import os
import platform
import shutil
import subprocess
import sys

import pytest

from spoutnik.cli.allocator import TUNABLES
from spoutnik.run import machine

FREED = """
import numpy as np
from pathlib import Path
from spoutnik.run.machine import give_back_memory
def resident():
    return int(Path("/proc/self/statm").read_text().split()[1])
array = np.ones(1 << 27, np.uint8)
del array
kept = resident()
give_back_memory()
print(kept, resident())
"""


def test_the_figures_are_the_systems_own(tmp_path):
    here = machine.inspect(tmp_path / "not" / "there" / "yet")
    assert here.cores == len(os.sched_getaffinity(0))
    assert 0 < here.memory_free <= here.memory <= os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    assert abs(here.disk_free - shutil.disk_usage(tmp_path).free) < 2**30


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc keeps memory when told to")
def test_memory_that_training_keeps_is_given_back_when_asked():
    environment = {**os.environ, "GLIBC_TUNABLES": TUNABLES, "PYTHONPATH": os.pathsep.join(sys.path)}
    output = subprocess.run([sys.executable, "-c", FREED], env=environment, capture_output=True, text=True, check=True, timeout=60).stdout
    kept, left = (int(pages) * os.sysconf("SC_PAGE_SIZE") for pages in output.split())
    assert kept - left > 100 << 20
