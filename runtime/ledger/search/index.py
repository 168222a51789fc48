"""Full text over what was asked and what was written: the index, its words, and its tail.

One passage stands for each thought that has text. The words are kept in ``passage_words``: an FTS5
index without content on SQLite, ``tsvector`` with GIN on PostgreSQL; the texts themselves stay in
their blobs. Indexing happens behind the commits that it follows, so for each run a mark says up to
which event it has come: what lies beyond is the tail, which a search reads itself. A passage's
number grows with its time, so that the newest are found by counting down.

The index says by which rule its words are spelt, in a row of its own. One of another rule, as an
older version made it, is not asked: everything is the tail then, until it is made anew.
"""

import json
import zlib
from collections.abc import Collection, Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Engine
from sqlalchemy.exc import IntegrityError

from .. import tables
from ..events import EventKind
from .words import Passage, plain, vector

__all__ = [
    "OVERFLOW",
    "catch_up",
    "current",
    "forget",
    "index_some",
    "number_range",
    "rebuild",
    "remember",
    "tail",
    "take_turn",
]

_EVENTS = 512
"""Events that one call reads at most: some milliseconds, for which an append may have to wait."""
_MANY = 8192
"""The same where nobody waits."""
_EPOCH = datetime(2025, 1, 1, tzinfo=UTC)
_TIES = 10
"""Bits of a number that tell passages of the same microsecond apart."""
OVERFLOW = 1 << _TIES
"""How far beyond its time's numbers a passage may stand, where a microsecond has too many."""
_LARGEST = (1 << 63 - _TIES - 1) - 1
"""Microseconds that a number has room for: 285 years either way."""

_RULE = "spelling2"
"""By which rule :mod:`.words` spells words; to be changed whenever it is."""
_RULE_NUMBER = -(1 << 63)
"""The number of the row that says it, which no passage has."""

_INDEXING = 0x5EC47E1
"""PostgreSQL's advisory lock for who indexes; SQLite has one writer at a time anyway."""

_TOLD = (EventKind.MODEL_INTENDED.value, EventKind.JUDGED.value, EventKind.PLACED.value)

_PLACE = "INSERT INTO passage (number, run_id, thought_id) VALUES (?, ?, ?)"
_INSERT = "INSERT INTO passage_words (rowid, text, prompt) VALUES (?, ?, ?)"
_INSERT_POSTGRESQL = "INSERT INTO passage_words (number, words) VALUES (%s, %s::tsvector)"
_FORGET = sa.text(
    "INSERT INTO passage_words (passage_words, rowid, text, prompt) "
    "VALUES ('delete', :number, :text, :prompt)"
)


def take_turn(connection: Connection) -> bool:
    """Whether nobody else indexes; then nobody does until this transaction ends."""
    if connection.dialect.name == "sqlite":
        return True
    query = sa.text("SELECT pg_try_advisory_xact_lock(:key)")
    return bool(connection.execute(query, {"key": _INDEXING}).scalar())


def _wait_for_turn(connection: Connection) -> None:
    if connection.dialect.name == "postgresql":
        connection.execute(sa.text("SELECT pg_advisory_xact_lock(:key)"), {"key": _INDEXING})


def index_some(connection: Connection, limit: int = _EVENTS) -> int:
    """Index the next thoughts, up to so many events; 0 when nothing is left to do.

    For a writer's idle moments, in a transaction of its own of some milliseconds, in which it is
    its turn.
    """
    if not _renewed(connection):
        return 0
    run = connection.execute(_open_runs().limit(1)).first()
    if run is None:
        return 0
    return _index_more(connection, run.run_id, run.upto, limit) - run.upto


def catch_up(connection: Connection, run: str) -> None:
    """Index all of one run, so that nobody indexes old words of it later; before an erasure."""
    _wait_for_turn(connection)
    _renewed(connection)
    mark = tables.passage_mark
    query = sa.select(mark.c.upto).where(mark.c.run_id == run)
    upto: int | None = connection.execute(query).scalar()
    while upto is not None:
        reached = _index_more(connection, run, upto, _MANY)
        if reached == upto:
            break
        upto = reached


def tail(connection: Connection, run: str | None = None) -> Iterator[Passage]:
    """What is not indexed yet, of one run or of all."""
    mark = tables.passage_mark.c
    known = current(connection)
    query = _open_runs() if known else sa.select(mark.run_id, sa.literal(-1).label("upto"))
    if run is not None:
        query = query.where(mark.run_id == run)
    for row in connection.execute(query).all():
        upto: int = row.upto
        while True:
            found, reached = _passages(connection, row.run_id, upto, _EVENTS)
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
            text, prompt = plain(passage.text), plain(passage.prompt)
            row = {"number": numbers[passage.thought], "text": text, "prompt": prompt}
            connection.execute(_FORGET, row)
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
        _wait_for_turn(connection)
        _clear(connection)
    left = 1
    while left:
        with engine.begin() as connection:
            _wait_for_turn(connection)
            left = index_some(connection, _MANY)


def current(connection: Connection) -> bool:
    """Whether the index is spelt by this version's rule."""
    if connection.dialect.name == "sqlite":
        query = "SELECT 1 FROM passage_words WHERE passage_words MATCH :rule AND rowid = :number"
    else:
        query = (
            "SELECT 1 FROM passage_words WHERE number = :number AND words = CAST(:rule AS tsvector)"
        )
    said = {"rule": _RULE, "number": _RULE_NUMBER}
    return connection.execute(sa.text(query), said).first() is not None


def _renewed(connection: Connection) -> bool:
    """Whether the index is spelt by this version's rule now; one of another is emptied first."""
    if current(connection):
        return True
    used = connection.execute(sa.select(tables.passage.c.number).limit(1)).first() is not None
    if used and not _may_clear(connection):
        return False
    if used:
        _clear(connection)
    else:
        _say_rule(connection)
    return True


def _may_clear(connection: Connection) -> bool:
    """Whether this role may empty the index: on PostgreSQL, who only runs agents may not."""
    if connection.dialect.name == "sqlite":
        return True
    query = "SELECT has_table_privilege('passage_words', 'DELETE')"
    return bool(connection.execute(sa.text(query)).scalar())


def _say_rule(connection: Connection) -> None:
    if connection.dialect.name == "sqlite":
        connection.exec_driver_sql(_INSERT, (_RULE_NUMBER, _RULE, ""))
    else:
        once = f"{_INSERT_POSTGRESQL} ON CONFLICT DO NOTHING"
        connection.exec_driver_sql(once, (_RULE_NUMBER, _RULE))


def _index_more(connection: Connection, run: str, upto: int, limit: int) -> int:
    """Index a run's next events behind ``upto``, and move its mark there; the last event read."""
    found, reached = _passages(connection, run, upto, limit)
    _add(connection, found)
    mark = tables.passage_mark
    connection.execute(
        sa.update(mark)
        .where(mark.c.run_id == run)
        .values(upto=reached, settled=_ended(connection, run, reached))
    )
    return reached


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
    _say_rule(connection)


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
    window = sa.select(event.seq).where(event.run_id == run, event.seq > upto)
    last = connection.execute(
        sa.select(sa.func.max(sa.text("seq"))).select_from(
            window.order_by(event.seq).limit(limit).subquery()
        )
    ).scalar()
    if last is None:
        return [], upto
    return _read(connection, run, event.seq.between(upto + 1, last)), last


def _of_thoughts(connection: Connection, run: str, thoughts: Sequence[str]) -> list[Passage]:
    return _read(connection, run, tables.event.c.thought_id.in_(thoughts))


def _read(connection: Connection, run: str, wanted: sa.ColumnElement[bool]) -> list[Passage]:
    """The passages of those events of a run that bring a text."""
    event, blob = tables.event.c, tables.blob
    query = (
        sa.select(event.kind, event.thought_id, event.at, blob.c.bytes)
        .select_from(tables.event)
        .outerjoin(blob, blob.c.digest == _named(connection.dialect.name))
        .where(event.run_id == run, wanted, event.kind.in_(_TOLD))
        .order_by(event.seq)
    )
    prompts: dict[str, bytes] = {}
    texts: dict[str, tuple[str, bytes]] = {}
    for kind, thought, at, content in connection.execute(query):
        if kind == EventKind.MODEL_INTENDED:
            prompts[thought] = content or b""
        else:
            texts[thought] = at, content or b""
    earlier = [thought for thought in texts if thought not in prompts]
    if earlier:
        prompts |= _prompts(connection, run, earlier)
    return [
        Passage(
            run=run,
            thought=thought,
            at=at,
            text=text.decode("utf-8", "replace"),
            prompt=_prompt_text(prompts.get(thought, b"")),
        )
        for thought, (at, text) in texts.items()
    ]


def _named(dialect: str) -> sa.ColumnElement[str]:
    """The digest of an event's prompt or text, taken out of its JSON."""
    event = tables.event.c
    asked = event.kind == EventKind.MODEL_INTENDED.value
    if dialect == "postgresql":
        named = sa.cast(event.blobs, sa.JSON)
        return sa.case((asked, named["prompt"].as_string()), else_=named["text"].as_string())
    path = sa.case((asked, "$.prompt"), else_="$.text")
    return sa.func.json_extract(event.blobs, path, type_=sa.Text)


def _prompts(connection: Connection, run: str, thoughts: Sequence[str]) -> dict[str, bytes]:
    """What the model was asked for these thoughts; the last time, if several."""
    event, blob = tables.event.c, tables.blob
    query = (
        sa.select(event.seq, event.thought_id, blob.c.bytes)
        .select_from(tables.event)
        .join(blob, blob.c.digest == _named(connection.dialect.name))
        .where(
            event.run_id == run,
            event.thought_id.in_(thoughts),
            event.kind == EventKind.MODEL_INTENDED.value,
        )
    )
    # Sorted here: asked for in order, SQLite would walk through the whole run.
    rows = sorted(connection.execute(query).all(), key=lambda row: row.seq)
    return {row.thought_id: row.bytes for row in rows}


def _prompt_text(content: bytes) -> str:
    """The text of a prompt's JSON, ``{"ids":[…],"text":"…"}``, where possible without its ids.

    Nothing, where it was erased or damaged: that is for the verification to say.
    """
    _, _, text = content.partition(b'],"text":')
    try:
        return str(json.loads(text[:-1]) if text else json.loads(content)["text"])
    except (ValueError, KeyError, TypeError):
        return ""


def _add(connection: Connection, passages: Sequence[Passage]) -> None:
    spoken = [passage for passage in passages if passage.text or passage.prompt]
    if not spoken:
        return
    sqlite = connection.dialect.name == "sqlite"
    statement = _PLACE if sqlite else _PLACE.replace("?", "%s")
    numbered = _numbered(spoken, {})
    try:
        with connection.begin_nested():
            connection.exec_driver_sql(statement, _places(numbered))
    except IntegrityError:  # another run has a passage of the same microsecond and the same bits
        numbered = _numbered(spoken, _taken(connection, spoken))
        connection.exec_driver_sql(statement, _places(numbered))
    if sqlite:
        words = [(number, plain(each.text), plain(each.prompt)) for number, each in numbered]
        connection.exec_driver_sql(_INSERT, words)
    else:
        vectors = [(number, vector(each)) for number, each in numbered]
        connection.exec_driver_sql(_INSERT_POSTGRESQL, vectors)


def _places(numbered: Sequence[tuple[int, Passage]]) -> list[tuple[int, str, str]]:
    return [(number, passage.run, passage.thought) for number, passage in numbered]


def _numbered(passages: Sequence[Passage], taken: Collection[int]) -> list[tuple[int, Passage]]:
    """Each with a number of its own, upwards: so FTS5 writes fastest."""
    known = set(taken)
    numbered: list[tuple[int, Passage]] = []
    for passage in passages:
        bits = zlib.crc32(f"{passage.run}/{passage.thought}".encode()) % (1 << _TIES)
        try:
            number = number_range(passage.at)[0] + bits
        except ValueError:  # no time: that is for the verification to say
            number = bits
        while number in known:  # a clock at rest, or two that drew the same bits
            number += 1
        known.add(number)
        numbered.append((number, passage))
    return sorted(numbered, key=lambda pair: pair[0])


def _taken(connection: Connection, passages: Sequence[Passage]) -> set[int]:
    """Numbers that passages of these times have already."""
    number = tables.passage.c.number
    taken: set[int] = set()
    for at in {passage.at for passage in passages}:
        low, high = number_range(at)
        # Beyond the range too: a microsecond with more passages than it has numbers overflows.
        near = sa.select(number).where(number.between(low, high + OVERFLOW))
        taken.update(connection.execute(near).scalars())
    return taken
