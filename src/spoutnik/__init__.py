"""The whole DeepSeek recipe in the open: `spoutnik.load` opens a model, the `spoutnik` command does the rest."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from spoutnik.library import Model, load

__all__ = ["Model", "load"]


def __getattr__(name: str) -> Any:
    """Imports the library, and with it torch, only once it is used: the command line must start fast."""
    if name in __all__:
        from spoutnik import library

        return getattr(library, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
