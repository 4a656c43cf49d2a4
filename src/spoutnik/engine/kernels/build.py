"""Compiles the C++ files beside this one for the processor at hand and opens them.

The files include no header of torch's, so a plain compiler call builds them in seconds; torch.utils.cpp_extension would only add its own
headers and a dependency on ninja. What is built is kept in the user's cache, under a name made of the sources, the compiler and the
processor, so that a home directory shared by unlike machines is safe.
"""

import ctypes
import hashlib
import logging
import os
import platform
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path

from spoutnik.errors import UserError

SOURCES = ("pack.cpp", "linear.cpp", "linear_tiles.cpp", "adapter.cpp", "additions.cpp", "attention.cpp", "sampler.cpp", "step.cpp")
PAGE = 32
"""Tokens a page of the cache."""
GROUP = 32
"""Inputs that share a scale and a minimum in 4-bit weights."""
DEPTH = 64
"""Inputs of a product are padded with zeros to a multiple of this."""
SIZES = (f"-DSPOUTNIK_PAGE={PAGE}", f"-DSPOUTNIK_GROUP={GROUP}", f"-DSPOUTNIK_DEPTH={DEPTH}")
FLAGS = ("-std=c++17", "-O3", "-fPIC", "-shared", "-pthread", "-Wno-psabi", *SIZES)
HERE = Path(__file__).parent


@cache
def library(march: str = "native") -> ctypes.CDLL:
    """The compiled kernels. UserError says what is missing where they cannot be built."""
    found = compiler()
    if found is None:
        raise UserError("The fast kernels need a C++ compiler and found none (tried $CXX, c++, g++, clang++); install one, such as g++.")
    built = _cache_directory() / f"{fingerprint(found, march)}.so"
    if not built.exists():
        _compile(found, march, built)
    return ctypes.CDLL(str(built))


@cache
def available() -> bool:
    """Whether the kernels can be used; tried once a process, for a failing compiler is slow, too. Says why a compiler did not make them."""
    if compiler() is None:
        return False
    try:
        library()
    except (UserError, OSError) as error:
        logging.getLogger(__name__).warning("%s The torch modules run instead, slower.", error)
        return False
    return True


def compiler() -> str | None:
    """The C++ compiler that would be used."""
    return next((found for name in (os.environ.get("CXX"), "c++", "g++", "clang++") if name and (found := shutil.which(name))), None)


def _cache_directory() -> Path:
    root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(root) / "spoutnik" / "kernels"


def fingerprint(compiler: str, march: str = "native") -> str:
    """Different for builds that may differ in a bit of what they compute."""
    digest = hashlib.blake2b(digest_size=12)
    for path in sorted([*HERE.glob("*.cpp"), *HERE.glob("*.h")]):
        digest.update(path.read_bytes())
    version = subprocess.run([compiler, "--version"], capture_output=True, check=False).stdout
    for part in (version, " ".join(FLAGS).encode(), march.encode(), processor().encode()):
        digest.update(part)
    return digest.hexdigest()


def processor() -> str:
    """What a native build depends on: the processor's instruction sets."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return f"{platform.machine()} {platform.processor()}"
    return next((line for line in lines if line.startswith(("flags", "Features"))), platform.machine())


def _compile(compiler: str, march: str, target: Path) -> None:
    """Builds aside and renames, so that two processes may build at once and a broken build is never opened."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        aside = Path(folder) / target.name
        command = [compiler, *FLAGS, f"-march={march}", "-o", str(aside), *(str(HERE / source) for source in SOURCES)]
        result = subprocess.run(command, capture_output=True, text=True, check=False)
        if result.returncode:
            complaint = next((line for line in result.stderr.splitlines() if "error" in line), result.stderr.strip()[-300:])
            raise UserError(f"The fast kernels did not compile with {compiler}: {complaint}")
        os.replace(aside, target)
