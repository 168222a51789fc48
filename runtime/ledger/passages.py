"""Full text over what was asked and what was written: the index, its words, and its tail.

One passage stands for each thought that has text. The words are kept in ``passage_words``: an FTS5
index without content on SQLite, ``tsvector`` with GIN on PostgreSQL; the texts themselves stay in
their blobs. Indexing happens behind the commits that it follows, so for each run a mark says up to
which event it has come: what lies beyond is the tail, which a search reads itself. A passage's
number grows with its time, so that the newest are found by counting down.
"""

import json
import re
import unicodedata
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Engine

from . import tables
from .chain import from_text
from .errors import LedgerError
from .events import EventKind

__all__ = [
    "Passage",
    "Words",
    "forget",
    "index_some",
    "number_range",
    "rebuild",
    "remember",
    "tail",
]

Field = Literal["text", "prompt"]
"""Where to look: in what was written, or in what was asked."""

_EVENTS = 512
"""Events that one call reads at most: some milliseconds, for which an append may have to wait."""
_LONGEST = 200_000
"""Characters of a text that are indexed; PostgreSQL refuses a tsvector beyond 1 MB."""
_EPOCH = datetime(2025, 1, 1, tzinfo=UTC)
_TIES = 10
"""Bits of a number that tell passages of the same microsecond apart."""
_LARGEST = (1 << 63 - _TIES - 1) - 1
"""Microseconds that a number has room for: 285 years either way."""

_WORD = re.compile(r"[^\W_]+")
_ASCII = str.maketrans(
    {code: chr(code).lower() if chr(code).isalnum() else " " for code in range(128)}
)
_ASKED = re.compile(r'"([^"]*)"|([^\s"]+)')
_TEXTS = (EventKind.JUDGED.value, EventKind.PLACED.value)

_INSERT = sa.text(
    "INSERT INTO passage_words (rowid, text, prompt) VALUES (:number, :text, :prompt)"
)
_INSERT_POSTGRESQL = sa.text(
    "INSERT INTO passage_words (number, words) VALUES (:number, "
    "setweight(to_tsvector('simple', :text), 'A') || "
    "setweight(to_tsvector('simple', :prompt), 'B'))"
)
_FORGET = sa.text(
    "INSERT INTO passage_words (passage_words, rowid, text, prompt) "
    "VALUES ('delete', :number, :text, :prompt)"
)


@dataclass(frozen=True, slots=True)
class Passage:
    """What one thought said and was asked, to be searched."""

    run: str
    thought: str
    at: str
    text: str
    prompt: str


@dataclass(frozen=True, slots=True)
class Words:
    """What is searched for: words and phrases, all of which must be there.

    Words are letters and digits; everything else separates them. Case and accents do not count.
    """

    phrases: tuple[tuple[str, ...], ...]
    field: Field | None
    """Only in what was written, or only in what was asked; else in either."""

    @classmethod
    def of(cls, asked: str, field: Field | None = None) -> "Words":
        """Read ``plain words`` and ``"quoted phrases"``; an open quote ends with the text.

        Raises :class:`LedgerError` where there is nothing to look for.
        """
        closed = asked + '"' * (asked.count('"') % 2)
        phrases = tuple(
            words
            for quoted, plain in _ASKED.findall(closed)
            if (words := tuple(_plain(quoted or plain).split()))
        )
        if not phrases:
            raise LedgerError(f"there is no word to look for in {asked!r}: write letters or digits")
        return cls(phrases, field)

    @property
    def fts5(self) -> str:
        """As SQLite's FTS5 reads it; letters and digits alone, so it is always well formed."""
        query = " AND ".join(f'"{" ".join(phrase)}"' for phrase in self.phrases)
        return query if self.field is None else f"{self.field} : ({query})"

    @property
    def tsquery(self) -> sa.ColumnElement[Any]:
        """As PostgreSQL reads it."""
        label = {None: "", "text": ":A", "prompt": ":B"}[self.field]
        spelt = [" <-> ".join(f"'{word}'{label}" for word in phrase) for phrase in self.phrases]
        return sa.func.to_tsquery(sa.text("'simple'"), " & ".join(f"({each})" for each in spelt))

    def match(self, passage: Passage) -> bool:
        """Whether they all are in a passage; what the index would say of it."""
        fields = (passage.text, passage.prompt)
        chosen = {None: fields, "text": fields[:1], "prompt": fields[1:]}[self.field]
        spelt = [f" {' '.join(_plain(text[:_LONGEST]).split())} " for text in chosen]
        return all(
            any(f" {' '.join(phrase)} " in text for text in spelt) for phrase in self.phrases
        )


def index_some(connection: Connection) -> int:
    """Index the next thoughts; how many events were read, 0 when nothing is left to do.

    For a writer's idle moments, in a transaction of its own of some milliseconds.
    """
    run = connection.execute(_open_runs().limit(1)).first()
    if run is None:
        return 0
    found, upto = _passages(connection, run.run_id, run.upto, _EVENTS)
    _add(connection, found)
    connection.execute(
        sa.update(tables.passage_mark)
        .where(tables.passage_mark.c.run_id == run.run_id)
        .values(upto=upto, settled=_ended(connection, run.run_id, upto))
    )
    return upto - run.upto


def tail(connection: Connection, run: str | None = None) -> Iterator[Passage]:
    """What is not indexed yet, of one run or of all."""
    query = _open_runs()
    if run is not None:
        query = query.where(tables.passage_mark.c.run_id == run)
    for mark in connection.execute(query).all():
        upto: int = mark.upto
        while True:
            found, reached = _passages(connection, mark.run_id, upto, _EVENTS)
            if reached == upto:
                break
            yield from found
            upto = reached


def forget(connection: Connection, run: str, thoughts: Sequence[str]) -> None:
    """Take thoughts out of the index, so that it holds no word of theirs; for an erasure.

    To be called while the bytes are still there: SQLite's index is told what to forget.
    """
    table = tables.passage
    chosen = sa.and_(table.c.run_id == run, table.c.thought_id.in_(thoughts))
    rows = connection.execute(sa.select(table.c.thought_id, table.c.number).where(chosen)).all()
    if not rows:
        return
    numbers: dict[str, int] = {row.thought_id: row.number for row in rows}
    if connection.dialect.name == "sqlite":
        for passage in _of_thoughts(connection, run, list(numbers)):
            connection.execute(_FORGET, _words_row(passage, numbers[passage.thought]))
        # A deletion is a note in the index until its parts are merged.
        connection.execute(sa.text("INSERT INTO passage_words (passage_words) VALUES ('optimize')"))
    else:
        connection.execute(
            sa.text("DELETE FROM passage_words WHERE number = ANY(:numbers)"),
            {"numbers": list(numbers.values())},
        )
    connection.execute(sa.delete(table).where(chosen))


def remember(connection: Connection, run: str, thoughts: Sequence[str]) -> None:
    """Index again what is left of thoughts that were forgotten; what was never indexed waits."""
    row, mark, passage = tables.thought.c, tables.passage_mark.c, tables.passage.c
    there = sa.exists().where(passage.run_id == row.run_id, passage.thought_id == row.id)
    query = (
        sa.select(row.id)
        .join(tables.passage_mark, mark.run_id == row.run_id)
        .where(row.run_id == run, row.id.in_(thoughts), row.seq <= mark.upto, ~there)
    )
    gone = list(connection.execute(query).scalars())
    _add(connection, _of_thoughts(connection, run, gone))


def rebuild(engine: Engine) -> None:
    """Make the index anew. ``engine`` must be open for writing."""
    with engine.begin() as connection:
        _clear(connection)
    left = 1
    while left:
        with engine.begin() as connection:
            left = index_some(connection)


def _clear(connection: Connection) -> None:
    """Empty the index and put every mark back to the start."""
    if connection.dialect.name == "sqlite":
        connection.execute(
            sa.text("INSERT INTO passage_words (passage_words) VALUES ('delete-all')")
        )
    else:
        connection.execute(sa.text("DELETE FROM passage_words"))
    mark = tables.passage_mark
    connection.execute(sa.delete(tables.passage))
    connection.execute(sa.delete(mark))
    runs = sa.select(tables.run.c.id, sa.literal(-1), sa.false())
    connection.execute(sa.insert(mark).from_select(["run_id", "upto", "settled"], runs))


def number_range(at: str) -> tuple[int, int]:
    """The lowest and the highest number that a passage of this time may have."""
    past = datetime.fromisoformat(at) - _EPOCH
    microseconds = (past.days * 86_400 + past.seconds) * 1_000_000 + past.microseconds
    lowest = max(-_LARGEST, min(_LARGEST, microseconds)) << _TIES
    return lowest, lowest + (1 << _TIES) - 1


def _open_runs() -> sa.Select[*tuple[Any, ...]]:
    """Runs with events beyond their mark, newest first."""
    mark, event = tables.passage_mark.c, tables.event.c
    beyond = sa.exists().where(event.run_id == mark.run_id, event.seq > mark.upto)
    # Spelt as the partial index spells it, so that it serves.
    return (
        sa.select(mark.run_id, mark.upto)
        .where(sa.text("NOT passage_mark.settled"), beyond)
        .order_by(mark.run_id.desc())
    )


def _ended(connection: Connection, run: str, upto: int) -> bool:
    """Whether no text can follow: the run is finished, and nothing lies beyond."""
    event = tables.event.c
    last = sa.select(sa.func.max(event.seq)).where(event.run_id == run)
    # The kinds are spelt out, so that their partial indexes serve.
    finished = connection.execute(last.where(sa.text("event.kind = 'run_finished'"))).scalar()
    resumed = connection.execute(last.where(sa.text("event.kind = 'resumed'"))).scalar()
    if finished is None or finished < (-1 if resumed is None else resumed):
        return False
    return connection.execute(last).scalar() == upto


def _passages(connection: Connection, run: str, upto: int, limit: int) -> tuple[list[Passage], int]:
    """The passages among the next events after ``upto``, and the last event that was read."""
    event = tables.event.c
    query = (
        sa.select(event.seq, event.kind, event.thought_id, event.at, event.blobs)
        .where(event.run_id == run, event.seq > upto)
        .order_by(event.seq)
        .limit(limit)
    )
    rows = connection.execute(query).all()
    if not rows:
        return [], upto
    asked = {
        row.thought_id: from_text(row.blobs)["prompt"]
        for row in rows
        if row.kind == EventKind.MODEL_INTENDED
    }
    return _read(connection, run, rows, asked), rows[-1].seq


def _of_thoughts(connection: Connection, run: str, thoughts: Sequence[str]) -> list[Passage]:
    event = tables.event.c
    query = (
        sa.select(event.seq, event.kind, event.thought_id, event.at, event.blobs)
        .where(event.run_id == run, event.thought_id.in_(thoughts))
        .order_by(event.seq)
    )
    return _read(connection, run, connection.execute(query).all(), {})


def _read(
    connection: Connection, run: str, events: Sequence[Any], asked: Mapping[str, str]
) -> list[Passage]:
    """The passages of those events that bring a text; ``asked`` are prompts known by thought."""
    made = [row for row in events if row.kind in _TEXTS]
    named = {row.thought_id: from_text(row.blobs)["text"] for row in made}
    earlier = [row.thought_id for row in made if row.thought_id not in asked]
    prompts = {**asked, **_prompts(connection, run, earlier)}
    wanted = [*named.values(), *(prompts[id] for id in named if id in prompts)]
    blob = tables.blob.c
    rows = connection.execute(sa.select(blob.digest, blob.bytes).where(blob.digest.in_(wanted)))
    content: dict[str, bytes] = {row.digest: row.bytes for row in rows}
    return [
        Passage(
            run=run,
            thought=row.thought_id,
            at=row.at,
            text=content.get(named[row.thought_id], b"").decode("utf-8", "replace"),
            prompt=_prompt_text(content.get(prompts.get(row.thought_id, ""), b"")),
        )
        for row in made
    ]


def _prompts(connection: Connection, run: str, thoughts: Sequence[str]) -> dict[str, str]:
    """The digest of what the model was asked for these thoughts; the last time, if several."""
    if not thoughts:
        return {}
    event = tables.event.c
    query = sa.select(event.thought_id, event.blobs).where(
        event.run_id == run,
        event.thought_id.in_(thoughts),
        event.kind == EventKind.MODEL_INTENDED.value,
    )
    rows = connection.execute(query.order_by(event.seq)).all()
    return {row.thought_id: from_text(row.blobs)["prompt"] for row in rows}


def _prompt_text(content: bytes) -> str:
    """The text of a prompt's JSON, ``{"ids":[…],"text":"…"}``, without reading the ids."""
    _, _, text = content.partition(b'],"text":')
    return json.loads(text[:-1]) if text else ""


def _add(connection: Connection, passages: Sequence[Passage]) -> None:
    spoken = [passage for passage in passages if passage.text or passage.prompt]
    if not spoken:
        return
    numbered = _numbered(connection, spoken)
    rows = [
        {"number": n, "run_id": p.run, "thought_id": p.thought, "at": p.at} for n, p in numbered
    ]
    connection.execute(sa.insert(tables.passage), rows)
    insert = _INSERT if connection.dialect.name == "sqlite" else _INSERT_POSTGRESQL
    connection.execute(insert, [_words_row(passage, number) for number, passage in numbered])


def _numbered(connection: Connection, passages: Sequence[Passage]) -> list[tuple[int, Passage]]:
    """Each with a number of its own, in their order: FTS5 writes fastest upwards."""
    wanted = [
        number_range(passage.at)[0]
        + zlib.crc32(f"{passage.run}/{passage.thought}".encode()) % (1 << _TIES)
        for passage in passages
    ]
    table = tables.passage.c
    query = sa.select(table.number).where(table.number.in_(wanted))
    taken = set(connection.execute(query).scalars())
    numbered: list[tuple[int, Passage]] = []
    for passage, number in zip(passages, wanted, strict=True):
        while number in taken:  # two in one microsecond that drew the same bits, or a clock at rest
            number += 1
            if number not in taken and _is_taken(connection, number):
                taken.add(number)
        taken.add(number)
        numbered.append((number, passage))
    return sorted(numbered, key=lambda pair: pair[0])


def _is_taken(connection: Connection, number: int) -> bool:
    query = sa.select(tables.passage.c.number).where(tables.passage.c.number == number)
    return connection.execute(query).first() is not None


def _words_row(passage: Passage, number: int) -> dict[str, Any]:
    return {
        "number": number,
        "text": _plain(passage.text[:_LONGEST]),
        "prompt": _plain(passage.prompt[:_LONGEST]),
    }


def _plain(text: str) -> str:
    """Its words in lower case without accents, blanks between: what both databases index."""
    if text.isascii():
        return text.translate(_ASCII)
    decomposed = unicodedata.normalize("NFKD", text)
    bare = "".join(sign for sign in decomposed if not unicodedata.combining(sign))
    return " ".join(_WORD.findall(bare.lower()))
