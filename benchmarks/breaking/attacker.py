"""Somebody with write access to the database: triggers gone, keys unchecked, any row changed."""

import json
import random
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError

from secateur.benchmarks.breaking import making
from secateur.gates.verdict import Action
from secateur.runtime.ledger import connect, tables
from secateur.runtime.ledger.events import ErasedBlob, EventKind, RunStatus
from secateur.runtime.ledger.integrity.checkpoints import Checkpoint, make_checkpoint
from secateur.runtime.ledger.integrity.signing import SigningKey
from secateur.runtime.ledger.ledger import Ledger, new_run_id

__all__ = ["CHECKED", "Attacker", "Row", "where", "write_ledger"]

Row = Mapping[str, Any]

CHECKED = [table for table in tables.metadata.sorted_tables if not table.name.startswith("passage")]
"""Every table but the index of words, which is made from the others and proves nothing."""


def where(table: sa.Table, row: Row) -> sa.ColumnElement[bool]:
    """The row, by its primary key."""
    return sa.and_(*(column == row[column.name] for column in table.primary_key))


_ACTIONS = {"b2": Action.ALLOW, "b4": Action.ESCALATE, "b5": Action.ESCALATE}
"""Verdicts on which what follows in the ledger rests: calls of tools, and decisions."""


class Attacker:
    """Changes rows, and puts everything back."""

    def __init__(self, url: str) -> None:
        address = connect.address(url)
        # Neither triggers nor foreign keys: SQLite has no keys unless asked for.
        off = {"options": "-c session_replication_role=replica"}
        sqlite = address.get_backend_name() == "sqlite"
        self.engine = sa.create_engine(address, connect_args={} if sqlite else off)
        self.triggers: list[tuple[str, str]] = []
        with self.engine.begin() as connection:
            if sqlite:
                connection.exec_driver_sql("PRAGMA synchronous = OFF")
            self.rows: dict[str, list[Row]] = {
                table.name: [
                    dict(row)
                    for row in connection.execute(
                        sa.select(table).order_by(*table.primary_key)
                    ).mappings()
                ]
                for table in CHECKED
            }
            if sqlite:
                triggers = sa.text("SELECT name, sql FROM sqlite_master WHERE type = 'trigger'")
                self.triggers = [tuple(row) for row in connection.execute(triggers)]

    @contextmanager
    def _unguarded(self) -> Iterator[sa.Connection]:
        """A transaction without triggers, which stand again after it."""
        with self.engine.begin() as connection:
            if self.triggers:  # the driver itself would begin with the first row, and not before
                connection.exec_driver_sql("BEGIN")
            for name, _ in self.triggers:
                connection.exec_driver_sql(f"DROP TRIGGER {name}")
            yield connection
            for _, again in self.triggers:
                connection.exec_driver_sql(again)

    def do(self, *statements: sa.Executable) -> bool:
        """All of it or nothing; False where the database itself refuses."""
        try:
            with self._unguarded() as connection:
                for statement in statements:
                    connection.execute(statement)
        except DBAPIError:
            return False
        return True

    def restore(self, *names: str) -> None:
        """Put these tables back as they were."""
        with self._unguarded() as connection:
            for table in CHECKED:
                if table.name in names:
                    connection.execute(sa.delete(table))
                    connection.execute(sa.insert(table), self.rows[table.name])

    def close(self) -> None:
        """Let go of the database."""
        self.engine.dispose()


async def write_ledger(url: str, folder: Path) -> tuple[str, Checkpoint]:
    """A ledger of three runs; one has events of every kind. Its id, and the second checkpoint."""
    key = SigningKey.generate(folder / f"{new_run_id()}.key")
    rng = random.Random("every kind")
    async with Ledger.open(url) as ledger:
        for number in range(2):
            other = await ledger.start(making.start(new_run_id(), number))
            await other.place(making.placed("a0", operation="task", kind="task", depth=0))
            for id in ("b1", "b2", "b3"):
                await other.intend(making.intent(id, ("a0",)))
                await other.judge(making.judged(id, rng, parents=("a0",)))
            await other.finish(RunStatus.DONE, "web is up")
        _checkpoint(url, key)
        log = await ledger.start(making.start(new_run_id(), 7))
        await log.place(making.placed("a0", operation="task", kind="task", depth=0, tokens=0))
        for id in ("b1", "b2", "b3", "b4", "b5"):
            await log.intend(making.intent(id, ("a0",)))
            await log.switch(id, 0, making.switch(), f"restart web, {id} again")
            action = _ACTIONS.get(id)
            value = {"steps": [id, 1.5]}
            await log.judge(making.judged(id, rng, action, parents=("a0",), value=value))
        await log.back_up(making.retry("b1"))
        await log.intend(making.intent("b1again", ("a0",), attempt=1))
        await log.judge(making.judged("b1again", rng, attempt=1))
        for place, id in enumerate(("c1", "c2")):
            await log.intend_tool(id, "restart", {"service": "web", "times": place})
            await log.tool_result(id, "restart", f"web is up ({id})", ok=True, latency_s=0.01)
            await log.place(making.placed(id, parents=("b2",), kind="act", acted="restart"))
            await log.score(id, 2.5 + place, f"errors {id}")
            await log.select([id], [f"b{place + 2}"], f"keep_best {place}")
            await log.escalate(f"b{place + 4}", f"a rule asks for a person, {place}")
            await log.note(f"budget {place}", {"tokens": 100 + place}, thought=id)
        await log.decide("b4", approve=True, by="ann", reason="it is fine")
        await log.decide("b5", approve=False, by="bob", reason="it is not")
        await log.intend(making.intent("b6", ("a0",)))
        await log.intend(making.intent("b7", ("a0",)))
        for number, text in enumerate(_texts(url, log.run)[-2:]):
            await log.erased([text], by=f"ann{number}", reason=f"a name stands there ({number})")
        for number, id in enumerate(("b6", "b7")):
            again = await ledger.reopen(log.run)
            await again.resumed(making.start(log.run, 7), f"after kill {number}")
            await again.abandon(id, 0, f"killed {number}")
            await again.finish(RunStatus.DONE, f"web is up, {number}")
        return log.run, _checkpoint(url, key)


def _checkpoint(url: str, key: SigningKey) -> Checkpoint:
    engine = connect.open_existing(url, read_only=False)
    try:
        return make_checkpoint(engine, key)
    finally:
        engine.dispose()


def _texts(url: str, run: str) -> Sequence[ErasedBlob]:
    """The texts of judged thoughts."""
    engine = connect.open_existing(url)
    table = tables.event.c
    query = sa.select(table.blobs, table.seq).where(
        table.run_id == run, table.kind == EventKind.JUDGED.value
    )
    try:
        with engine.connect() as connection:
            found = connection.execute(query.order_by(table.seq)).tuples().all()
    finally:
        engine.dispose()
    return [ErasedBlob(json.loads(blobs)["text"], seq, "text") for blobs, seq in found]
