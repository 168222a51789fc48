"""Where Alembic starts: the ledger hands over its connection; the alembic command names a URL."""

from importlib import import_module

from alembic import context

# By name, because Alembic loads this file by path: it has no package to be relative to.
tables = import_module("secateur.runtime.ledger.tables")
connect = import_module("secateur.runtime.ledger.connect")


def migrate() -> None:
    """Run the migrations in one transaction, so that a schema is whole or not there."""
    given = context.config.attributes.get("connection")
    if given is not None:
        context.configure(connection=given, target_metadata=tables.metadata, transactional_ddl=True)
        context.run_migrations()
        return
    url = context.get_x_argument(as_dictionary=True).get("db", "secateur.db")
    with connect.connect(url).begin() as connection:
        context.configure(
            connection=connection, target_metadata=tables.metadata, transactional_ddl=True
        )
        context.run_migrations()


migrate()
