"""The first ledger: a hash chain of events for each run, and what is derived from it."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

APPEND_ONLY = ("policy", "blob", "run", "event")

PRUNED = "status = 'pruned'"
FINISHED = "kind = 'run_finished'"
CUT = "decided AND action NOT IN ('allow', 'flag')"

PRUNED_BRANCH = """
CREATE VIEW pruned_branch AS
SELECT t.run_id AS run, t.id AS thought, t.agent, t.operation, t.tag, t.reading,
       t.reached AS score, t.threshold, t.reached - t.threshold AS margin, t.action, t.at,
       t.text, t.reason, t.depth, t.attempt, t.tokens, t.parents
FROM thought t
WHERE t.status = 'pruned'
"""

WHY_PRUNED = """
CREATE VIEW why_pruned AS
SELECT t.run_id AS run, t.id AS thought, r.agent, r.context, r.model, p.name AS policy,
       p.digest AS policy_digest, t.operation, s.tag, s.decided, s.peak, s.opened, s.rate,
       s.cusum, s.posterior, s.emitted, s.calibrated, t.tag AS cause, t.reading,
       t.reached AS score, t.threshold, t.rule, t.action, t.first_token, t.end_token, t.at,
       t.text, t.reason
FROM thought t
JOIN run r ON r.id = t.run_id
JOIN policy p ON p.digest = r.policy
LEFT JOIN tag_score s ON s.run_id = t.run_id AND s.thought_id = t.id
WHERE t.status = 'pruned'
"""


def upgrade() -> None:
    op.create_table(
        "policy",
        sa.Column("digest", sa.String(64), nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("body", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("digest", name="pk_policy"),
    )
    op.create_table(
        "blob",
        sa.Column("digest", sa.String(64), nullable=False),
        sa.Column("salt", sa.LargeBinary, nullable=False),
        sa.Column("bytes", sa.LargeBinary, nullable=False),
        sa.PrimaryKeyConstraint("digest", name="pk_blob"),
    )
    op.create_table(
        "run",
        sa.Column("id", sa.String(32), nullable=False),
        sa.Column("agent", sa.Text, nullable=False),
        sa.Column("task", sa.String(64), nullable=False),
        sa.Column("context", sa.Text),
        sa.Column("seed", sa.BigInteger, nullable=False),
        sa.Column("policy", sa.String(64), nullable=False),
        sa.Column("engine", sa.Text, nullable=False),
        sa.Column("model", sa.Text, nullable=False),
        sa.Column("digests", sa.Text, nullable=False),
        sa.Column("started_at", sa.String(27), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_run"),
        sa.ForeignKeyConstraint(["task"], ["blob.digest"], name="fk_run_task"),
        sa.ForeignKeyConstraint(["policy"], ["policy.digest"], name="fk_run_policy"),
    )
    op.create_index("ix_run_started_at", "run", ["started_at"])
    op.create_table(
        "event",
        sa.Column("run_id", sa.String(32), nullable=False),
        sa.Column("seq", sa.Integer, nullable=False),
        sa.Column("kind", sa.String(32), nullable=False),
        sa.Column("at", sa.String(27), nullable=False),
        sa.Column("monotonic_ns", sa.BigInteger, nullable=False),
        sa.Column("actor", sa.Text, nullable=False),
        sa.Column("thought_id", sa.String(64)),
        sa.Column("attempt", sa.Integer),
        sa.Column("digests", sa.String(64), nullable=False),
        sa.Column("latency_s", sa.Double),
        sa.Column("blobs", sa.Text, nullable=False),
        sa.Column("body", sa.Text, nullable=False),
        sa.Column("prev_hash", sa.String(64), nullable=False),
        sa.Column("hash", sa.String(64), nullable=False),
        sa.PrimaryKeyConstraint("run_id", "seq", name="pk_event"),
        sa.ForeignKeyConstraint(["run_id"], ["run.id"], name="fk_event_run_id"),
        sa.CheckConstraint("seq >= 0", name="ck_event_seq"),
    )
    op.create_index("ix_event_run_id_thought_id", "event", ["run_id", "thought_id"])
    op.create_index(
        "ix_event_finished",
        "event",
        ["run_id"],
        sqlite_where=sa.text(FINISHED),
        postgresql_where=sa.text(FINISHED),
    )
    op.create_table(
        "thought",
        sa.Column("run_id", sa.String(32), nullable=False),
        sa.Column("id", sa.String(64), nullable=False),
        sa.Column("seq", sa.Integer, nullable=False),
        sa.Column("at", sa.String(27), nullable=False),
        sa.Column("agent", sa.Text, nullable=False),
        sa.Column("parents", sa.Text, nullable=False),
        sa.Column("operation", sa.Text, nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("depth", sa.Integer, nullable=False),
        sa.Column("child", sa.Integer, nullable=False),
        sa.Column("attempt", sa.Integer, nullable=False),
        sa.Column("status", sa.String(16), nullable=False),
        sa.Column("scope", sa.String(16), nullable=False),
        sa.Column("text", sa.Text, nullable=False),
        sa.Column("value", sa.Text),
        sa.Column("score", sa.Double),
        sa.Column("tokens", sa.Integer, nullable=False),
        sa.Column("latency_s", sa.Double),
        sa.Column("acted", sa.Text),
        sa.Column("reason", sa.Text),
        sa.Column("evidence", sa.String(64)),
        sa.Column("action", sa.String(16)),
        sa.Column("rule", sa.Integer),
        sa.Column("tag", sa.Text),
        sa.Column("reading", sa.Text),
        sa.Column("reached", sa.Double),
        sa.Column("threshold", sa.Double),
        sa.Column("first_token", sa.Integer),
        sa.Column("end_token", sa.Integer),
        sa.PrimaryKeyConstraint("run_id", "id", name="pk_thought"),
        sa.ForeignKeyConstraint(["run_id"], ["run.id"], name="fk_thought_run_id"),
    )
    op.create_index("ix_thought_id", "thought", ["id"])
    op.create_index(
        "ix_thought_pruned",
        "thought",
        ["at"],
        sqlite_where=sa.text(PRUNED),
        postgresql_where=sa.text(PRUNED),
    )
    op.create_index(
        "ix_thought_pruned_tag",
        "thought",
        ["tag", "at"],
        sqlite_where=sa.text(PRUNED),
        postgresql_where=sa.text(PRUNED),
    )
    op.create_table(
        "tag_score",
        sa.Column("run_id", sa.String(32), nullable=False),
        sa.Column("thought_id", sa.String(64), nullable=False),
        sa.Column("tag", sa.Text, nullable=False),
        sa.Column("peak", sa.Double),
        sa.Column("opened", sa.Double),
        sa.Column("rate", sa.Double),
        sa.Column("cusum", sa.Double),
        sa.Column("posterior", sa.Double),
        sa.Column("emitted", sa.Double),
        sa.Column("calibrated", sa.Double),
        sa.Column("decided", sa.Boolean, nullable=False),
        sa.Column("action", sa.String(16), nullable=False),
        sa.Column("at", sa.String(27), nullable=False),
        sa.PrimaryKeyConstraint("run_id", "thought_id", "tag", name="pk_tag_score"),
        sa.ForeignKeyConstraint(
            ["run_id", "thought_id"],
            ["thought.run_id", "thought.id"],
            name="fk_tag_score_run_id_thought_id",
        ),
    )
    op.create_index(
        "ix_tag_score_cut",
        "tag_score",
        ["tag", "at"],
        sqlite_where=sa.text(CUT),
        postgresql_where=sa.text(CUT),
    )
    op.execute(PRUNED_BRANCH)
    op.execute(WHY_PRUNED)
    for statement in refusals(op.get_bind().dialect.name):
        op.execute(statement)


def refusals(dialect: str) -> list[str]:
    """Triggers that refuse to change what was recorded."""
    if dialect == "postgresql":
        return [
            "CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$ "
            "BEGIN RAISE EXCEPTION '% is append-only', TG_TABLE_NAME; END $$"
        ] + [
            f"CREATE TRIGGER {table}_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON {table} "
            "FOR EACH STATEMENT EXECUTE FUNCTION refuse_change()"
            for table in APPEND_ONLY
        ]
    return [
        f"CREATE TRIGGER {table}_no_{change.lower()} BEFORE {change} ON {table} "
        f"BEGIN SELECT RAISE(ABORT, '{table} is append-only'); END"
        for table in APPEND_ONLY
        for change in ("UPDATE", "DELETE")
    ]


def downgrade() -> None:
    op.execute("DROP VIEW why_pruned")
    op.execute("DROP VIEW pruned_branch")
    # Dropping a table drops its triggers.
    for table in ("tag_score", "thought", "event", "run", "blob", "policy"):
        op.drop_table(table)
    if op.get_bind().dialect.name == "postgresql":
        op.execute("DROP FUNCTION refuse_change()")
