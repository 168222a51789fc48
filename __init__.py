"""Secateur: agents that think in graphs, gated step by step by behaviour tags.

The names below are the front door. They load on first use, so that importing one room
(``secateur.gates`` inside a model server, say) does not import the others.
"""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_ROOMS: dict[str, str] = {}

__all__ = ["__version__", *_ROOMS]


def __getattr__(name: str) -> Any:
    if name not in _ROOMS:
        raise AttributeError(f"module 'secateur' has no attribute {name!r}")
    return getattr(import_module(_ROOMS[name], __name__), name)


def __dir__() -> list[str]:
    return sorted(__all__)
