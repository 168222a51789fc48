"""Why a thought was cut: the verdict, told from everything that the ledger holds."""

import math
from collections.abc import Sequence

import numpy as np
import sqlalchemy as sa
from sqlalchemy.engine import Connection

from ....agents.thought import Status
from ....gates.rule import Rule
from ....gates.unicode import well_formed
from ....gates.verdict import Verdict
from .. import tables
from ..chain import as_text, from_text
from ..errors import LedgerError
from ..events import EventKind
from . import fetch, tries
from .answers import ThoughtRow
from .calls import calls_of
from .explanation import DecisionRow, Explanation, TokenRow
from .replay import Bound, Stored, what_would_pass

__all__ = ["explain"]

_NEAR = 10
"""Children on either side that are shown."""
_MOST = 200
"""Thoughts that are looked at there: a child may have been tried many times."""


def explain(connection: Connection, thought: str, run: str, also_in: Sequence[str]) -> Explanation:
    """Everything about the verdict on one thought of one run."""
    (about,) = fetch.run_rows(connection, [run])
    found = fetch.thoughts(connection, run, thought)
    if not found:
        raise LedgerError(fetch.damaged(f"run {run}"))
    judged = found[0]
    bound = fetch.bound(connection, run)
    cause = judged.judgement.cause if isinstance(judged.judgement, Verdict) else None
    rule = None if cause is None else bound.policy.rules_for(bound.context)[cause.rule]
    near = _near(connection, judged)
    fetch.confirmed(connection, run, [thought, *(row.id for row in near)])
    alike = [row for row in near if (row.index, row.operation) == (judged.index, judged.operation)]
    events = tries.events_of(connection, run, [row.id for row in alike])
    asked = _asked(events.get(thought, ()))
    blobs = fetch.contents(connection, [each for each in (asked, judged.evidence) if each])
    prompt = None if asked is None else blobs[asked]
    stored = fetch.stored(judged, bound, blobs)
    siblings = tuple(row for row in near if row.id != thought)
    (call,) = calls_of(connection, [_called(connection, judged)])
    in_all, below = _counts(connection, judged)
    successor = _successor(connection, judged, siblings)
    if successor is not None and successor not in siblings:
        fetch.confirmed(connection, run, [successor.id])
    return Explanation(
        run=about,
        thought=judged,
        prompt=None if prompt is None else well_formed(from_text(prompt.decode())["text"]),
        call=call,
        approved=judged.approved,
        rule=rule,
        in_place_of=None if rule is None else _replaced(bound, rule),
        decisions=tuple(_decisions(connection, judged)),
        tokens=() if stored is None else tuple(_tokens(judged, stored)),
        siblings=siblings,
        siblings_in_all=in_all,
        tries=tuple(tries.tries(connection, alike, events)),
        switches=tuple(tries.switches(events, thought)),
        below=below,
        successor=successor,
        passes_if=() if stored is None else what_would_pass(stored),
        also_in=tuple(also_in),
    )


def _called(connection: Connection, thought: ThoughtRow) -> tries.Event:
    """The event that holds a thought's tool call: that of the call itself, or its judgement."""
    event = tables.event
    kind = EventKind.JUDGED if thought.acted is None else EventKind.TOOL_INTENDED
    query = sa.select(event).where(
        event.c.run_id == thought.run,
        event.c.thought_id == thought.id,
        event.c.kind == kind.value,
    )
    found = connection.execute(query).mappings().first()
    return found or {"kind": EventKind.PLACED, "body": "{}", "blobs": "{}"}


def _asked(events: Sequence[tries.Event]) -> str | None:
    """The digest of what the model was asked the last time; None where it was not."""
    asked = [each for each in events if each["kind"] == EventKind.MODEL_INTENDED]
    return from_text(asked[-1]["blobs"])["prompt"] if asked else None


def _replaced(bound: Bound, rule: Rule) -> Rule | None:
    """The policy's own rule that the run's context put another in place of."""
    policy = bound.policy
    override = policy.contexts.get(bound.context) if bound.context is not None else None
    if override is None or rule not in override.rules:
        return None
    return next((each for each in policy.rules if each.identity == rule.identity), None)


def _decisions(connection: Connection, thought: ThoughtRow) -> list[DecisionRow]:
    """From the events themselves, whose hashes were checked."""
    event = tables.event
    query = sa.select(event).where(
        event.c.run_id == thought.run,
        event.c.thought_id == thought.id,
        event.c.kind == EventKind.DECIDED.value,
    )
    rows = connection.execute(query.order_by(event.c.seq)).mappings().all()
    return [
        DecisionRow(
            seq=row["seq"],
            at=row["at"],
            by=row["actor"],
            approve=body["approve"],
            about=body["about"],
            outcome=body.get("outcome"),
            reason=body["reason"],
        )
        for row, body in zip(rows, fetch.bodies(connection, rows), strict=True)
    ]


def _near(connection: Connection, thought: ThoughtRow) -> list[ThoughtRow]:
    """The children of the same parents on either side, with every try at the same one."""
    row = tables.thought.c
    found = fetch.thought_rows(
        connection,
        thought.run,
        tries.place(thought.parents),
        # All there are, so that the index leads to the child.
        row.status.in_([status.value for status in Status]),
        row.child.between(thought.index - _NEAR, thought.index + _NEAR),
        limit=_MOST,
    )
    return sorted(found, key=lambda each: (each.index, each.attempt))


def _successor(
    connection: Connection, thought: ThoughtRow, near: Sequence[ThoughtRow]
) -> ThoughtRow | None:
    """The sibling that was kept: the first made after it, or else one made before."""
    if thought.status is Status.KEPT:
        return None
    kept = [row for row in near if row.status is Status.KEPT and row.operation == thought.operation]
    if not kept:
        row = tables.thought.c
        kept = fetch.thought_rows(
            connection,
            thought.run,
            tries.place(thought.parents),
            row.status == Status.KEPT.value,
            row.operation == thought.operation,
            limit=_NEAR,
            by=row.child,
        )
    return min(kept, key=lambda row: (row.at <= thought.at, row.at), default=None)


def _counts(connection: Connection, thought: ThoughtRow) -> tuple[int, int]:
    """How many others came of the same parents, and how many were made directly from it."""
    row = tables.thought.c
    count = sa.select(sa.func.count()).select_from(tables.thought)
    count = count.where(row.run_id == thought.run)
    merges = count.where(
        # Spelt as the partial index spells it: in a merge, it may be any of the parents.
        sa.text("thought.parents LIKE '%,%'"),
        row.parents.contains(as_text(thought.id), autoescape=True),
    )
    places = (tries.place(thought.parents), tries.place((thought.id,)))
    query = sa.select(*(count.where(place).scalar_subquery() for place in places))
    beside, alone, merged = connection.execute(query.add_columns(merges.scalar_subquery())).one()
    return beside - 1, alone + merged


def _tokens(thought: ThoughtRow, stored: Stored) -> list[TokenRow]:
    """The tokens of a thought with the probability of each tag before them."""
    evidence, vocabulary = stored.evidence, stored.bound.vocabulary
    spelt = {id: literal for literal, id in vocabulary.ids.items()}
    columns = {column.token: column for column in vocabulary.vocabulary.columns}
    opening = [
        (place, columns[token].tag)
        for place, token in enumerate(evidence.columns)
        if token in columns and columns[token].role == "open"
    ]
    p = np.exp(evidence.belief.astype(np.float64))
    ends = (*evidence.offsets[1:], len(thought.text))
    cause = thought.judgement.cause if isinstance(thought.judgement, Verdict) else None
    rows: list[TokenRow] = []
    for place, (id, start, end) in enumerate(
        zip(evidence.token_ids, evidence.offsets, ends, strict=True)
    ):
        sums: dict[str, float] = {}
        for column, tag in opening:
            sums[tag] = sums.get(tag, 0.0) + float(p[place, column])
        temptations = {tag: p if math.isfinite(p) else None for tag, p in sums.items()}
        convicts = cause is not None and cause.start <= place < cause.end
        rows.append(TokenRow(spelt.get(id) or thought.text[start:end], temptations, convicts))
    return rows
