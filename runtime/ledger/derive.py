"""From events to the rows that people query. Pure: the tables can be rebuilt from the chain."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ...agents.thought import Status
from ...gates.reading import Reading
from ...gates.verdict import Action
from .chain import as_text, from_text
from .events import EventKind

__all__ = ["Change", "Derivation", "changes", "decision_row", "tag_score_rows", "thought_row"]

Body = Mapping[str, Any]
"""An event's body, read."""


@dataclass(frozen=True, slots=True)
class Change:
    """What a later event changes of one thought's row."""

    columns: Mapping[str, Any]
    """The new values, by column."""
    thought: str | None = None
    """The thought's id, or None where ``seq`` names it."""
    seq: int | None = None
    """The event that recorded the thought."""


def thought_row(
    event: Mapping[str, Any], body: Body, agent: str, text: str, value: str | None
) -> dict[str, Any]:
    """A thought's row from its ``judged`` or ``placed`` event, in the table's order."""
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


def tag_score_rows(event: Mapping[str, Any], body: Body) -> list[dict[str, Any]]:
    """One row for each tag that the verdict in a ``judged`` event read, in the table's order."""
    judgement = body["judgement"] or {}
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


def decision_row(event: Mapping[str, Any], body: Body) -> dict[str, Any]:
    """The row of the decision that a ``decided`` event records, in the table's order."""
    return {
        "run_id": event["run_id"],
        "seq": event["seq"],
        "thought_id": event["thought_id"],
        "at": event["at"],
        "actor": _storable(event["actor"]),
        "approve": body["approve"],
        "about": body["about"],
        "reason": _storable(body["reason"]),
    }


def changes(event: Mapping[str, Any], body: Body) -> list[Change]:
    """What an event changes of thoughts that are there already."""
    thought = event["thought_id"]
    match EventKind(event["kind"]):
        case EventKind.SCORED:
            return [Change({"score": body["score"]}, thought)]
        case EventKind.SELECTED:
            fate = {"status": Status.DROPPED.value, "reason": _storable(body["reason"])}
            return [Change(fate, id) for id in body["dropped"]]
        case EventKind.BACKED_UP:
            return [Change({"reason": _storable(body["reason"])}, thought)]
        case EventKind.ESCALATED:
            reason = _storable(body["reason"])
            return [Change({"status": Status.ESCALATED.value, "reason": reason}, thought)]
        case EventKind.DECIDED:
            status, word = decided(body)
            reason = _storable(f"{word} by {event['actor']}: {body['reason']}")
            return [Change({"status": status.value, "reason": reason}, thought)]
        case EventKind.ERASED:
            return _emptied(body)
        case _:
            return []


def decided(body: Body) -> tuple[Status, str]:
    """What becomes of a thought on which a person decided, and the word for it."""
    if not body["approve"]:
        return Status.PRUNED, "refused"
    if body["outcome"] == "not done":  # the call is made again, by a thought of its own
        return Status.DROPPED, "found not done"
    return Status.KEPT, "found done" if body["outcome"] == "done" else "approved"


def _emptied(body: Body) -> list[Change]:
    """Thoughts whose text or value was erased, by the event that recorded them."""
    emptied: dict[int, dict[str, Any]] = {}
    for erased in body["blobs"].values():
        if erased["name"] in ("text", "value"):
            columns = emptied.setdefault(erased["seq"], {})
            columns[erased["name"]] = "" if erased["name"] == "text" else None
            columns["reason"] = _storable(f"erased: {body['reason']}")
    return [Change(columns, seq=seq) for seq, columns in emptied.items()]


def _storable(text: str | None) -> str | None:
    """Without NUL, which PostgreSQL's text cannot hold; the blob and the event keep it."""
    return None if text is None else text.replace("\0", "\ufffd")


class Derivation:
    """The derived rows of one run, made by taking its events in order."""

    def __init__(self, agent: str) -> None:
        self.agent = agent
        self.thoughts: dict[str, dict[str, Any]] = {}
        self.scores: dict[tuple[str, str], dict[str, Any]] = {}
        self.decisions: dict[int, dict[str, Any]] = {}
        self._recorded_by: dict[int, str] = {}

    def take(self, event: Mapping[str, Any], blobs: Mapping[str, bytes]) -> None:
        """Apply one event; ``blobs`` are the bytes by digest, empty for those that were erased.

        Raises ``KeyError`` or ``ValueError`` for an event that cannot be read.
        """
        body = from_text(event["body"])
        kind = event["kind"]
        if kind in (EventKind.JUDGED, EventKind.PLACED):
            named = from_text(event["blobs"])
            # No JSON value is empty, so an empty one was erased.
            value = (blobs[named["value"]].decode() or None) if "value" in named else None
            text = blobs[named["text"]].decode()
            row = thought_row(event, body, self.agent, text, value)
            self.thoughts[row["id"]] = row
            self._recorded_by[event["seq"]] = row["id"]
            for score in tag_score_rows(event, body):
                self.scores[row["id"], score["tag"]] = score
        if kind == EventKind.DECIDED:
            self.decisions[event["seq"]] = decision_row(event, body)
        for change in changes(event, body):
            id = self._recorded_by.get(change.seq, "") if change.seq is not None else change.thought
            row = self.thoughts.get(id or "")
            if row is not None:
                row.update(change.columns)
