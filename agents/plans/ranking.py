"""Which of several thoughts is better: by score, then by place in the graph."""

import math
from collections.abc import Iterable
from functools import partial

from ..path import Path
from ..thought import Thought

__all__ = ["rank", "ranked"]


def rank(thought: Thought, lowest: bool) -> tuple[float, Path]:
    """Smaller is better; a thought without a score is the worst."""
    if thought.score is None:
        return math.inf, thought.path
    return thought.score if lowest else -thought.score, thought.path


def ranked(thoughts: Iterable[Thought], lowest: bool) -> list[Thought]:
    """The best first."""
    return sorted(thoughts, key=partial(rank, lowest=lowest))
