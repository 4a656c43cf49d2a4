"""What attention remembers, one row per running request.

Storage is one tensor per layer and kind, [rows, length, ...], made when a layer first writes. A decode step writes one cell of each row
and reads a view; nothing is copied but when the storage grows. This is the seam for a paged cache: attention only knows `extend`.
"""

from collections.abc import Sequence

import torch
from torch import Tensor


class SlotCache:
    """Keys and values (or latents) of the running rows. The engine calls `place` before the model, and the model `extend` in each layer."""

    def __init__(self, max_rows: int, max_length: int):
        self.max_rows, self.max_length = max_rows, max_length
        self.positions_BT = torch.empty(0, 0, dtype=torch.int64)
        self._rows_B1 = torch.empty(0, 1, dtype=torch.int64)
        self._read: slice | Tensor = slice(0)
        self._rows = 0  # what the next call needs
        self.length = 0
        """S: cells of each row that the next call reads."""
        self._layers: dict[int, list[Tensor]] = {}

    def place(self, rows: Sequence[int], positions_BT: Tensor) -> None:
        """Says where the next call's tokens go: batch row b is cache row rows[b], its tokens stand at positions_BT[b] (int64)."""
        contiguous = list(rows) == list(range(rows[0], rows[0] + len(rows)))
        index_B = torch.tensor(rows, device=positions_BT.device)
        self.positions_BT, self._rows_B1 = positions_BT, index_B[:, None]
        self._read = slice(rows[0], rows[0] + len(rows)) if contiguous else index_B
        self._rows, self.length = max(rows) + 1, int(positions_BT.max()) + 1

    def extend(self, layer: int, *new: Tensor) -> tuple[Tensor, ...]:
        """Stores each `new` [B, T, ...] and returns each kind's cells [B, S, ...] with S the largest position of this call + 1.

        Cells beyond a row's own position hold zeros or leftovers, always finite if the model's are: mask them.
        """
        kinds = self._layers.get(layer)
        if kinds is None:
            kinds = self._layers[layer] = [self._grown(None, like) for like in new]
        elif kinds[0].shape[0] < self._rows or kinds[0].shape[1] < self.length:
            kinds = self._layers[layer] = [self._grown(kind, kind) for kind in kinds]
        for kind, values in zip(kinds, new, strict=True):
            kind[self._rows_B1, self.positions_BT] = values
        return tuple(kind[self._read, : self.length] for kind in kinds)

    def copy_rows(self, sources: Sequence[int], targets: Sequence[int], length: int) -> None:
        """Copies the first `length` cells of each source row to its target row. No target may be a source."""
        self._rows = max(self._rows, max(targets) + 1)
        for layer, kinds in self._layers.items():
            if kinds[0].shape[0] < self._rows:
                kinds = self._layers[layer] = [self._grown(kind, kind) for kind in kinds]
            for kind in kinds:
                kind[targets, :length] = kind[sources, :length]

    def clear(self) -> None:
        """Gives the memory back."""
        self._layers.clear()

    def _grown(self, old: Tensor | None, like: Tensor) -> Tensor:
        """Zeroed storage for the present need, doubled in the sizes that grow so that growing costs O(1) per cell, with `old` in it."""
        held_rows, held_length = old.shape[:2] if old is not None else (0, 0)
        rows = held_rows if self._rows <= held_rows else min(self.max_rows, max(self._rows, 2 * held_rows))
        length = held_length if self.length <= held_length else min(self.max_length, max(self.length, 2 * held_length, 64))
        # Heads lie before positions in memory, so that one head's keys are contiguous and (row, head) is one axis for a batched product.
        storage = like.new_zeros(rows, *like.shape[2:-1], length, like.shape[-1]).movedim(-2, 1)
        if old is not None:
            storage[:held_rows, :held_length] = old
        return storage
