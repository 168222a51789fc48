"""kill -9 at every statement of an upgrade: all of it happens, or nothing."""

import random
from pathlib import Path

import sqlalchemy as sa
from alembic import command

from secateur.benchmarks.breaking import making
from secateur.benchmarks.breaking.databases import Place
from secateur.benchmarks.breaking.forking import fork, in_child, wait
from secateur.benchmarks.breaking.journal import Journal
from secateur.benchmarks.breaking.points import Points, Trap, install
from secateur.benchmarks.breaking.tally import Tally
from secateur.runtime.ledger import connect, tables
from secateur.runtime.ledger.events import RunStatus
from secateur.runtime.ledger.integrity import verification
from secateur.runtime.ledger.ledger import Ledger, new_run_id

__all__ = ["kill_upgrades"]

ATOMIC = "a killed upgrade is undone, or done"
KEPT = "an upgraded ledger verifies, and holds every event"
_POINT = "opening: before a statement"
_FIRST = "0001"


def kill_upgrades(place: Place, folder: Path, every: int) -> Tally:
    """One kill before each (or every so-manieth) statement; then the upgrade is let through."""
    tally = Tally()
    url = place.new()
    in_child(lambda: _write(url))
    before = _hashes(url)
    _take_down(url)
    statements = 0
    while True:
        statements += every
        child = fork(lambda n=statements: _upgrade(url, folder / f"upgrade{n}", n))
        killed = wait(child) != 0
        revision = connect.revision(url)
        tally.hold(ATOMIC, revision in (_FIRST, tables.HEAD), f"it is at revision {revision}")
        if not killed:
            break
        tally.done["upgrades killed"] += 1
        if revision == tables.HEAD:
            _take_down(url)
    engine = connect.open_existing(url)
    found = verification.verify(engine)
    engine.dispose()
    tally.hold(KEPT, found.ok, str(found.first_bad))
    tally.hold(KEPT, _hashes(url) == before, "events are not what they were")
    place.drop(url)
    return tally


async def _write(url: str) -> None:
    """Runs of which the first revision knows every kind of event."""
    rng = random.Random("upgrades")
    async with Ledger.open(url) as ledger:
        for number in range(4):
            log = await ledger.start(making.start(new_run_id(), number))
            for id in ("b1", "b2", "b3"):
                await log.intend(making.intent(id))
                await log.judge(making.judged(id, rng))
            await log.finish(RunStatus.DONE, "web is up")


async def _upgrade(url: str, journal: Path, statement: int) -> None:
    install(Points(Journal(journal), Trap(_POINT, statement)))
    connect.upgrade(url)


def _take_down(url: str) -> None:
    engine = connect.connect(url)
    with engine.begin() as connection:
        settings = connect.config()
        settings.attributes["connection"] = connection
        command.downgrade(settings, _FIRST)
    engine.dispose()


def _hashes(url: str) -> list[tuple[str, int, str]]:
    engine = connect.connect(url, read_only=True)
    table = tables.event.c
    query = sa.select(table.run_id, table.seq, table.hash).order_by(table.run_id, table.seq)
    try:
        with engine.connect() as connection:
            return list(connection.execute(query).tuples().all())
    finally:
        engine.dispose()
