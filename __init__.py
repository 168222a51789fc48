"""Secateur: agents that think in graphs, gated step by step by behaviour tags.

The names below are the front door. They load on first use, so that importing one room
(``secateur.gates`` inside a model server, say) does not import the others.
"""

import sys
import warnings
from importlib import import_module
from typing import Any

from .moved import Moved

__version__ = "0.2.0"

_ROOMS = {
    # what a user writes
    "Agent": ".runtime.agent",
    "Budget": ".agents.budget",
    "Call": ".agents.tool",
    "Ids": ".agents.prompt",
    "Move": ".agents.search.strategy",
    "Plan": ".agents.plans.words",
    "Progress": ".agents.steering",
    "ReadTask": ".agents.spec",
    "Sampling": ".agents.prompt",
    "Scene": ".agents.thought",
    "Special": ".agents.prompt",
    "Strategy": ".agents.search.strategy",
    "Text": ".agents.prompt",
    "Thought": ".agents.thought",
    "Workspace": ".agents.tool",
    "act": ".agents.plans.words",
    "aggregate": ".agents.plans.words",
    "at_least": ".agents.plans.joins",
    "beam": ".agents.search.search",
    "best_first": ".agents.search.search",
    "each": ".agents.plans.words",
    "first": ".agents.plans.joins",
    "generate": ".agents.plans.words",
    "grade": ".agents.plans.words",
    "ground_truth": ".agents.plans.words",
    "grow": ".agents.plans.words",
    "improve": ".agents.plans.words",
    "keep_best": ".agents.plans.words",
    "keep_valid": ".agents.plans.words",
    "operation": ".agents.plans.words",
    "pairwise": ".agents.plans.words",
    "race": ".agents.plans.words",
    "refine": ".agents.plans.words",
    "repeat": ".agents.plans.words",
    "score": ".agents.plans.words",
    "search": ".agents.search.search",
    "select": ".agents.plans.words",
    "smc": ".agents.search.search",
    "split": ".agents.plans.words",
    "tool": ".agents.tool",
    "vote": ".agents.plans.words",
    # what gates it
    "Action": ".gates.verdict",
    "Broken": ".gates.verdict",
    "Policy": ".gates.policy",
    "Rule": ".gates.policy",
    "SecateurError": ".gates.errors",
    "Verdict": ".gates.verdict",
    "Vocabulary": ".gates.vocabulary",
    # what runs and records it
    "AuditLog": ".runtime.ledger.reading.audit",
    "Ledger": ".runtime.ledger.ledger",
    "LocalEngine": ".runtime.engines.local.engine",
    "RunResult": ".runtime.executor.session",
}

sys.meta_path.append(Moved())

__all__ = ["__version__", *_ROOMS]  # pyright: ignore[reportUnsupportedDunderAll]


_RENAMED = {"Reading": "ReadTask"}
"""Names of version 0.1, which still open."""


def __getattr__(name: str) -> Any:
    if name in _RENAMED:
        warnings.warn(
            f"secateur.{name} is secateur.{_RENAMED[name]} since 0.2: import that",
            DeprecationWarning,
            stacklevel=2,
        )
        name = _RENAMED[name]
    if name not in _ROOMS:
        raise AttributeError(f"module 'secateur' has no attribute {name!r}")
    return getattr(import_module(_ROOMS[name], __name__), name)


def __dir__() -> list[str]:
    return sorted(__all__)
