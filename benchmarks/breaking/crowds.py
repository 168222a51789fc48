"""Several processes, each with several runs at once, that come and go on one SQLite file.

Every run opens the ledger for itself, as runs do that are started beside each other, and closes it
when it ends; processes leave, or are killed -9, and others come, while the rest goes on writing.
What was acknowledged to any of them must be there when the last one is gone: locks, the log and its
removal are what is tried here, for who closes last takes the log into the file.
"""

import asyncio
import os
import random
import signal
import time
from collections.abc import Iterable
from pathlib import Path

from sqlalchemy.exc import DBAPIError

from secateur.benchmarks.breaking import making
from secateur.benchmarks.breaking.checks import ACKNOWLEDGED, CHAINS, UNHURT, check_runs, reading
from secateur.benchmarks.breaking.databases import SqlitePlace
from secateur.benchmarks.breaking.forking import fork, wait
from secateur.benchmarks.breaking.journal import Journal, Testimony, listen, read
from secateur.benchmarks.breaking.tally import Tally
from secateur.gates.errors import SecateurError
from secateur.runtime.ledger.events import RunStatus
from secateur.runtime.ledger.integrity import verification
from secateur.runtime.ledger.ledger import Ledger, new_run_id

__all__ = ["kill_crowds"]

_BESIDE = 4
"""Processes at a time."""
_RUNS = 3
"""Runs at once in each."""
_GENERATION = 40
"""So many kills share a ledger before a new one is made."""
_STAYS = 0.15
"""Of the processes, the share that nobody kills."""


def kill_crowds(place: SqlitePlace, folder: Path, kills: int, seed: int) -> Tally:
    """So many kills, on as many ledgers as they need."""
    rng = random.Random(f"crowds/{seed}")
    tally = Tally()
    while tally.done["kills"] < kills:
        url = place.new()
        journals = _crowd(url, folder, min(_GENERATION, kills - tally.done["kills"]), rng, tally)
        _check(url, journals, tally)
        place.drop(url)
    return tally


def _crowd(url: str, folder: Path, kills: int, rng: random.Random, tally: Tally) -> list[Path]:
    """Let processes come and go until so many were killed; what they said they were told."""
    journals: list[Path] = []
    there: dict[int, bool] = {}
    """By process id: whether it is to be killed."""
    while kills or there:
        while kills and len(there) < _BESIDE:
            journals.append(folder / f"crowd{tally.done['processes that came']}")
            tally.done["processes that came"] += 1
            there[_send(url, journals[-1], f"{rng.random()}")] = rng.random() > _STAYS
        time.sleep(rng.uniform(0, 0.12))
        child = rng.choice(list(there))
        killed = there.pop(child) and kills > 0
        if killed:
            os.kill(child, signal.SIGKILL)
        status = wait(child)
        if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL:
            kills -= 1
            tally.done["kills"] += 1
            tally.done["killed beside others that come and go"] += 1
        else:
            tally.done["left by themselves"] += 1
            tally.hold(UNHURT, status == 0, f"a process of a crowd failed with {status}")
    return journals


def _send(url: str, journal: Path, seed: str) -> int:
    """Fork a process that opens the ledger again and again, several times at once."""
    journal.touch()

    async def come_and_go() -> None:
        told = Journal(journal)
        listen(told)
        rng = random.Random(seed)
        until = time.monotonic() + rng.uniform(0.2, 1.5)

        async def visits(number: int) -> None:
            while time.monotonic() < until:
                async with Ledger.open(url) as ledger:
                    log = await ledger.start(making.start(new_run_id(), number))
                    for step in range(rng.randint(1, 6)):
                        id = f"{log.run}s{step}"
                        await log.intend(making.intent(id, (f"{id}parent",)))
                        await log.judge(making.judged(id, rng))
                    await log.finish(RunStatus.DONE, "left")

        try:
            await asyncio.gather(*(visits(number) for number in range(_RUNS)))
        except SecateurError as error:
            told.write("error", str(error))

    return fork(come_and_go)


def _check(url: str, journals: Iterable[Path], tally: Tally) -> None:
    """Everything that was acknowledged to anybody, and every chain."""
    said = Testimony()
    for journal in journals:
        each = read(journal)
        errors = [words for words in each.words if words[0] == "error"]
        tally.hold(UNHURT, not errors, f"{errors[:1]}")
        said.add(each)
        journal.unlink()
    owed = sum(counts.total() for counts in said.owed.values())
    tally.done["events acknowledged"] += owed
    tally.done["ledgers"] += 1
    try:
        with reading(url) as connection:
            check_runs(connection, said, said.asked, tally)
            found = verification.verify(connection.engine)
            tally.hold(CHAINS, found.ok, f"the whole ledger: {found.first_bad}")
    except (SecateurError, DBAPIError) as error:
        tally.hold(ACKNOWLEDGED, False, f"the ledger cannot be read: {error}", owed)
