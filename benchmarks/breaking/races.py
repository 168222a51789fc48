"""Two processes that write to one run at once: each place in its chain has one winner."""

import asyncio
import os
import random
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from secateur.benchmarks.breaking import making
from secateur.benchmarks.breaking.checks import check_runs, reading
from secateur.benchmarks.breaking.databases import Place
from secateur.benchmarks.breaking.forking import fork, in_child, wait
from secateur.benchmarks.breaking.journal import Journal, Testimony, listen, read
from secateur.benchmarks.breaking.tally import Tally
from secateur.gates.errors import SecateurError
from secateur.runtime.ledger.ledger import Ledger, new_run_id
from secateur.runtime.ledger.writing.runlog import RunLog

__all__ = ["race"]

ONE_WINS = "of two writers of one run, one goes on"
ONE_LINE = "the other one is refused in one line"
OTHERS = "its other runs are not held up"


def race(place: Place, folder: Path, rounds: int, seed: int) -> Tally:
    """So many races of two processes for the next event of a run; some for its first."""
    rng = random.Random(f"races/{seed}")
    tally = Tally()
    url = place.new()
    contested = new_run_id()
    in_child(lambda: _begin(url, contested))
    rooms = [_Racer(folder, url, name) for name in ("left", "right")]
    run = contested
    for number in range(rounds):
        first = number % 8 == 7  # this time the race is for the start of a new run
        if first:
            run = new_run_id()
        elif number % 8 == 0:
            run = contested
        for racer in rooms:
            racer.tell(f"{'start' if first else 'append'} {run} {number} {rng.random() * 0.002}")
        for racer in rooms:
            racer.hear()
        for racer in rooms:
            racer.tell("go")
        ends = [racer.hear() for racer in rooms]
        wins = [end for end in ends if end.startswith("won")]
        tally.done["races for the first event" if first else "races for the next event"] += 1
        tally.hold(ONE_WINS, len(wins) == 1, f"round {number}: {ends}")
        for end in ends:
            tally.hold(ONE_LINE, end.startswith(("won", "refused")), end)
            tally.hold(OTHERS, end.endswith("; own written"), end)
    for racer in rooms:
        racer.end()
    said = Testimony()
    for racer in rooms:
        said.add(read(racer.journal))
    said.asked.setdefault(contested, Counter())[("run_started", None, None, None)] += 1
    with reading(url) as connection:
        check_runs(connection, said, said.asked, tally)
    return tally


async def _begin(url: str, run: str) -> None:
    async with Ledger.open(url) as ledger:
        await ledger.start(making.start(run, 1))


class _Racer:
    """One of the two processes, and the pipes to it."""

    def __init__(self, folder: Path, url: str, name: str) -> None:
        self.journal = folder / f"race-{name}"
        orders, self._tell = os.pipe()
        self._hear, answers = os.pipe()
        self._child = fork(lambda: _race(url, name, self.journal, orders, answers))
        os.close(orders)
        os.close(answers)
        self._answers = os.fdopen(self._hear, "r")

    def tell(self, order: str) -> None:
        os.write(self._tell, f"{order}\n".encode())

    def hear(self) -> str:
        return self._answers.readline().rstrip("\n")

    def end(self) -> None:
        self.tell("end")
        wait(self._child)
        self._answers.close()
        os.close(self._tell)


async def _race(url: str, name: str, journal: Path, orders: int, answers: int) -> None:
    listen(Journal(journal))
    loop = asyncio.get_running_loop()
    lines = os.fdopen(orders, "r")

    def say(answer: str) -> None:
        os.write(answers, f"{' '.join(answer.split())}\n".encode())

    async with Ledger.open(url) as ledger:
        own = await ledger.start(making.start(new_run_id(), 2))
        await own.place(making.placed("root"))
        while (order := await loop.run_in_executor(None, lines.readline)).split() != ["end"]:
            what, run, number, delay = order.split()
            log = None if what == "start" else await ledger.reopen(run)
            say("ready")
            await loop.run_in_executor(None, lines.readline)
            await asyncio.sleep(float(delay))
            ends = await asyncio.gather(
                _contest(ledger, log, run, f"{name}{number}"),
                own.judge(making.judged(f"own{number}", random.Random(number))),
                return_exceptions=True,
            )
            say(_told(ends))


async def _contest(ledger: Ledger, log: RunLog | None, run: str, id: str) -> None:
    if log is None:
        await ledger.start(making.start(run, 3))
    else:
        await log.resumed(making.start(run, 1), f"for {id}")


def _told(ends: Sequence[BaseException | None]) -> str:
    contest, own = ends
    match contest:
        case None:
            end = "won"
        case SecateurError() if "\n" not in str(contest):
            end = f"refused: {contest}"
        case _:
            end = f"broke: {contest!r}"
    return f"{end}; own {'written' if own is None else repr(own)}"
