"""The device that this process computes on: the machine's accelerator where it has one, else the CPU. Nobody else chooses one.

torch is imported only when asked. Accelerators are found by torch's own interface, so no kind of them is named here.
"""

import logging
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from spoutnik.errors import UserError
from spoutnik.run import machine

if TYPE_CHECKING:
    import torch

VARIABLE = "SPOUTNIK_DEVICE"
"""Environment variable: "auto" (the default), "cpu", or what torch calls the device, with its number if there are several."""
HOST = "cpu"


def computing_device() -> "torch.device":
    """Where models are trained and run. Raises UserError if VARIABLE names a device that is not there or cannot compute."""
    import torch

    wanted = os.environ.get(VARIABLE, "").strip() or "auto"
    if wanted == "auto":
        found = torch.accelerator.current_accelerator(check_available=True)
        fault = _fault(found) if found is not None else None
        if fault is not None:
            logging.getLogger(__name__).warning("The %s device cannot be used (%s); the CPU computes instead.", found, fault)
        return found if found is not None and fault is None else torch.device(HOST)
    try:
        device = torch.device(wanted)
    except RuntimeError as error:
        raise UserError(f"{VARIABLE} is {wanted!r}, which torch knows no device by; set it to auto, cpu, or unset it.") from error
    fault = _fault(device)
    if fault is not None:
        raise UserError(f"{VARIABLE} is {wanted!r}, but nothing can be computed there ({fault}); set it to auto, cpu, or unset it.")
    return device


def _fault(device: "torch.device") -> str | None:
    """Why the device cannot be used. The sampler sums in float64, which some accelerators lack."""
    import torch

    try:
        total = float(torch.ones(2, dtype=torch.float64, device=device).sum())
    except (RuntimeError, TypeError, AssertionError, NotImplementedError) as error:
        return (str(error).splitlines() or [type(error).__name__])[0]
    return None if total == 2 else f"1 + 1 is {total} there"


@dataclass(frozen=True)
class Memory:
    """Bytes of what the device computes in, and how many of them are free; `where` names it in a sentence."""

    total: int
    free: int
    where: str


def memory_of(device: "torch.device") -> Memory:
    """The device's own memory; the machine's for the CPU and for accelerators that do not tell theirs."""
    import torch

    here = machine.inspect()
    if device.type != HOST:
        try:
            free, total = torch.accelerator.get_memory_info(device)
        except (RuntimeError, AttributeError, NotImplementedError):
            return Memory(here.memory, here.memory_free, f"this machine, whose {device.type} device does not tell its own memory,")
        return Memory(total, free, describe(device))
    return Memory(here.memory, here.memory_free, "this machine")


def describe(device: "torch.device") -> str:
    """The device's name for people, where it has one."""
    import torch

    if device.type == HOST:
        return HOST
    named = getattr(torch.get_device_module(device), "get_device_name", None)
    return f"{device} ({named(device)})" if named is not None else str(device)
