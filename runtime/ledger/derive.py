"""From events to the rows that people query. Pure: the tables can be rebuilt from the chain."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from ...agents.thought import Status
from ...gates.reading import Reading
from ...gates.verdict import Action
from .chain import plain_text
from .events import EventKind

__all__ = [
    "CHANGING",
    "Change",
    "changes",
    "decision_row",
    "indexed",
    "tag_score_rows",
    "thought_row",
]

Body = Mapping[str, Any]
"""An event's body, read."""

Row = tuple[Any, ...]
"""A row with its table's columns, in order."""

_LONGEST_NAME: Final = 500
"""Characters of a name in a column that is indexed: PostgreSQL's indexes hold 2,704 bytes."""

_NOTHING: Final[Mapping[str, Any]] = {}
_ALLOW: Final = Action.ALLOW.value
_READINGS: Final = tuple(reading.value for reading in Reading)


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
    event: Mapping[str, Any],
    body: Body,
    agent: str,
    text: str,
    value: str | None,
    evidence: str | None,
) -> Row:
    """A thought's row from its ``judged`` or ``placed`` event; ``evidence`` is a blob's digest."""
    judgement = body["judgement"] or _NOTHING
    crossings = judgement.get("crossings")
    cause = crossings[0] if crossings else _NOTHING
    return (
        event["run_id"],
        event["thought_id"],
        event["seq"],
        event["at"],
        indexed(agent),
        plain_text(body["parents"]),
        body["operation"],
        body["kind"],
        body["depth"],
        body["index"],
        event["attempt"],
        body["status"],
        body["scope"],
        _storable(text),
        value,
        body["score"],
        body["tokens"],
        event["latency_s"],
        body["acted"],
        _storable(body["reason"] or judgement.get("broken")),
        evidence,
        judgement.get("action"),
        cause.get("rule"),
        indexed(cause["tag"]) if cause else None,
        cause.get("reading"),
        cause.get("score"),
        cause.get("threshold"),
        cause.get("start"),
        cause.get("end"),
    )


def tag_score_rows(event: Mapping[str, Any], body: Body) -> list[Row]:
    """One row for each tag that the verdict in a ``judged`` event read."""
    judgement = body["judgement"] or _NOTHING
    scores: Mapping[str, Mapping[str, float]] = judgement.get("scores", _NOTHING)
    if not scores:
        return []
    crossings = judgement["crossings"]
    run, thought, at = event["run_id"], event["thought_id"], event["at"]
    rows: list[Row] = []
    for tag, readings in scores.items():
        decided = bool(crossings) and crossings[0]["tag"] == tag
        action = judgement["action"] if decided else _strongest(crossings, tag)
        rows.append(
            (run, thought, indexed(tag), *map(readings.get, _READINGS), decided, action, at)
        )
    return rows


def _strongest(crossings: Sequence[Mapping[str, Any]], tag: str) -> str:
    if not crossings:
        return _ALLOW
    actions = [Action(c["action"]) for c in crossings if c["tag"] == tag]
    return max(actions, key=lambda action: action.strength, default=Action.ALLOW).value


CHANGING: Final = frozenset(
    {
        EventKind.SCORED,
        EventKind.SELECTED,
        EventKind.BACKED_UP,
        EventKind.ESCALATED,
        EventKind.DECIDED,
        EventKind.ERASED,
    }
)
"""Events that change thoughts which are there already."""


def decision_row(event: Mapping[str, Any], body: Body) -> Row:
    """The row of the decision that a ``decided`` event records."""
    return (
        event["run_id"],
        event["seq"],
        event["thought_id"],
        event["at"],
        _storable(event["actor"]),
        body["approve"],
        body["about"],
        _storable(body["reason"]),
    )


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


def indexed(name: str) -> str:
    """An agent's or a tag's name as the derived tables have it: a very long one ends in a digest.

    The events have it whole.
    """
    name = name.replace("\0", "\ufffd")
    if len(name) <= _LONGEST_NAME:
        return name
    mark = hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()
    return f"{name[: _LONGEST_NAME - len(mark) - 1]}…{mark}"


def _storable(text: str | None) -> str | None:
    """Without NUL, which PostgreSQL's text cannot hold; the blob and the event keep it."""
    return text.replace("\0", "\ufffd") if text else text
