"""The process that is going to be killed: producers and agents that drive a real ledger.

It is forked from a parent that has everything imported and no event loop, so that a kill costs
tens of milliseconds.
"""

import asyncio
import os
import random
import sqlite3
import threading
import time
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from signal import SIGKILL

from secateur.agents.desk.agent import opsdesk
from secateur.benchmarks.breaking import making
from secateur.benchmarks.breaking.forking import fork
from secateur.benchmarks.breaking.journal import Journal, listen
from secateur.benchmarks.breaking.points import Points, Trap, install
from secateur.gates.errors import SecateurError
from secateur.gates.verdict import Action
from secateur.runtime.agent import Agent
from secateur.runtime.engines.checkpoint import Checkpoint
from secateur.runtime.engines.local.engine import LocalEngine
from secateur.runtime.ledger.events import ErasedBlob, RunStatus
from secateur.runtime.ledger.ledger import Ledger, new_run_id
from secateur.runtime.ledger.writing.runlog import RunLog

__all__ = ["Errand", "Left", "effects_of", "fill", "send"]

TASKS = (
    "restart web and confirm it is up",
    "rotate the mail key and confirm login works",
    "read the budget and report the total",
    "back up the roster and test the copy",
)
_CHECKPOINTS = ("PASSIVE", "FULL", "RESTART", "TRUNCATE")


@dataclass(frozen=True, slots=True)
class Left:
    """A run that another victim left behind."""

    run: str
    open: tuple[tuple[str, int], ...]
    """Thoughts and attempts of model calls that were never judged."""
    erase: ErasedBlob | None
    """A text that shall go."""


@dataclass(frozen=True, slots=True)
class Errand:
    """What one victim does."""

    number: int
    url: str
    folder: Path
    """Where its sandboxes are, and its journal."""
    seed: str
    seconds: float
    """It ends by itself after this long, if nobody kills it."""
    trap: Trap | None = None
    every_way: bool = False
    """Whether every way to go on is gone once, one after the other; else they are drawn."""
    agents: int = 0
    """So many agents run instead of the producers."""
    go_on: tuple[Left, ...] = ()
    """Runs to be gone on with."""
    log_sizes: bool = False
    """Whether SQLite's log only grows, and the journal notes how long it is."""
    checkpoints: bool = False
    """Whether a second connection makes SQLite checkpoints all the while."""

    @property
    def journal(self) -> Path:
        """Where it says what was acknowledged."""
        return self.folder / f"journal{self.number}"

    def sandbox(self, run: str) -> Path:
        """Where a run's tools act."""
        return self.folder / f"sandbox-{run}"


def send(errand: Errand, checkpoint: Checkpoint | None, ready: int | None = None) -> int:
    """Fork the victim; it writes one byte to ``ready`` once the ledger is open."""
    errand.journal.touch()  # it may die before it gets there
    return fork(lambda: _work(errand, checkpoint, ready))


async def _work(errand: Errand, checkpoint: Checkpoint | None, ready: int | None) -> None:
    journal = Journal(errand.journal, Path(f"{errand.url}-wal") if errand.log_sizes else None)
    listen(journal)
    points = Points(journal, errand.trap)
    install(points, keep_log=errand.log_sizes)
    ledger = Ledger.open(errand.url)
    points.phase = "writing"
    if ready is not None:
        os.write(ready, b"!")
    rng = random.Random(errand.seed)
    stop = asyncio.Event()
    asyncio.get_running_loop().call_later(errand.seconds, stop.set)
    if errand.checkpoints:
        _checkpoint_until_death(errand, journal, random.Random(f"{errand.seed}/checkpoints"))
    try:
        if errand.agents:
            assert checkpoint is not None
            await _run_agents(errand, checkpoint, ledger, rng)
        else:
            await _produce(errand, ledger, rng, stop)
    except SecateurError as error:
        journal.write("error", str(error))
    points.phase = "closing"
    points.reach("closing: before the writer is told")
    await ledger.aclose()
    journal.write("passed", dict(points.passed))


async def _run_agents(
    errand: Errand, checkpoint: Checkpoint, ledger: Ledger, rng: random.Random
) -> None:
    """Real agents with the shipped model, side by side."""
    engine = LocalEngine(checkpoint)

    async def one(number: int) -> None:
        await Agent.of(opsdesk).run(
            rng.choice(TASKS),
            policy="prune",
            engine=engine,
            ledger=ledger,
            seed=rng.randrange(1000),
            sandbox=errand.folder / f"desk{errand.number}-{number}",
        )

    await asyncio.gather(*(one(number) for number in range(errand.agents)))
    await engine.aclose()


async def _produce(errand: Errand, ledger: Ledger, rng: random.Random, stop: asyncio.Event) -> None:
    """Several runs with several producers each, until the end or the kill."""

    async def one_run(number: int) -> None:
        while not stop.is_set():
            log = await ledger.start(making.start(new_run_id(), number))
            await fill(errand, log, rng, stop, _WAYS if errand.every_way else rng.randint(1, 5))
            if errand.every_way:
                return

    async def one_left(left: Left) -> None:
        log = await ledger.reopen(left.run)
        if left.erase is not None:
            # The journal knows it by its digest.
            await log.erased([left.erase], by="breaker", reason=left.erase.digest)
        await log.resumed(making.start(left.run, 0), f"after victim {errand.number - 1}")
        for thought, attempt in left.open:
            await log.abandon(thought, attempt, "its process was killed")
        await fill(errand, log, rng, stop, rng.randint(1, 3))

    await asyncio.gather(
        *(one_left(left) for left in errand.go_on),
        *(one_run(number) for number in range(rng.randint(1, 4))),
    )


async def fill(
    errand: Errand, log: RunLog, rng: random.Random, stop: asyncio.Event, steps: int
) -> None:
    """A run's whole life: some producers, so many steps each, and its end."""
    every_way = errand.every_way
    sandbox = errand.sandbox(log.run)
    sandbox.mkdir(exist_ok=True)
    prefix = f"v{errand.number}"
    await log.place(making.placed(f"{prefix}root", operation="task", kind="task", depth=0))

    async def produce(number: int) -> None:
        for step in range(steps):
            if stop.is_set():
                return
            way = step if every_way else rng.randrange(_WAYS)
            await _step(log, rng, sandbox, f"{prefix}p{number}s{step}", way)

    producers = 1 if every_way else rng.randint(1, 3)
    await asyncio.gather(*(produce(number) for number in range(producers)))
    await log.finish(RunStatus.DONE, "all is done")


_WAYS = 8


async def _step(log: RunLog, rng: random.Random, sandbox: Path, id: str, way: int) -> None:
    """One thought, and one of the ways in which a run goes on from there."""
    await log.intend(making.intent(id, (f"{id}parent",)))
    if way == 0:
        await log.switch(id, 0, making.switch(), f"restart web\n> report of {id}, again")
    asks = Action.ESCALATE if way in (3, 4) else None
    await log.judge(making.judged(id, rng, asks))
    match way:
        case 0:
            await log.score(id, rng.random(), f"score {id}")
        case 1:
            await log.score(id, rng.random(), f"first {id}")
            await log.select([], [id], f"not kept: {id}")
        case 2:
            await log.note(f"note {id}", {"tokens": rng.randrange(100)}, thought=id)
        case 3:
            await log.escalate(id, f"a rule asks for a person: {id}")
            approve = rng.random() < 0.5
            await log.decide(id, approve=approve, by="breaker", reason=f"seen {id}")
        case 4:
            await log.escalate(id, f"a rule asks for a person, who does not come: {id}")
        case 5:
            await log.back_up(making.retry(id))
            await log.intend(making.intent(f"{id}again", (f"{id}parent",), attempt=1))
            await log.judge(making.judged(f"{id}again", rng, attempt=1))
        case _:
            await _act(log, sandbox, f"{id}act")


async def _act(log: RunLog, sandbox: Path, id: str) -> None:
    """A tool that leaves a line in a file, after its intent is durable."""
    await log.intend_tool(id, "append", {"line": id})
    await asyncio.to_thread(_append_line, sandbox / "effects", id)
    await log.tool_result(id, "append", f"appended {id}", ok=True, latency_s=0.01)
    await log.place(making.placed(id, kind="act", operation="do", acted="append", depth=2))


def _checkpoint_until_death(errand: Errand, journal: Journal, rng: random.Random) -> None:
    """Make SQLite copy its log into the file every few milliseconds, and die during one copy."""
    begun = threading.Event()
    inside, took = False, 0.002

    def copy() -> None:
        nonlocal inside, took
        # The plain connection: this one is not to die at a named point.
        with closing(
            sqlite3.connect(errand.url, isolation_level=None, factory=sqlite3.Connection)
        ) as connection:
            while True:
                time.sleep(rng.uniform(0.01, 0.06))
                journal.write("checkpoint", "begins")
                began, inside = time.monotonic(), True
                begun.set()
                connection.execute(f"PRAGMA wal_checkpoint({rng.choice(_CHECKPOINTS)})").fetchall()
                took, inside = time.monotonic() - began, False
                journal.write("checkpoint", "ends")

    def kill() -> None:
        while True:
            begun.wait()
            begun.clear()
            time.sleep(rng.uniform(0, took))
            if inside:
                os.kill(os.getpid(), SIGKILL)

    for work in (copy, kill):
        threading.Thread(target=work, daemon=True).start()


def _append_line(path: Path, line: str) -> None:
    with path.open("a") as file:
        file.write(f"{line}\n")
        file.flush()
        os.fsync(file.fileno())


def effects_of(errand: Errand, run: str) -> list[str]:
    """The thoughts whose tool really acted."""
    path = errand.sandbox(run) / "effects"
    return path.read_text().splitlines() if path.exists() else []
