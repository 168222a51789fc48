"""Steering: a user's function that changes the controls while a thought is being written."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from ..gates.control import Control
from ..gates.evidence import Evidence
from .thought import Scene

__all__ = ["Progress", "Steer", "SteerAt"]


@dataclass(frozen=True, slots=True)
class Progress:
    """What a steering function may look at: a thought that is being written, so far."""

    scene: Scene
    context: str | None
    """The policy context of the run."""
    text: str
    """What is written so far; empty before the first token."""
    token_ids: tuple[int, ...]
    readings: Mapping[str, Mapping[str, float]]
    """Tag, then reading (``peak``, ``opened``, ``cusum``, ``emitted``), then score so far."""
    controls: Mapping[str, Control]
    """What is in force; tags that are not named are allowed."""
    attempt: int
    """How often the thought was tried before."""
    evidence: Evidence = field(repr=False, compare=False)
    """Every number that was read so far."""


Steer = Callable[[Progress], Mapping[str, Control | str] | None]
"""Gives the controls that change from here on (``{"angry": "allow"}``), or None."""

SteerAt = Literal["token", "line", "sentence"]
"""When it is asked: before the first token, and then at each such boundary."""
