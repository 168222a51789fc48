"""From events to the rows that people query. Pure: the tables can be rebuilt from the chain."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ...agents.thought import Status
from ...gates.reading import Reading
from ...gates.verdict import Action
from .chain import as_text, from_text
from .events import EventKind

__all__ = ["Change", "Derivation", "changes", "tag_score_rows", "thought_row"]


@dataclass(frozen=True, slots=True)
class Change:
    """What a later event changes of a thought's row; None leaves the column as it is."""

    thought: str
    status: str | None = None
    reason: str | None = None
    score: float | None = None

    @property
    def columns(self) -> dict[str, Any]:
        """The columns that change, with their new values."""
        new = {"status": self.status, "reason": self.reason, "score": self.score}
        return {name: value for name, value in new.items() if value is not None}


def thought_row(
    event: Mapping[str, Any], agent: str, text: str, value: str | None
) -> dict[str, Any]:
    """The row of the thought that a ``judged`` or ``placed`` event records."""
    body = from_text(event["body"])
    judgement = body["judgement"] or {}
    cause = (judgement.get("crossings") or [{}])[0]
    return {
        "run_id": event["run_id"],
        "id": event["thought_id"],
        "seq": event["seq"],
        "at": event["at"],
        "agent": agent,
        "parents": as_text(body["parents"]),
        "operation": body["operation"],
        "kind": body["kind"],
        "depth": body["depth"],
        "child": body["index"],
        "attempt": event["attempt"],
        "status": body["status"],
        "scope": body["scope"],
        "text": _storable(text),
        "value": value,
        "score": body["score"],
        "tokens": body["tokens"],
        "latency_s": event["latency_s"],
        "acted": body["acted"],
        "reason": _storable(body["reason"] or judgement.get("broken")),
        "evidence": from_text(event["blobs"]).get("evidence"),
        "action": judgement.get("action"),
        "rule": cause.get("rule"),
        "tag": cause.get("tag"),
        "reading": cause.get("reading"),
        "reached": cause.get("score"),
        "threshold": cause.get("threshold"),
        "first_token": cause.get("start"),
        "end_token": cause.get("end"),
    }


def tag_score_rows(event: Mapping[str, Any]) -> list[dict[str, Any]]:
    """One row for each tag that the verdict in a ``judged`` event read."""
    judgement = from_text(event["body"])["judgement"] or {}
    crossings = judgement.get("crossings", [])
    rows: list[dict[str, Any]] = []
    for tag, scores in judgement.get("scores", {}).items():
        actions = [Action(c["action"]) for c in crossings if c["tag"] == tag]
        decided = bool(crossings) and crossings[0]["tag"] == tag
        strongest = max(actions, key=lambda action: action.strength, default=Action.ALLOW)
        rows.append(
            {
                "run_id": event["run_id"],
                "thought_id": event["thought_id"],
                "tag": tag,
                **{reading.value: scores.get(reading.value) for reading in Reading},
                "decided": decided,
                "action": judgement["action"] if decided else strongest.value,
                "at": event["at"],
            }
        )
    return rows


def changes(event: Mapping[str, Any]) -> list[Change]:
    """What an event changes of thoughts that are there already."""
    body = from_text(event["body"])
    match EventKind(event["kind"]):
        case EventKind.SCORED:
            return [Change(event["thought_id"], score=body["score"])]
        case EventKind.SELECTED:
            reason = _storable(body["reason"])
            return [Change(id, Status.DROPPED.value, reason) for id in body["dropped"]]
        case EventKind.BACKED_UP:
            return [Change(event["thought_id"], reason=_storable(body["reason"]))]
        case EventKind.ESCALATED:
            reason = _storable(body["reason"])
            return [Change(event["thought_id"], Status.ESCALATED.value, reason)]
        case _:
            return []


def _storable(text: str | None) -> str | None:
    """Without NUL, which PostgreSQL's text cannot hold; the blob and the event keep it."""
    return None if text is None else text.replace("\0", "\ufffd")


class Derivation:
    """The derived rows of one run, made by taking its events in order."""

    def __init__(self, agent: str) -> None:
        self.agent = agent
        self.thoughts: dict[str, dict[str, Any]] = {}
        self.scores: dict[tuple[str, str], dict[str, Any]] = {}

    def take(self, event: Mapping[str, Any], blobs: Mapping[str, bytes]) -> None:
        """Apply one event; ``blobs`` are the bytes by digest.

        Raises ``KeyError`` or ``ValueError`` for an event that cannot be read.
        """
        if event["kind"] in (EventKind.JUDGED, EventKind.PLACED):
            named = from_text(event["blobs"])
            value = blobs[named["value"]].decode() if "value" in named else None
            text = blobs[named["text"]].decode()
            row = thought_row(event, self.agent, text, value)
            self.thoughts[row["id"]] = row
            for score in tag_score_rows(event):
                self.scores[row["id"], score["tag"]] = score
        for change in changes(event):
            row = self.thoughts.get(change.thought)
            if row is not None:
                row.update(change.columns)
