"""An accelerator on paper: a device of torch's own kind, `paper`, written in Python, whose memory is the machine's and which computes with
the CPU's operations, so to the CPU's bits.

It is as strict as a real one: an operation whose tensors lie on two devices is refused (but for copies, and for single numbers), and what
lies on it can be read only by copying. Importing this module makes it the accelerator of the process, for good.
"""

from typing import Any

import torch
from torch.utils import _pytree
from torch.utils.backend_registration import _DummyBackendModule, _setup_privateuseone_for_python_backend

NAME = "paper"
_COPIES = (torch.ops.aten.copy_.default, torch.ops.aten._to_copy.default)


class Paper(torch.Tensor):
    """A tensor on the accelerator; `held` is the tensor on the CPU that has its numbers."""

    held: torch.Tensor

    @staticmethod
    def __new__(cls, held: torch.Tensor) -> "Paper":
        return torch.Tensor._make_wrapper_subclass(  # type: ignore[attr-defined]
            cls, held.size(), strides=held.stride(), storage_offset=held.storage_offset(), dtype=held.dtype,
            device=torch.device(NAME, 0), requires_grad=held.requires_grad,
        )  # fmt: skip

    def __init__(self, held: torch.Tensor):
        self.held = held

    def tolist(self) -> Any:
        return self.held.tolist()

    def __deepcopy__(self, memo: dict[int, Any]) -> torch.Tensor:
        copied = self.detach().clone().requires_grad_(self.requires_grad)
        copied = torch.nn.Parameter(copied, self.requires_grad) if isinstance(self, torch.nn.Parameter) else copied
        memo[id(self)] = copied
        return copied

    @classmethod
    def __torch_dispatch__(cls, operation: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(operation, *args, **(kwargs or {}))


def _run(operation: Any, *args: Any, **kwargs: Any) -> Any:
    """The operation on the CPU's tensors behind the arguments; what it makes lies on the accelerator unless it was asked to copy away."""
    given: dict[int, Paper] = {}

    def behind(value: Any) -> Any:
        if isinstance(value, Paper):
            given[id(value.held)] = value
            return value.held
        if isinstance(value, torch.Tensor) and value.ndim and operation not in _COPIES:
            raise RuntimeError(f"{operation} takes a tensor of shape {tuple(value.shape)} on {value.device} beside ones on {NAME}")
        return torch.device("cpu") if isinstance(value, torch.device) and value.type == NAME else value

    made = operation(*_pytree.tree_map(behind, args), **_pytree.tree_map(behind, kwargs))
    target = kwargs.get("device")
    leaves = (target is not None and torch.device(target).type == "cpu") or (operation in _COPIES[:1] and not isinstance(args[0], Paper))

    def placed(value: Any) -> Any:
        if not isinstance(value, torch.Tensor) or leaves:
            return value
        return given[id(value)] if id(value) in given else Paper(value)

    return _pytree.tree_map(placed, made)


def _copy(target: torch.Tensor, source: torch.Tensor, non_blocking: bool = False) -> torch.Tensor:
    held = [tensor.held if isinstance(tensor, Paper) else tensor for tensor in (target, source)]
    held[0].copy_(held[1])
    return target


class _Module(_DummyBackendModule):
    """What torch asks of an accelerator. Autocasting is allowed and does nothing."""

    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return [torch.bfloat16]


_setup_privateuseone_for_python_backend(NAME, _Module())
_everything, _aten = torch.library.Library("_", "IMPL"), torch.library.Library("aten", "IMPL")
_everything.fallback(_run, "PrivateUse1")
_everything.fallback(torch.library.fallthrough_kernel, "AutocastPrivateUse1")
_aten.impl("copy_", _copy, "PrivateUse1")  # torch.tensor(..., device=...) finds no fallback for it
