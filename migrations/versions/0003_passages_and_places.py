"""Full text over prompts and outputs, indexes for questions, and views of runs and steps."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

OPEN = "NOT settled"
PRUNED = "status = 'pruned'"
MERGE = "parents LIKE '%,%'"
PLACE = "substr(parents, 1, 40)"

# How a run ended: the status in its last run_finished, unless it was resumed after it.
SUMMARY = """
CREATE VIEW run_summary AS
SELECT r.id AS run, r.agent, r.context, r.seed, p.name AS policy, p.digest AS policy_digest,
       r.engine, r.model, r.started_at, e.at AS finished_at,
       coalesce({status}, 'unfinished') AS status,
       (SELECT count(*) FROM thought t WHERE t.run_id = r.id) AS thoughts,
       (SELECT count(*) FROM thought t WHERE t.run_id = r.id AND t.status = 'pruned') AS pruned,
       (SELECT coalesce(sum(t.tokens), 0) FROM thought t WHERE t.run_id = r.id) AS tokens
FROM run r
JOIN policy p ON p.digest = r.policy
LEFT JOIN event e ON e.run_id = r.id AND e.seq = (
    SELECT f.seq FROM event f {by} WHERE f.run_id = r.id AND f.kind = 'run_finished'
    AND NOT EXISTS (SELECT 1 FROM event a WHERE a.run_id = f.run_id AND a.kind = 'resumed'
                    AND a.seq > f.seq)
    ORDER BY f.seq DESC LIMIT 1)
"""

STEP = """
CREATE VIEW step AS
SELECT t.run_id AS run, t.id AS thought, t.seq, t.at, r.agent, r.context, r.model,
       p.name AS policy, t.operation, t.kind, t.depth, t.child, t.attempt, t.parents, t.status,
       t.scope, t.acted, t.tag, t.reading, t.reached AS score, t.threshold, t.action,
       t.score AS plan_score, t.tokens, t.latency_s, t.text, t.value, t.reason
FROM thought t
JOIN run r ON r.id = t.run_id
JOIN policy p ON p.digest = r.policy
"""


def upgrade() -> None:
    dialect = op.get_bind().dialect.name
    op.create_table(
        "passage",
        sa.Column(
            "number",
            sa.BigInteger().with_variant(sa.Integer, "sqlite"),
            nullable=False,
            autoincrement=False,
        ),
        sa.Column("run_id", sa.String(32), nullable=False),
        sa.Column("thought_id", sa.String(64), nullable=False),
        sa.PrimaryKeyConstraint("number", name="pk_passage"),
    )
    op.create_index("ix_passage_run_id", "passage", ["run_id"])
    op.create_table(
        "passage_mark",
        sa.Column("run_id", sa.String(32), nullable=False),
        sa.Column("upto", sa.Integer, nullable=False),
        sa.Column("settled", sa.Boolean, nullable=False),
        sa.PrimaryKeyConstraint("run_id", name="pk_passage_mark"),
    )
    op.create_index(
        "ix_passage_mark_open",
        "passage_mark",
        ["run_id"],
        sqlite_where=sa.text(OPEN),
        postgresql_where=sa.text(OPEN),
    )
    op.drop_index("ix_thought_pruned_tag", "thought")
    op.create_index(
        "ix_thought_pruned_tag",
        "thought",
        ["tag", "at", "reached"],
        sqlite_where=sa.text(PRUNED),
        postgresql_where=sa.text(PRUNED),
    )
    for name in ("agent", "run_id"):
        op.create_index(
            f"ix_thought_pruned_{name}",
            "thought",
            [name, "at"],
            sqlite_where=sa.text(PRUNED),
            postgresql_where=sa.text(PRUNED),
        )
    op.create_index("ix_thought_at", "thought", ["at"])
    op.create_index(
        "ix_thought_place", "thought", ["run_id", sa.text(PLACE), "status", "child", "tokens"]
    )
    op.create_index(
        "ix_thought_merge",
        "thought",
        ["run_id"],
        sqlite_where=sa.text(MERGE),
        postgresql_where=sa.text(MERGE),
    )
    for statement in words(dialect) + marks(dialect):
        op.execute(statement)
    status = "(e.body::json ->> 'status')" if dialect == "postgresql" else "json_extract(e.body, '$.status')"
    # Without being told, SQLite would walk through all events of a run.
    by = "" if dialect == "postgresql" else "INDEXED BY ix_event_finished"
    op.execute(SUMMARY.format(status=status, by=by))
    op.execute(STEP)


def words(dialect: str) -> list[str]:
    if dialect == "postgresql":
        return [
            "CREATE TABLE passage_words (number BIGINT PRIMARY KEY, words TSVECTOR NOT NULL)",
            "CREATE INDEX passage_words_gin ON passage_words USING gin (words)",
        ]
    return [
        "CREATE VIRTUAL TABLE passage_words USING fts5"
        "(text, prompt, content='', columnsize=0, tokenize='unicode61')",
        "INSERT INTO passage_words (passage_words, rank) VALUES ('automerge', 16)",
    ]


def marks(dialect: str) -> list[str]:
    """A mark for each run that there is, and for each that will be; a resumed run's is opened."""
    begun = "INSERT INTO passage_mark (run_id, upto, settled) "
    there = begun + "SELECT id, -1, false FROM run"
    reopen = "UPDATE passage_mark SET settled = false WHERE run_id = NEW.run_id"
    if dialect == "postgresql":
        return [
            there,
            "CREATE FUNCTION begin_passages() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
            f"{begun} VALUES (NEW.id, -1, false); RETURN NULL; END $$",
            "CREATE TRIGGER run_begins_passages AFTER INSERT ON run "
            "FOR EACH ROW EXECUTE FUNCTION begin_passages()",
            "CREATE FUNCTION reopen_passages() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
            f"{reopen}; RETURN NULL; END $$",
            "CREATE TRIGGER event_reopens_passages AFTER INSERT ON event "
            "FOR EACH ROW WHEN (NEW.kind = 'resumed') EXECUTE FUNCTION reopen_passages()",
        ]
    return [
        there,
        "CREATE TRIGGER run_begins_passages AFTER INSERT ON run BEGIN "
        f"{begun} VALUES (NEW.id, -1, false); END",
        "CREATE TRIGGER event_reopens_passages AFTER INSERT ON event "
        f"WHEN NEW.kind = 'resumed' BEGIN {reopen}; END",
    ]


def downgrade() -> None:
    op.execute("DROP VIEW step")
    op.execute("DROP VIEW run_summary")
    if op.get_bind().dialect.name == "postgresql":
        op.execute("DROP TRIGGER event_reopens_passages ON event")
        op.execute("DROP TRIGGER run_begins_passages ON run")
        op.execute("DROP FUNCTION reopen_passages()")
        op.execute("DROP FUNCTION begin_passages()")
    else:
        op.execute("DROP TRIGGER event_reopens_passages")
        op.execute("DROP TRIGGER run_begins_passages")
    for name in ("merge", "place", "at", "pruned_run_id", "pruned_agent", "pruned_tag"):
        op.drop_index(f"ix_thought_{name}", "thought")
    op.create_index(
        "ix_thought_pruned_tag",
        "thought",
        ["tag", "at"],
        sqlite_where=sa.text(PRUNED),
        postgresql_where=sa.text(PRUNED),
    )
    op.execute("DROP TABLE passage_words")
    op.drop_table("passage_mark")
    op.drop_table("passage")
