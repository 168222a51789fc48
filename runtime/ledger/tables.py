"""The ledger's tables, in types that SQLite and PostgreSQL share.

Append-only: ``run``, ``event``, ``blob``, ``policy``, ``checkpoint``, ``erasure`` (triggers refuse
UPDATE, DELETE, TRUNCATE and replacement; a blob alone may be emptied, and only when ``erasure``
names it). Derived from the events and rebuildable: ``thought``, ``tag_score``, ``decision``, and
``passage`` with its mark (full text). JSON is canonical text, so that it can be hashed; times are
UTC in ISO 8601 with microseconds, so that they sort as text.
"""

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Double,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    text,
)

__all__ = [
    "APPEND_ONLY",
    "HEAD",
    "blob",
    "checkpoint",
    "decision",
    "erasure",
    "event",
    "in_metadata",
    "metadata",
    "passage",
    "passage_mark",
    "policy",
    "run",
    "tag_score",
    "thought",
]

HEAD = "0003"
"""The revision this version reads and writes; equal to the newest migration's."""

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)

policy = Table(
    "policy",
    metadata,
    Column("digest", String(64), primary_key=True),
    Column("name", Text, nullable=False),
    Column("body", Text, nullable=False),
)
"""Every policy a run was judged by; the digest is the SHA-256 of the body."""

blob = Table(
    "blob",
    metadata,
    Column("digest", String(64), primary_key=True),
    Column("salt", LargeBinary, nullable=False),
    Column("bytes", LargeBinary, nullable=False),
)
"""Prompts, texts, evidence; the digest is SHA-256(salt + bytes), so it gives nothing away."""

run = Table(
    "run",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("agent", Text, nullable=False),
    Column("task", String(64), ForeignKey("blob.digest"), nullable=False),
    Column("context", Text),
    Column("seed", BigInteger, nullable=False),
    Column("policy", String(64), ForeignKey("policy.digest"), nullable=False),
    Column("engine", Text, nullable=False),
    Column("model", Text, nullable=False),
    Column("digests", Text, nullable=False),
    Column("started_at", String(27), nullable=False),
    Index(None, "started_at"),
)
"""One row for each run; how it ended stands in its ``run_finished`` event."""

event = Table(
    "event",
    metadata,
    Column("run_id", String(32), ForeignKey("run.id"), primary_key=True),
    Column("seq", Integer, primary_key=True, autoincrement=False),
    Column("kind", String(32), nullable=False),
    Column("at", String(27), nullable=False),
    Column("monotonic_ns", BigInteger, nullable=False),
    Column("actor", Text, nullable=False),
    Column("thought_id", String(64)),
    Column("attempt", Integer),
    Column("digests", String(64), nullable=False),
    Column("latency_s", Double),
    Column("blobs", Text, nullable=False),
    Column("body", Text, nullable=False),
    Column("prev_hash", String(64), nullable=False),
    Column("hash", String(64), nullable=False),
    CheckConstraint("seq >= 0", name="seq"),
    Index(None, "run_id", "thought_id"),
    Index(
        "ix_event_finished",
        "run_id",
        sqlite_where=text("kind = 'run_finished'"),
        postgresql_where=text("kind = 'run_finished'"),
    ),
    Index(
        "ix_event_resumed",
        "run_id",
        sqlite_where=text("kind = 'resumed'"),
        postgresql_where=text("kind = 'resumed'"),
    ),
)
"""The chain: seq has no gap within a run; each hash covers every other column."""

thought = Table(
    "thought",
    metadata,
    Column("run_id", String(32), ForeignKey("run.id"), primary_key=True),
    Column("id", String(64), primary_key=True),
    Column("seq", Integer, nullable=False),
    Column("at", String(27), nullable=False),
    Column("agent", Text, nullable=False),
    Column("parents", Text, nullable=False),
    Column("operation", Text, nullable=False),
    Column("kind", Text, nullable=False),
    Column("depth", Integer, nullable=False),
    Column("child", Integer, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("status", String(16), nullable=False),
    Column("scope", String(16), nullable=False),
    Column("text", Text, nullable=False),
    Column("value", Text),
    Column("score", Double),
    Column("tokens", Integer, nullable=False),
    Column("latency_s", Double),
    Column("acted", Text),
    Column("reason", Text),
    Column("evidence", String(64)),
    Column("action", String(16)),
    Column("rule", Integer),
    Column("tag", Text),
    Column("reading", Text),
    Column("reached", Double),
    Column("threshold", Double),
    Column("first_token", Integer),
    Column("end_token", Integer),
    Index(None, "id"),
    Index(
        "ix_thought_pruned",
        "at",
        sqlite_where=text("status = 'pruned'"),
        postgresql_where=text("status = 'pruned'"),
    ),
    Index(
        "ix_thought_pruned_tag",
        "tag",
        "at",
        "reached",
        sqlite_where=text("status = 'pruned'"),
        postgresql_where=text("status = 'pruned'"),
    ),
    Index(
        "ix_thought_pruned_agent",
        "agent",
        "at",
        sqlite_where=text("status = 'pruned'"),
        postgresql_where=text("status = 'pruned'"),
    ),
    Index(
        "ix_thought_pruned_run_id",
        "run_id",
        "at",
        sqlite_where=text("status = 'pruned'"),
        postgresql_where=text("status = 'pruned'"),
    ),
    Index(None, "at"),
    # Not all of the parents: a merge of many would be more than an index can hold.
    Index(
        "ix_thought_place", "run_id", text("substr(parents, 1, 40)"), "status", "child", "tokens"
    ),
    Index(
        "ix_thought_merge",
        "run_id",
        sqlite_where=text("parents LIKE '%,%'"),
        postgresql_where=text("parents LIKE '%,%'"),
    ),
)
"""One row for each node of the graph, with what decided its fate."""

tag_score = Table(
    "tag_score",
    metadata,
    Column("run_id", String(32), primary_key=True),
    Column("thought_id", String(64), primary_key=True),
    Column("tag", Text, primary_key=True),
    Column("peak", Double),
    Column("opened", Double),
    Column("rate", Double),
    Column("cusum", Double),
    Column("posterior", Double),
    Column("emitted", Double),
    Column("calibrated", Double),
    Column("decided", Boolean, nullable=False),
    Column("action", String(16), nullable=False),
    Column("at", String(27), nullable=False),
    ForeignKeyConstraint(["run_id", "thought_id"], ["thought.run_id", "thought.id"]),
    Index(
        "ix_tag_score_cut",
        "tag",
        "at",
        sqlite_where=text("decided AND action NOT IN ('allow', 'flag')"),
        postgresql_where=text("decided AND action NOT IN ('allow', 'flag')"),
    ),
)
"""One row for each (judged thought, tag): its readings, and whether this tag decided."""

decision = Table(
    "decision",
    metadata,
    Column("run_id", String(32), ForeignKey("run.id"), primary_key=True),
    Column("seq", Integer, primary_key=True, autoincrement=False),
    Column("thought_id", String(64), nullable=False),
    Column("at", String(27), nullable=False),
    Column("actor", Text, nullable=False),
    Column("approve", Boolean, nullable=False),
    Column("about", String(16), nullable=False),
    Column("reason", Text, nullable=False),
    Index(None, "thought_id"),
)
"""One row for each decision of a person: on a verdict, or on a tool call whose end is unknown."""

erasure = Table(
    "erasure",
    metadata,
    Column("digest", String(64), ForeignKey("blob.digest"), primary_key=True),
    Column("run_id", String(32), nullable=False),
    Column("seq", Integer, nullable=False),
    Column("at", String(27), nullable=False),
    ForeignKeyConstraint(["run_id", "seq"], ["event.run_id", "event.seq"]),
)
"""Blobs whose bytes and salt were erased, with the ``erased`` event that says who and why."""

checkpoint = Table(
    "checkpoint",
    metadata,
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("at", String(27), nullable=False),
    Column("runs", Integer, nullable=False),
    Column("events", BigInteger, nullable=False),
    Column("root", String(64), nullable=False),
    Column("previous", String(64), nullable=False),
    Column("key", String(64), nullable=False),
    Column("signature", String(128), nullable=False),
    Column("body", Text, nullable=False),
    Column("heads", Text, nullable=False),
    CheckConstraint("number >= 1", name="number"),
)
"""A signed Merkle root over the heads of all runs; ``body`` is what the signature covers."""

passage = Table(
    "passage",
    metadata,
    Column(
        "number",
        BigInteger().with_variant(Integer, "sqlite"),
        primary_key=True,
        autoincrement=False,
    ),
    Column("run_id", String(32), nullable=False),
    Column("thought_id", String(64), nullable=False),
    Index(None, "run_id"),
)
"""One row for each thought whose words are indexed in ``passage_words``, by a number that grows
with its time. That index is the database's own kind (see :mod:`.passages`), so it is no table here.
"""

passage_mark = Table(
    "passage_mark",
    metadata,
    Column("run_id", String(32), primary_key=True),
    Column("upto", Integer, nullable=False),
    Column("settled", Boolean, nullable=False),
    Index(
        "ix_passage_mark_open",
        "run_id",
        sqlite_where=text("NOT settled"),
        postgresql_where=text("NOT settled"),
    ),
)
"""One row for each run, made and reopened by triggers: the last event whose words are indexed."""

APPEND_ONLY = (policy, blob, run, event, erasure, checkpoint)
"""Tables whose rows are never changed or removed."""


def in_metadata(name: str | None, kind: str, _parents: object) -> bool:
    """Whether Alembic is to compare this with the tables above; for its ``include_name``."""
    return kind != "table" or not (name or "").startswith("passage_words")
