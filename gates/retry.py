"""Where a thought that is to be resampled goes back to, and what is tightened from there on."""

from collections.abc import Sequence
from dataclasses import dataclass

from .control import Control, tightened
from .policy import Policy
from .reading import Reading
from .sentences import Boundary, boundary_before
from .verdict import Action, Crossing, Verdict
from .vocabulary import BoundVocabulary

__all__ = ["BackUp", "back_up"]


@dataclass(frozen=True, slots=True)
class BackUp:
    """What a retry keeps of a thought."""

    token: int
    """So many of its tokens stay; 0 starts again from the prompt."""
    boundary: Boundary
    """The kind of boundary that lies there."""
    cause: Crossing
    """The crossing that went back furthest."""
    controls: dict[str, Control]
    """Upper bounds on the tags' controls from there on."""


def back_up(
    verdict: Verdict,
    policy: Policy,
    context: str | None,
    vocabulary: BoundVocabulary,
    ids: Sequence[int],
    texts: Sequence[str],
) -> BackUp:
    """The way back for a verdict whose action is ``resample``, over the thought's tokens.

    A sampled tag and a posterior are changed by writing anew from where they stand. A temptation
    is read from what stands *before* a token, so ``peak``, ``opened`` and ``cusum`` go back to a
    boundary before that: from the same prefix they would only be the same again. Where several
    rules ask, the earliest boundary and all their controls hold.
    """
    rules = policy.rules_for(context)
    tags = vocabulary.vocabulary.tags
    opens = frozenset(id_ for tag in tags for id_ in vocabulary.open_ids(tag.name))
    closing = (vocabulary.close_id(tag.name) for tag in tags)
    closes = frozenset(id_ for id_ in closing if id_ is not None)
    found: BackUp | None = None
    controls: dict[str, Control] = {}
    for crossing in verdict.crossings:
        if crossing.action is not Action.RESAMPLE:
            continue
        rule = rules[crossing.rule]
        sampled = policy.raw(rule) in (Reading.EMITTED, Reading.POSTERIOR)
        latest = crossing.start if sampled else crossing.start - 1
        token = boundary_before(rule.back_to, latest, ids, texts, opens, closes)
        controls = tightened(controls, rule.controls)
        if found is None or token < found.token:
            found = BackUp(token, rule.back_to, crossing, {})
    if found is None:
        raise ValueError(f"a verdict of {verdict.action} asks for no retry")
    return BackUp(found.token, found.boundary, found.cause, controls)
