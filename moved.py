"""Finds modules by the names they had in version 0.1, and warns that they moved."""

import sys
import warnings
from collections.abc import Mapping, Sequence
from importlib import import_module
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Final

__all__ = ["MOVED", "Moved"]

MOVED: Final[Mapping[str, str]] = {
    "agents.beam": "agents.search.beam",
    "agents.best_first": "agents.search.best_first",
    "agents.builtin": "agents.loading",
    "agents.digits": "agents.ready.digits",
    "agents.intersect": "agents.ready.intersect",
    "agents.joins": "agents.plans.joins",
    "agents.operations": "agents.plans.operations",
    "agents.paper": "agents.ready.paper",
    "agents.plan": "agents.plans.words",
    "agents.searching": "agents.search.search",
    "agents.sets": "agents.ready.sets",
    "agents.smc": "agents.search.smc",
    "agents.sort": "agents.ready.sort",
    "agents.strategy": "agents.search.strategy",
    "runtime.cli": "cli",
    "runtime.deciding": "runtime.review.decisions",
    "runtime.resuming": "runtime.recovery.resuming",
    "runtime.run": "runtime.executor.session",
}
"""What a user's own code may import, by its old name."""


class Moved:
    """An import hook that is asked last, for names that nobody else has."""

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """A spec for a module that moved; None for all others."""
        package, _, old = name.partition(".")
        if package != __package__ or old not in MOVED:
            return None
        return ModuleSpec(name, self)  # pyright: ignore[reportArgumentType]

    def create_module(self, spec: ModuleSpec) -> None:
        """An empty module, which :meth:`exec_module` replaces."""

    def exec_module(self, module: ModuleType) -> None:
        """Put the module that it is now in its place."""
        name = module.__name__
        now = f"{__package__}.{MOVED[name.partition('.')[2]]}"
        warnings.warn(f"{name} is {now} since 0.2: import that", DeprecationWarning, stacklevel=2)
        sys.modules[name] = import_module(now)
