"""From events to the rows that people query. Pure: the tables can be rebuilt from the chain."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from ...agents.thought import Status
from ...gates.reading import Reading
from ...gates.verdict import Action
from .chain import plain_text
from .events import EventKind
from .text import shown

__all__ = [
    "CHANGING",
    "Change",
    "changes",
    "decision_row",
    "indexed",
    "tag_score_rows",
    "thought_row",
    "told",
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
    """What a later event changes of one thought's row, or of one decision's."""

    columns: Mapping[str, Any]
    """The new values, by column."""
    thought: str | None = None
    """The thought's id, or None where ``seq`` names the row."""
    seq: int | None = None
    """The event that recorded the thought or the decision."""
    table: Literal["thought", "decision"] = "thought"


def told(body: Body, words: Mapping[str, str]) -> Body:
    """An event's body with the words that its blobs keep for it, so that they can be erased:
    ``reason``, why a thought came to nothing or waits, and ``note``, what a person wrote."""
    said = words.get("reason", words.get("note"))
    return body if said is None else {**body, "reason": said}


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
        shown(body["operation"]),
        body["kind"],
        body["depth"],
        body["index"],
        event["attempt"],
        body["status"],
        body["scope"],
        shown(text),
        value,
        body["score"],
        body["tokens"],
        event["latency_s"],
        _shown(body["acted"]),
        _shown(body["reason"] or judgement.get("broken")),
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
        event["actor"],
        body["approve"],
        body["about"],
        shown(body["reason"]),
    )


def changes(event: Mapping[str, Any], body: Body) -> list[Change]:
    """What an event changes of thoughts that are there already."""
    thought = event["thought_id"]
    match EventKind(event["kind"]):
        case EventKind.SCORED:
            return [Change({"score": body["score"]}, thought)]
        case EventKind.SELECTED:
            fate = {"status": Status.DROPPED.value, "reason": shown(body["reason"])}
            return [Change(fate, id) for id in body["dropped"]]
        case EventKind.BACKED_UP:
            columns = {"reason": shown(body["reason"])}
            if body.get("approved"):  # what a person let pass goes on as another thought
                columns["status"] = Status.DROPPED.value
            return [Change(columns, thought)]
        case EventKind.ESCALATED:
            reason = shown(body["reason"])
            return [Change({"status": Status.ESCALATED.value, "reason": reason}, thought)]
        case EventKind.DECIDED:
            status, word = decided(body)
            reason = shown(f"{word} by {event['actor']}: {body['reason']}")
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
    """What is left of thoughts and decisions whose words were erased."""
    said = {"reason": shown(f"erased: {body['reason']}")}
    changes: list[Change] = []
    for erased in body["blobs"].values():
        seq, thought = erased["seq"], erased.get("thought")
        match erased["name"]:
            case "text":
                changes.append(Change({"text": "", **said}, seq=seq))
            case "value":
                changes.append(Change({"value": None, **said}, seq=seq))
            case "reason" if thought is not None:
                changes.append(Change(said, thought))
            case "note":
                changes.append(Change({"reason": ""}, seq=seq, table="decision"))
                changes.append(Change(said, thought))
            case _:
                pass
    return changes


def _shown(text: str | None) -> str | None:
    return None if text is None else shown(text)


def indexed(name: str) -> str:
    """An agent's or a tag's name as the derived tables have it: a very long one ends in a digest.

    The events have it whole.
    """
    whole = shown(name)
    if len(whole) <= _LONGEST_NAME:
        return whole
    mark = hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()
    return f"{whole[: _LONGEST_NAME - len(mark) - 1]}…{mark}"
