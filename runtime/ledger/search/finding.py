"""Finding thoughts by their words: in the index, newest first, and in the tail beyond it."""

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from .. import tables
from ..reading import fetch
from ..reading.filters import Meaning, Narrow
from ..reading.page import Cursor
from .index import current, number_range, tail
from .words import Passage, Words

__all__ = ["excerpts", "search", "thoughts"]

_FIRST, _MOST = 64, 4096
"""Numbers that are taken from the index at a time: few for the newest, more when many are left
out by the filters."""
_AROUND = 60
"""Characters of an excerpt on either side of the word."""


def thoughts() -> sa.Select[*tuple[Any, ...]]:
    """Thoughts with what their run was, for lists."""
    row, run, policy = tables.thought.c, tables.run.c, tables.policy.c
    # Outer joins, so that the thoughts and their index come first in every plan.
    return (
        sa.select(
            row.run_id,
            row.id,
            row.agent,
            run.context,
            run.model,
            policy.name.label("policy"),
            row.operation,
            row.status,
            row.tag,
            row.reading,
            row.reached,
            row.threshold,
            row.action,
            row.tokens,
            row.at,
            row.text,
            row.reason,
        )
        .select_from(tables.thought)
        .outerjoin(tables.run, run.id == row.run_id)
        .outerjoin(tables.policy, policy.digest == run.policy)
    )


def search(
    connection: Connection,
    words: Words,
    narrow: Narrow,
    meaning: Meaning,
    limit: int | None,
    after: Cursor | None,
) -> Sequence[Any]:
    """Thoughts with these words that fit, newest first; what is not indexed yet included."""
    wanted = narrow.of_thought(meaning)
    rows = _of_tail(connection, words, narrow, wanted)
    if current(connection):
        rows += _of_index(connection, words, narrow, wanted, limit, after)
    rows = sorted({_place(row): row for row in rows}.items(), reverse=True)
    below = [row for place, row in rows if after is None or place < after]
    return below[:limit]


def _place(row: Any) -> tuple[str, str, str]:
    return row.at, row.run_id, row.id


def _of_tail(
    connection: Connection,
    words: Words,
    narrow: Narrow,
    wanted: Sequence[sa.ColumnElement[bool]],
) -> list[Any]:
    by_run: dict[str, list[str]] = {}
    for passage in tail(connection, narrow.run):
        if words.match(passage):
            by_run.setdefault(passage.run, []).append(passage.thought)
    row = tables.thought.c
    found: list[Any] = []
    for run, ids in by_run.items():
        for start in range(0, len(ids), _MOST):
            some = row.id.in_(ids[start : start + _MOST])
            found += connection.execute(thoughts().where(row.run_id == run, some, *wanted)).all()
    return found


def _of_index(
    connection: Connection,
    words: Words,
    narrow: Narrow,
    wanted: Sequence[sa.ColumnElement[bool]],
    limit: int | None,
    after: Cursor | None,
) -> list[Any]:
    """At least the newest ``limit`` rows below ``after``; in no order."""
    lowest, highest = _range(connection, narrow, after)
    row, passage = tables.thought.c, tables.passage.c
    joined = sa.and_(row.run_id == passage.run_id, row.id == passage.thought_id)
    found: list[Any] = []
    size = _FIRST if limit is None else min(max(_FIRST, limit + 1), _MOST)
    while lowest is not None and highest is not None and lowest <= highest:
        numbers = _numbers(connection, words, lowest, highest, size)
        if not numbers:
            break
        query = thoughts().join(tables.passage, joined).where(passage.number.in_(numbers), *wanted)
        rows = connection.execute(query).all()
        found += [each for each in rows if after is None or _place(each) < after]
        if len(numbers) < size or _enough(found, limit, numbers[-1]):
            break
        highest, size = numbers[-1] - 1, min(2 * size, _MOST)
    return found


def _enough(found: Sequence[Any], limit: int | None, reached: int) -> bool:
    """Whether the newest ``limit`` are there, and nothing of the same time lies below."""
    if limit is None or len(found) < limit:
        return False
    last = sorted((row.at for row in found), reverse=True)[limit - 1]
    return number_range(last)[0] > reached


def _numbers(
    connection: Connection, words: Words, lowest: int, highest: int, limit: int
) -> list[int]:
    """Passages with these words, newest first."""
    if connection.dialect.name == "sqlite":
        query = sa.text(
            "SELECT rowid FROM passage_words WHERE passage_words MATCH :words "
            "AND rowid BETWEEN :lowest AND :highest ORDER BY rowid DESC LIMIT :limit"
        )
        given = {"words": words.fts5, "lowest": lowest, "highest": highest, "limit": limit}
        return list(connection.execute(query, given).scalars())
    index = sa.table("passage_words", sa.column("number", sa.BigInteger), sa.column("words"))
    query = (
        sa.select(index.c.number)
        .where(index.c.words.op("@@")(words.tsquery), index.c.number.between(lowest, highest))
        .order_by(index.c.number.desc())
        .limit(limit)
    )
    return list(connection.execute(query).scalars())


def _range(
    connection: Connection, narrow: Narrow, after: Cursor | None
) -> tuple[int | None, int | None]:
    """The numbers among which the passages must be."""
    lowest: int | None = -(1 << 63)
    highest: int | None = (1 << 63) - 1
    if narrow.run is not None:
        number = tables.passage.c.number
        query = sa.select(sa.func.min(number), sa.func.max(number))
        query = query.where(tables.passage.c.run_id == narrow.run)
        lowest, highest = connection.execute(query).one()
        if lowest is None or highest is None:
            return None, None
    if narrow.since is not None:
        lowest = max(lowest, number_range(narrow.since)[0])
    for bound in (narrow.until, None if after is None else after[0]):
        if bound is not None:
            highest = min(highest, number_range(bound)[1])
    return lowest, highest


def excerpts(
    connection: Connection, words: Words | None, rows: Sequence[Any]
) -> dict[tuple[str, str], str]:
    """Where the words stand, by run and thought."""
    if words is None:
        return {}
    texts = {(row.run_id, row.id): row.text for row in rows}
    asked = [
        (row.run_id, row.id)
        for row in rows
        if words.field == "prompt"
        or not words.match(Passage(row.run_id, row.id, row.at, row.text, ""))
    ]
    texts |= fetch.prompts(connection, asked)
    return {thought: _excerpt(text, words) for thought, text in texts.items()}


def _excerpt(text: str, words: Words) -> str:
    """The text around the first phrase, on one line."""
    line = " ".join(text.split())
    start, end = words.first(line) or (0, 0)
    first, last = max(0, start - _AROUND), min(len(line), end + _AROUND)
    return ("…" if first else "") + line[first:last] + ("…" if last < len(line) else "")
