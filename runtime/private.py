"""Writes files that hold private text: for their owner alone, and whole or not at all."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from stat import S_IMODE
from tempfile import mkstemp

__all__ = ["written"]


@contextmanager
def written(path: Path) -> Iterator[Path]:
    """A new empty file beside ``path``, mode 600, that takes its place when the block has ended.

    A file that is there keeps its mode, and its content where the block raises.
    """
    mode = S_IMODE(path.stat().st_mode) if path.exists() else 0o600
    descriptor, name = mkstemp(prefix=f".{path.name}.", dir=path.parent)
    os.close(descriptor)
    unfinished = Path(name)
    try:
        yield unfinished
        unfinished.chmod(mode)
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)
