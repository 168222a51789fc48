"""Checkpoints, erasures and decisions; a blob may be emptied once an erasure names it."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

RESUMED = "kind = 'resumed'"

KEYS = {
    "policy": ("digest",),
    "blob": ("digest",),
    "run": ("id",),
    "event": ("run_id", "seq"),
    "erasure": ("digest",),
    "checkpoint": ("number",),
}
"""Append-only tables and what names a row of theirs."""

NEW = ("erasure", "checkpoint")


def upgrade() -> None:
    op.create_table(
        "decision",
        sa.Column("run_id", sa.String(32), nullable=False),
        sa.Column("seq", sa.Integer, nullable=False),
        sa.Column("thought_id", sa.String(64), nullable=False),
        sa.Column("at", sa.String(27), nullable=False),
        sa.Column("actor", sa.Text, nullable=False),
        sa.Column("approve", sa.Boolean, nullable=False),
        sa.Column("about", sa.String(16), nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("run_id", "seq", name="pk_decision"),
        sa.ForeignKeyConstraint(["run_id"], ["run.id"], name="fk_decision_run_id"),
    )
    op.create_index("ix_decision_thought_id", "decision", ["thought_id"])
    op.create_table(
        "erasure",
        sa.Column("digest", sa.String(64), nullable=False),
        sa.Column("run_id", sa.String(32), nullable=False),
        sa.Column("seq", sa.Integer, nullable=False),
        sa.Column("at", sa.String(27), nullable=False),
        sa.PrimaryKeyConstraint("digest", name="pk_erasure"),
        sa.ForeignKeyConstraint(["digest"], ["blob.digest"], name="fk_erasure_digest"),
        sa.ForeignKeyConstraint(
            ["run_id", "seq"], ["event.run_id", "event.seq"], name="fk_erasure_run_id_seq"
        ),
    )
    op.create_table(
        "checkpoint",
        sa.Column("number", sa.Integer, nullable=False, autoincrement=False),
        sa.Column("at", sa.String(27), nullable=False),
        sa.Column("runs", sa.Integer, nullable=False),
        sa.Column("events", sa.BigInteger, nullable=False),
        sa.Column("root", sa.String(64), nullable=False),
        sa.Column("previous", sa.String(64), nullable=False),
        sa.Column("key", sa.String(64), nullable=False),
        sa.Column("signature", sa.String(128), nullable=False),
        sa.Column("body", sa.Text, nullable=False),
        sa.Column("heads", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("number", name="pk_checkpoint"),
        sa.CheckConstraint("number >= 1", name="ck_checkpoint_number"),
    )
    op.create_index(
        "ix_event_resumed",
        "event",
        ["run_id"],
        sqlite_where=sa.text(RESUMED),
        postgresql_where=sa.text(RESUMED),
    )
    statements = on_postgresql() if op.get_bind().dialect.name == "postgresql" else on_sqlite()
    for statement in statements:
        op.execute(statement)


def on_postgresql() -> list[str]:
    return [
        "CREATE FUNCTION refuse_but_erasure() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
        "IF NEW.digest = OLD.digest AND NEW.bytes = '' AND NEW.salt = '' "
        "AND EXISTS (SELECT 1 FROM erasure WHERE digest = OLD.digest) THEN RETURN NEW; END IF; "
        "RAISE EXCEPTION 'blob is append-only'; END $$",
        "DROP TRIGGER blob_append_only ON blob",
        "CREATE TRIGGER blob_append_only BEFORE DELETE OR TRUNCATE ON blob "
        "FOR EACH STATEMENT EXECUTE FUNCTION refuse_change()",
        "CREATE TRIGGER blob_erasure_only BEFORE UPDATE ON blob "
        "FOR EACH ROW EXECUTE FUNCTION refuse_but_erasure()",
    ] + [
        f"CREATE TRIGGER {table}_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON {table} "
        "FOR EACH STATEMENT EXECUTE FUNCTION refuse_change()"
        for table in NEW
    ]


def on_sqlite() -> list[str]:
    return (
        [
            "DROP TRIGGER blob_no_update",
            "CREATE TRIGGER blob_no_update BEFORE UPDATE ON blob WHEN NOT ("
            "NEW.digest = OLD.digest AND NEW.bytes = x'' AND NEW.salt = x'' "
            "AND EXISTS (SELECT 1 FROM erasure WHERE digest = OLD.digest)) "
            "BEGIN SELECT RAISE(ABORT, 'blob is append-only'); END",
        ]
        + [
            f"CREATE TRIGGER {table}_no_{change.lower()} BEFORE {change} ON {table} "
            f"BEGIN SELECT RAISE(ABORT, '{table} is append-only'); END"
            for table in NEW
            for change in ("UPDATE", "DELETE")
        ]
        + [
            # REPLACE removes the row that is in its way without asking the DELETE trigger.
            f"CREATE TRIGGER {table}_no_replace BEFORE INSERT ON {table} "
            f"WHEN EXISTS (SELECT 1 FROM {table} WHERE "
            + " AND ".join(f"{column} = NEW.{column}" for column in key)
            + f") BEGIN SELECT RAISE(ABORT, '{table} is append-only: that row is there'); END"
            for table, key in KEYS.items()
        ]
    )


def downgrade() -> None:
    """Refused where something was recorded that the revision before has no place for."""
    bind = op.get_bind()
    for table in NEW:
        if bind.execute(sa.text(f"SELECT count(*) FROM {table}")).scalar():
            raise ValueError(f"{table} holds records, and revision 0001 has no such table")
    if bind.dialect.name == "postgresql":
        op.execute("DROP TRIGGER blob_erasure_only ON blob")
        op.execute("DROP TRIGGER blob_append_only ON blob")
        op.execute(
            "CREATE TRIGGER blob_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON blob "
            "FOR EACH STATEMENT EXECUTE FUNCTION refuse_change()"
        )
    else:
        for table in KEYS:
            op.execute(f"DROP TRIGGER {table}_no_replace")
        op.execute("DROP TRIGGER blob_no_update")
        op.execute(
            "CREATE TRIGGER blob_no_update BEFORE UPDATE ON blob "
            "BEGIN SELECT RAISE(ABORT, 'blob is append-only'); END"
        )
    op.drop_index("ix_event_resumed", "event")
    for table in ("checkpoint", "erasure", "decision"):
        op.drop_table(table)
    if bind.dialect.name == "postgresql":
        op.execute("DROP FUNCTION refuse_but_erasure()")
