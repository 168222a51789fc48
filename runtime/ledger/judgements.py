"""A judgement as JSON and back: every score that was made, every crossing, the cause first."""

from collections.abc import Mapping
from dataclasses import asdict
from json.encoder import encode_basestring_ascii
from math import isfinite
from typing import Any

import orjson

from ...gates.approval import Approval
from ...gates.reading import Reading
from ...gates.verdict import Action, Broken, Crossing, Judgement, Verdict
from .chain import as_text

__all__ = ["approvals_from_json", "judgement_from_json", "judgement_text", "judgement_to_json"]


def judgement_to_json(judgement: Judgement) -> dict[str, Any]:
    """``{"action", "broken"}`` or ``{"action", "crossings", "scores"}``."""
    if isinstance(judgement, Broken):
        return {"action": judgement.action.value, "broken": judgement.reason}
    return {
        "action": judgement.action.value,
        "crossings": [
            {name: str(value) if name in _WORDS else value for name, value in asdict(c).items()}
            for c in judgement.crossings
        ],
        "scores": {
            tag: {_NAMES[reading]: float(score) for reading, score in scores.items()}
            for tag, scores in judgement.scores.items()
        },
    }


_WORDS = ("tag", "reading", "action")
_NAMES: Mapping[str, str] = {reading: reading.value for reading in Reading}


def judgement_text(data: Mapping[str, Any]) -> str:
    """Canonical JSON of what :func:`judgement_to_json` gave: most of a step is these numbers.

    Raises ``ValueError`` for a score that is no finite number.
    """
    scores: Mapping[str, Mapping[str, float]] | None = data.get("scores")
    if not scores:
        return as_text(data)
    spelt = ",".join(
        [f"{encode_basestring_ascii(tag)}:{_spelt(scores[tag])}" for tag in sorted(scores)]
    )
    crossings = as_text(data["crossings"]) if data["crossings"] else "[]"
    return f'{{"action":"{data["action"]}","crossings":{crossings},"scores":{{{spelt}}}}}'


def _spelt(read: Mapping[str, float]) -> str:
    """The readings of one tag. In this range orjson spells a float as Python does, and faster."""
    for score in read.values():
        if score != 0.0 and not 1e-4 <= score < 1e15:
            return _written_out(read)
    return orjson.dumps(read, option=orjson.OPT_SORT_KEYS).decode()


def _written_out(read: Mapping[str, float]) -> str:
    if not all(map(isfinite, read.values())):
        return as_text(read)  # which refuses it
    return "{" + ",".join([f'"{name}":{read[name]!r}' for name in sorted(read)]) + "}"


def judgement_from_json(data: dict[str, Any]) -> Judgement:
    """Read what :func:`judgement_to_json` wrote."""
    action = Action(data["action"])
    if "broken" in data:
        return Broken(data["broken"], Action.HALT if action is Action.HALT else Action.PRUNE)
    return Verdict(
        action,
        tuple(Crossing(**{**c, "action": Action(c["action"])}) for c in data["crossings"]),
        data["scores"],
    )


def approvals_from_json(body: Mapping[str, Any]) -> tuple[Approval, ...]:
    """What people had let pass, from the body of a ``judged`` event; mostly nothing."""
    return tuple(map(Approval.from_json, body.get("approved", ())))
