"""A judgement as JSON and back: every score that was made, every crossing, the cause first."""

from dataclasses import asdict
from typing import Any

from ...gates.verdict import Action, Broken, Crossing, Judgement, Verdict

__all__ = ["judgement_from_json", "judgement_to_json"]


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
            tag: {str(reading): float(score) for reading, score in scores.items()}
            for tag, scores in judgement.scores.items()
        },
    }


_WORDS = ("tag", "reading", "action")


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
