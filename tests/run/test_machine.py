"""What is said of the machine agrees with what the system says."""

import os
import shutil

from spoutnik.run import machine


def test_the_figures_are_the_systems_own(tmp_path):
    here = machine.inspect(tmp_path / "not" / "there" / "yet")
    assert here.cores == len(os.sched_getaffinity(0))
    assert 0 < here.memory_free <= here.memory <= os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    assert abs(here.disk_free - shutil.disk_usage(tmp_path).free) < 2**30
