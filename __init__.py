"""Secateur: agents that think in graphs, gated step by step by behaviour tags.

The names below are the front door. They load on first use, so that importing one room
(``secateur.gates`` inside a model server, say) does not import the others.
"""

from importlib import import_module
from typing import Any

__version__ = "0.2.0"

_ROOMS = {
    # what a user writes
    "Agent": ".runtime.agent",
    "Budget": ".agents.budget",
    "Call": ".agents.tool",
    "Ids": ".agents.prompt",
    "Move": ".agents.strategy",
    "Plan": ".agents.plan",
    "Progress": ".agents.steering",
    "Reading": ".agents.spec",
    "Sampling": ".agents.prompt",
    "Scene": ".agents.thought",
    "Special": ".agents.prompt",
    "Strategy": ".agents.strategy",
    "Text": ".agents.prompt",
    "Thought": ".agents.thought",
    "Workspace": ".agents.tool",
    "act": ".agents.plan",
    "aggregate": ".agents.plan",
    "at_least": ".agents.joins",
    "beam": ".agents.searching",
    "best_first": ".agents.searching",
    "each": ".agents.plan",
    "first": ".agents.joins",
    "generate": ".agents.plan",
    "grade": ".agents.plan",
    "ground_truth": ".agents.plan",
    "grow": ".agents.plan",
    "improve": ".agents.plan",
    "keep_best": ".agents.plan",
    "keep_valid": ".agents.plan",
    "operation": ".agents.plan",
    "pairwise": ".agents.plan",
    "race": ".agents.plan",
    "refine": ".agents.plan",
    "repeat": ".agents.plan",
    "score": ".agents.plan",
    "search": ".agents.searching",
    "select": ".agents.plan",
    "smc": ".agents.searching",
    "split": ".agents.plan",
    "tool": ".agents.tool",
    "vote": ".agents.plan",
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
    "LocalEngine": ".runtime.engines.local",
    "RunResult": ".runtime.run",
}

__all__ = ["__version__", *_ROOMS]  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    if name not in _ROOMS:
        raise AttributeError(f"module 'secateur' has no attribute {name!r}")
    return getattr(import_module(_ROOMS[name], __name__), name)


def __dir__() -> list[str]:
    return sorted(__all__)
