"""Keys and values of a running batch, with room to grow and rows that come and go."""

from typing import Any

import torch
from transformers.cache_utils import DynamicLayer

__all__ = ["RoomyLayer"]

_ROOM = 64
"""Columns by which a buffer grows: a step then writes one column, and copies nothing."""


class RoomyLayer(DynamicLayer):
    """One layer's keys and values, [rows, heads, columns, size] each, aligned to the right.

    Attention sees views of larger buffers. transformers' own layer concatenates, which copies the
    whole cache for every token.
    """

    _buffers: tuple[torch.Tensor, torch.Tensor]

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        """Start empty, with the shape and device of the first states."""
        self.dtype, self.device = key_states.dtype, key_states.device
        self.is_initialized = True
        self._show((key_states[:, :, :0], value_states[:, :, :0]), 0)

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Append columns; returns all keys and values."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        held = self.get_seq_length()
        needed = held + key_states.shape[-2]
        keys, values = self._buffers
        if needed > keys.shape[-2]:
            keys, values = (_roomier(b, held, needed + _ROOM) for b in (keys, values))
        keys[:, :, held:needed] = key_states
        values[:, :, held:needed] = value_states
        return self._show((keys, values), needed)

    def keep(self, rows: torch.Tensor, columns: int) -> None:
        """Keep these rows (indices, repeats allowed), and their last ``columns`` columns."""
        keys, values = (
            buffer[:, :, self.get_seq_length() - columns :].index_select(0, rows)
            for buffer in self._buffers
        )
        self._show((keys, values), columns)

    def join(self, other: "RoomyLayer") -> None:
        """Append another layer's rows below these."""
        mine, theirs = self.get_seq_length(), other.get_seq_length()
        columns = max(mine, theirs)
        joined: list[torch.Tensor] = []
        for above, below in zip(self._buffers, other._buffers, strict=True):
            rows, heads, _, size = above.shape
            # Zeros, not empty: hidden columns are multiplied by 0, and 0 * NaN would show.
            buffer = above.new_zeros(rows + below.shape[0], heads, columns + _ROOM, size)
            buffer[:rows, :, columns - mine : columns] = above[:, :, :mine]
            buffer[rows:, :, columns - theirs : columns] = below[:, :, :theirs]
            joined.append(buffer)
        self._show((joined[0], joined[1]), columns)

    def _show(
        self, buffers: tuple[torch.Tensor, torch.Tensor], columns: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        self._buffers = buffers
        keys, values = (buffer[:, :, :columns] for buffer in buffers)
        self.keys, self.values = keys, values
        return keys, values


def _roomier(buffer: torch.Tensor, held: int, columns: int) -> torch.Tensor:
    rows, heads, _, size = buffer.shape
    larger = buffer.new_empty(rows, heads, columns, size)
    larger[:, :, :held] = buffer[:, :, :held]
    return larger
