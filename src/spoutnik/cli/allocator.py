"""Makes glibc keep the memory that training frees, which is worth about a third of a CPU step at small widths.

Tensors live for one operation; by default every large one is mapped, zeroed and unmapped by the kernel. glibc reads the setting only when
a process starts, so the training commands start themselves once more with it. Setting GLIBC_TUNABLES oneself turns this off.
"""

import os
import platform
import sys
from collections.abc import Sequence

TUNABLES = "glibc.malloc.mmap_max=0:glibc.malloc.trim_threshold=100000000000:glibc.malloc.top_pad=268435456"
TRAINING = ("launch", "pretrain", "sft", "rl", "dpo", "distill")
MEASURING = (["plan", "machine"], ["plan", "recipe"])
"""What measures how fast training would be."""


def restart_with_kept_memory(arguments: Sequence[str]) -> None:
    """Replaces this process by itself with GLIBC_TUNABLES set, once, if it is about to train, or to measure how fast it would, and runs on
    Linux with glibc."""
    meant = bool(arguments) and (arguments[0] in TRAINING or list(arguments[:2]) in MEASURING)
    trains = meant and not {"-h", "--help"} & set(arguments)
    if trains and "GLIBC_TUNABLES" not in os.environ and sys.platform == "linux" and platform.libc_ver()[0] == "glibc":
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], {**os.environ, "GLIBC_TUNABLES": TUNABLES})
