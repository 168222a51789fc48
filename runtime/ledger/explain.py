"""Why a thought was cut: the verdict, told from everything that the ledger holds."""

import math
from collections.abc import Sequence

import numpy as np
from sqlalchemy.engine import Connection

from ...gates.verdict import Verdict
from . import fetch, tries
from .replay import Stored, what_would_pass
from .rows import Explanation, ThoughtRow, TokenRow

__all__ = ["explain"]


def explain(connection: Connection, thought: str, run: str, also_in: Sequence[str]) -> Explanation:
    """Everything about the verdict on one thought of one run."""
    about = fetch.runs(connection, [run], None)[0]
    graph = fetch.thoughts(connection, run)
    judged = next(row for row in graph if row.id == thought)
    stored = fetch.stored(connection, judged)
    cause = judged.judgement.cause if isinstance(judged.judgement, Verdict) else None
    rules = fetch.policy(connection, about.policy_digest).rules_for(about.context)
    return Explanation(
        run=about,
        thought=judged,
        prompt=fetch.prompt(connection, run, thought),
        rule=None if cause is None else rules[cause.rule],
        tokens=() if stored is None else tuple(_tokens(judged, stored)),
        siblings=tuple(
            row
            for row in graph
            if row.id != thought
            and row.parents == judged.parents
            and row.operation == judged.operation
        ),
        tries=tuple(tries.tries(connection, graph, judged)),
        switches=tuple(tries.switches(connection, judged)),
        below=_below(graph, thought),
        passes_if=() if stored is None else what_would_pass(stored),
        also_in=tuple(also_in),
    )


def _below(graph: Sequence[ThoughtRow], thought: str) -> int:
    """How many thoughts stand on this one; parents are recorded before their children."""
    reached = {thought}
    for row in graph:
        if not reached.isdisjoint(row.parents):
            reached.add(row.id)
    return len(reached) - 1


def _tokens(thought: ThoughtRow, stored: Stored) -> list[TokenRow]:
    """The tokens of a thought with the probability of each tag before them."""
    evidence, vocabulary = stored.evidence, stored.vocabulary
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
