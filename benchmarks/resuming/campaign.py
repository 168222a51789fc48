"""Kill a run, resume it until it ends, and see what became of it."""

import gc
import random
import shutil
import signal
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from breaking.forking import fork, in_child, wait

from secateur import AuditLog, Ledger, LocalEngine
from secateur.benchmarks.resuming.cases import Case
from secateur.benchmarks.resuming.points import Point, Points
from secateur.runtime.engines.checkpoint import Checkpoint
from secateur.runtime.ledger import connect, tables
from secateur.runtime.ledger.events import RunStatus
from secateur.runtime.ledger.reading.waiting import waiting
from secateur.runtime.recovery.history import History, read_history
from secateur.runtime.review.decisions import decide

__all__ = ["Campaign", "FaultError", "Kill", "Tally", "warm"]


def warm() -> None:
    """Import and compute in the parent what every child would."""
    import langgraph.checkpoint.memory  # noqa: F401

    import secateur.runtime.engines.local.worker
    import secateur.runtime.graph  # noqa: F401
    from secateur.runtime.ledger.provenance import code_digest

    code_digest()
    gc.collect()
    gc.freeze()  # what children never touch is not copied for them


_MOST_PROCESSES = 16
"""More than any run here can need."""


class FaultError(AssertionError):
    """Something that must hold, and does not."""


@dataclass(frozen=True)
class Kill:
    """Where a process dies: in the so-manieth of those that a run takes."""

    point: Point
    process: int = 0

    def __str__(self) -> str:
        return f"{self.point} of process {self.process}"


@dataclass
class Tally:
    """What a campaign saw."""

    kills: Counter[str] = field(default_factory=Counter)
    """By the point's name."""
    seen: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)


@dataclass
class Ended:
    """A run that came to its end, over however many processes."""

    run: str
    history: History
    graph: dict[str, tuple[Any, ...]]
    effects: int
    killed: bool
    passed: list[Counter[str]]
    """What each process passed; only of a run that nobody killed."""


class Campaign:
    """One case on one database, with one checkpoint that is loaded already."""

    def __init__(self, case: Case, checkpoint: Checkpoint, url: str, folder: Path) -> None:
        self.case, self.checkpoint, self.url, self.folder = case, checkpoint, url, folder
        self.made = 0
        self.tally = Tally()
        self.whole = self.drive(None)
        """The run as it is when nobody kills it."""

    def points(self) -> Iterator[Kill]:
        """Every point that the uninterrupted run passes."""
        for process, passed in enumerate(self.whole.passed):
            for name, times in sorted(passed.items()):
                for time in range(1, times + 1):
                    yield Kill(Point(name, time), process)

    def named(self, rng: random.Random) -> list[Kill]:
        """Each named point once, at one of the times that it is passed."""
        by_name: dict[tuple[int, str], list[Kill]] = {}
        for kill in self.points():
            by_name.setdefault((kill.process, kill.point.name), []).append(kill)
        return [rng.choice(kills) for kills in by_name.values()]

    def kill(self, kills: Iterable[Kill]) -> None:
        """Kill one run for each of these, and check what comes of it."""
        for kill in kills:
            ended = self.drive(kill)
            try:
                self.check(kill, ended)
            except FaultError as fault:
                self.tally.faults.append(f"{self.case.name}, {kill}: {fault}")

    # One run

    def drive(self, kill: Kill | None) -> Ended:
        """Run the case to its end: killed once, resumed, decided upon by a person."""
        self.made += 1
        sandbox = self.folder / f"{self.case.name}{self.made}"
        before = set(self.runs())
        run: str | None = None
        passed: list[Counter[str]] = []
        killed = False
        decides: History | None = None
        for process in range(_MOST_PROCESSES):
            points = Points(kill.point if kill is not None and kill.process == process else None)
            killed |= self.process(sandbox, run, decides, points, passed if kill is None else None)
            run = run or next(iter(set(self.runs()) - before), None)
            if run is None:  # killed before the ledger knew of it
                continue
            history = self.read(run)
            waits = history.ended is RunStatus.ESCALATED and not history.decided_since
            decides = history if waits else None
            if history.ended not in (None, RunStatus.ESCALATED):
                break
        else:
            raise FaultError(f"{self.case.name}: no end after {_MOST_PROCESSES} processes ({kill})")
        effects = self.case.effects(sandbox)
        shutil.rmtree(sandbox, ignore_errors=True)
        return Ended(run, history, self.graph(run), effects, killed, passed)

    def process(
        self,
        sandbox: Path,
        run: str | None,
        decides: History | None,
        points: Points,
        passed: list[Counter[str]] | None,
    ) -> bool:
        """One process of a run: a person who decides, or the run itself; whether it was killed.
        What it passes is added to ``passed``, where nobody kills it."""

        async def live() -> Counter[str]:
            points.install()
            if decides is not None:
                await self.decide(decides, sandbox)
            else:
                await self.work(sandbox, run)
            return points.passed

        if passed is not None:
            passed.append(in_child(live))
            return False
        status = wait(fork(live))
        if status not in (0, signal.SIGKILL):
            raise FaultError(f"a process ended with status {status}")
        return status == signal.SIGKILL

    async def work(self, sandbox: Path, run: str | None) -> None:
        """Begin the run, or go on with it."""
        engine = LocalEngine(self.checkpoint)
        async with Ledger.open(self.url) as ledger:
            if run is None:
                await self.case.agent.run(
                    self.case.task,
                    policy=self.case.policy,
                    engine=engine,
                    ledger=ledger,
                    seed=self.case.seed,
                    sandbox=sandbox,
                )
            else:
                await self.case.agent.resume(run, engine=engine, ledger=ledger)
        await engine.aclose()

    async def decide(self, history: History, sandbox: Path) -> None:
        """The person: approves what a rule asks about, and looks whether an unknown call was
        made."""
        async with Ledger.open(self.url) as ledger:
            told = sum(call.text is not None for call in self.calls(history))
            for found in await ledger.ask(lambda c: waiting(c, history.run)):
                outcome = None
                if found.about == "tool":
                    outcome = "done" if self.case.effects(sandbox) > told else "not done"
                await decide(
                    ledger, found.thought, approve=True, by="ada", reason="seen", outcome=outcome
                )

    # What is there afterwards

    def check(self, kill: Kill, ended: Ended) -> None:
        """Raises :class:`FaultError` for whatever must not be."""
        seen, history, whole = self.tally.seen, ended.history, self.whole
        self.tally.kills[kill.point.name] += ended.killed
        if not ended.killed:
            seen["not reached: the process took another way"] += 1
            return
        unknown = [id for id, found in history.decisions.items() if found.about == "tool"]
        made = [id for id in unknown if history.decisions[id].outcome == "done"]
        answered = sum(call.text is not None for call in self.calls(history))
        if ended.effects != answered + len(made):
            raise FaultError(
                f"{ended.effects} effects of {answered} answered and {len(made)} found done"
            )
        # A call that was made anew, or an answer in a person's words, may lead elsewhere.
        same_way = not history.abandoned and not unknown
        if same_way and ended.effects != whole.effects:
            raise FaultError(f"{ended.effects} effects, uninterrupted {whole.effects}")
        seen["effects, each happened once"] += ended.effects
        seen["tool calls that nobody could know of, decided by a person"] += len(unknown)
        seen["model calls lost and made anew"] += len(history.abandoned)
        if same_way and history.ended is not whole.history.ended:
            raise FaultError(f"ended as {history.ended}, uninterrupted {whole.history.ended}")
        if same_way:
            if ended.graph != whole.graph:
                raise FaultError(f"another graph: {_difference(whole.graph, ended.graph)}")
            seen["graphs equal to the uninterrupted one"] += 1
        asked = Counter(id for id in self.asked(ended.run))
        if twice := [id for id, times in asked.items() if times > 1]:
            raise FaultError(f"model calls made twice under one id: {twice}")
        with AuditLog(self.url) as audit:
            if not audit.verify(ended.run).ok:
                raise FaultError("the chain does not verify")
        seen["chains that verify"] += 1

    def calls(self, history: History) -> list[Any]:
        """Calls of the tools that change something."""
        tools = {
            name: tool
            for step in self.case.agent.plan.steps()
            for name, tool in getattr(step, "tools", {}).items()
        }
        return [call for call in history.calls.values() if not tools[call.tool].idempotent]

    def runs(self) -> list[str]:
        """Runs that the ledger has; none where there is no ledger yet."""
        if not self._there():
            return []
        with self._asking() as connection:
            return list(connection.execute(sa.select(tables.run.c.id)).scalars())

    def read(self, run: str) -> History:
        """A run's history, its chain checked."""
        with self._asking() as connection:
            return read_history(connection, run)

    def asked(self, run: str) -> list[str]:
        """Thoughts that a model was asked for."""
        event = tables.event.c
        query = sa.select(event.thought_id).where(
            event.run_id == run, event.kind == "model_intended"
        )
        with self._asking() as connection:
            return list(connection.execute(query).scalars())

    def graph(self, run: str) -> dict[str, tuple[Any, ...]]:
        """All thoughts of a run by id, without when and how long."""
        row = tables.thought.c
        columns = (
            row.parents, row.operation, row.kind, row.child, row.attempt, row.status, row.text,
            row.value, row.score, row.tokens, row.acted, row.reason, row.action, row.tag,
        )  # fmt: skip
        query = sa.select(row.id, *columns).where(row.run_id == run)
        with self._asking() as connection:
            return {id: tuple(rest) for id, *rest in connection.execute(query)}

    def _there(self) -> bool:
        return "://" in self.url or Path(self.url).exists()

    def _asking(self) -> Any:
        engine = connect.connect(self.url, read_only=True)
        return _Closing(engine)


class _Closing:
    """A connection of an engine that is let go of with it, so that no child inherits it."""

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine

    def __enter__(self) -> sa.Connection:
        self._connection = self._engine.connect()
        return self._connection

    def __exit__(self, *_: object) -> None:
        self._connection.close()
        self._engine.dispose()


def _difference(whole: dict[str, tuple[Any, ...]], other: dict[str, tuple[Any, ...]]) -> str:
    lacking = [whole[id] for id in whole.keys() - other.keys()]
    new = [other[id] for id in other.keys() - whole.keys()]
    changed = [
        (whole[id], other[id]) for id in whole.keys() & other.keys() if whole[id] != other[id]
    ]
    return f"lacking {lacking}, new {new}, changed {changed}"
