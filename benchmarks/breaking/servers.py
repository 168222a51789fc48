"""PostgreSQL killed under load: one of its backends, or the whole server."""

import asyncio
import os
import random
import signal
import time
from contextlib import suppress
from pathlib import Path

from secateur.benchmarks.breaking import making
from secateur.benchmarks.breaking.checks import CHAINS, GOES_ON, check_effects, check_runs, reading
from secateur.benchmarks.breaking.databases import PostgresPlace
from secateur.benchmarks.breaking.forking import fork, wait, wait_for
from secateur.benchmarks.breaking.journal import Journal, listen, read
from secateur.benchmarks.breaking.tally import Tally
from secateur.benchmarks.breaking.victim import Errand, effects_of, fill
from secateur.gates.errors import SecateurError
from secateur.runtime.ledger.integrity import verification
from secateur.runtime.ledger.ledger import Ledger, new_run_id
from secateur.runtime.ledger.writing.runlog import RunLog

__all__ = ["kill_servers"]

ONE_LINE = "a database that is gone is one line that says so"
_PATIENCE = 120.0
"""Seconds in which the server must be back for those who wait to go on."""


def kill_servers(
    place: PostgresPlace, folder: Path, backends: int, servers: int, seed: int
) -> Tally:
    """So many backends and so many whole servers killed with -9, each under load."""
    rng = random.Random(f"servers/{seed}")
    tally = Tally()
    url = place.new()
    for number in range(backends + servers):
        errand = Errand(
            number=3_000_000 + number,
            url=url,
            folder=folder,
            seed=f"{rng.random()}",
            seconds=1.0,
        )
        errand.journal.touch()
        ready, tell = os.pipe()
        child = fork(lambda e=errand, t=tell: _endure(e, t))
        os.close(tell)
        os.read(ready, 1)
        wait_for(errand.journal, rng.randrange(1_000, 40_000))
        time.sleep(rng.uniform(0, 0.01))
        if number < backends:
            tally.done["backends killed"] += _kill_backend(place, url)
            place.wait()
        else:
            if rng.random() < 0.3:
                _checkpoint(place)
            place.kill()
            place.start()
            place.wait()
            tally.done["servers killed"] += 1
        status = wait(child)
        os.close(ready)
        tally.hold(GOES_ON, status == 0, f"the writer {errand.number} failed")
        said = read(errand.journal)
        errors = [words[1] for words in said.words if words[0] == "error"]
        for error in errors:
            tally.hold(ONE_LINE, "\n" not in error, error)
        tally.done["runs that lost their server"] += len(errors)
        stuck = [words[1] for words in said.words if words[0] == "stuck"]
        tally.hold(GOES_ON, not stuck, str(stuck[:1]))
        tally.done["events acknowledged"] += sum(c.total() for c in said.owed.values())
        with reading(url) as connection:
            events = check_runs(connection, said, said.asked, tally)
            effects = [(run, it) for run in said.asked for it in effects_of(errand, run)]
            check_effects(events, effects, tally)
    with reading(url) as connection:
        found = verification.verify(connection.engine)
        tally.hold(CHAINS, found.ok, f"the whole ledger: {found.first_bad}")
    place.drop(url)
    return tally


def _kill_backend(place: PostgresPlace, url: str) -> int:
    """Kill what serves the writer of this database; how many there were."""
    name = url.split("?")[0].rpartition("/")[2]
    found = place.ask(
        "SELECT pid FROM pg_stat_activity WHERE backend_type = 'client backend' "
        f"AND datname = '{name}' ORDER BY backend_start LIMIT 1"
    )
    for (pid,) in found:
        os.kill(pid, signal.SIGKILL)
    return len(found)


def _checkpoint(place: PostgresPlace) -> None:
    """Begin a checkpoint, and do not wait for its end: its server is about to die."""

    async def ask() -> None:
        import psycopg

        with suppress(psycopg.OperationalError):
            place.ask("CHECKPOINT")

    fork(ask)


async def _endure(errand: Errand, ready: int) -> None:
    """Write until the server is gone; then go on with the same ledger once it is back."""
    journal = Journal(errand.journal)
    listen(journal)
    rng = random.Random(errand.seed)
    logs: list[RunLog] = []
    async with Ledger.open(errand.url) as ledger:
        os.write(ready, b"!")

        async def write(number: int, until: float) -> None:
            try:
                while time.monotonic() < until:
                    log = await ledger.start(making.start(new_run_id(), number))
                    logs.append(log)
                    await fill(errand, log, rng, asyncio.Event(), steps=3)
            except SecateurError as error:
                journal.write("error", str(error))

        until = time.monotonic() + errand.seconds
        await asyncio.gather(*(write(number, until) for number in range(3)))
        later = Errand(errand.number + 500_000, errand.url, errand.folder, errand.seed, 1.0)
        deadline = time.monotonic() + _PATIENCE
        for number, log in enumerate(logs[-2:]):
            while True:
                try:
                    again = await ledger.reopen(log.run)
                    await again.resumed(making.start(log.run, number), "the server is back")
                    await fill(later, again, rng, asyncio.Event(), steps=1)
                    break
                except SecateurError as error:
                    if "no run is called" in str(error):
                        break  # the server died before the run had begun
                    if time.monotonic() > deadline:
                        journal.write("stuck", str(error))
                        return
                    later = Errand(later.number + 1, errand.url, errand.folder, errand.seed, 1.0)
                    await asyncio.sleep(0.1)
