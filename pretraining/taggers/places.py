"""Paths in a taggers file: what is named there stands beside that file."""

from pathlib import Path

from pydantic import ValidationInfo

__all__ = ["near"]


def near(name: str, info: ValidationInfo) -> Path:
    """The path ``name``, seen from the folder of the file that is being read (context ``base``)."""
    base = (info.context or {}).get("base")
    path = Path(name).expanduser()
    return path if base is None else Path(base) / path
