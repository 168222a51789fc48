"""A clock that goes backwards: the chain keeps the order, and questions about time make sense."""

import random
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path

from secateur.agents.thought import Status
from secateur.benchmarks.breaking import making
from secateur.benchmarks.breaking.databases import Place
from secateur.benchmarks.breaking.forking import in_child
from secateur.benchmarks.breaking.tally import Tally
from secateur.runtime.ledger.events import RunStatus
from secateur.runtime.ledger.ledger import Ledger, new_run_id
from secateur.runtime.ledger.reading.audit import AuditLog
from secateur.runtime.ledger.writing.appending import Clock

__all__ = ["turn_back_clocks"]

IN_ORDER = "events stand in the order of the chain, whatever the clock said"
WHOLE = "a chain with a clock that went back verifies"
SINCE = "what was pruned since a moment is what says so, newest first"


class _Unsteady:
    """A wall clock and a monotonic one that jump, backwards as often as forwards."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._at = datetime(2026, 1, 1, tzinfo=UTC)
        self._ns = 10**12

    def now(self) -> datetime:
        far = self._rng.choice((0.001, 1, 3600, 86_400 * 40, 86_400 * 365))
        self._at += timedelta(seconds=self._rng.uniform(-1, 1) * far)
        self._at = max(datetime(1999, 1, 1, tzinfo=UTC), self._at)
        return self._at

    def monotonic_ns(self) -> int:
        self._ns += self._rng.randint(-(10**9), 10**9)
        return self._ns


def turn_back_clocks(place: Place, folder: Path, runs: int, seed: int) -> Tally:
    """So many runs under such a clock."""
    rng = random.Random(f"clocks/{seed}")
    tally = Tally()
    url = place.new()
    written = in_child(lambda: _write(url, runs, rng))
    with AuditLog(url) as audit:
        found = audit.verify()
        tally.hold(WHOLE, found.ok, str(found.first_bad))
        cut: list[tuple[str, str]] = []
        for run, told in written.items():
            events = list(audit.events(run))
            times = [event.at for event in events]
            back = sum(b < a for a, b in pairwise(times))
            tally.done["times that the clock went back"] += back
            there = [event.thought for event in events if event.kind == "judged"]
            tally.hold(IN_ORDER, [e.seq for e in events] == list(range(len(events))), run)
            tally.hold(IN_ORDER, there == told, f"run {run}: {there[:3]} … not {told[:3]} …")
            cut += [
                (thought.at, thought.id)
                for thought in audit.thoughts(run)
                if thought.status is Status.PRUNED
            ]
        for at, _ in rng.sample(cut, min(20, len(cut))):
            since = datetime.fromisoformat(at)
            answer = [(row.at, row.thought) for row in audit.pruned(since=since, limit=None)]
            tally.hold(SINCE, sorted(answer) == sorted(c for c in cut if c[0] >= at), at)
            newest_first = sorted((time for time, _ in answer), reverse=True)
            tally.hold(SINCE, [time for time, _ in answer] == newest_first, at)
            paged = [(row.at, row.thought) for row in audit.pruned(since=since, limit=3).onward()]
            tally.hold(SINCE, paged == answer, f"{at}, asked for three by three")
    return tally


async def _write(url: str, runs: int, rng: random.Random) -> dict[str, list[str]]:
    """Runs under the clock; by run, the thoughts in the order in which they were judged."""
    clock = _Unsteady(rng)
    written: dict[str, list[str]] = {}
    given = Clock(now=clock.now, monotonic_ns=clock.monotonic_ns)
    async with Ledger.open(url, clock=given) as ledger:
        for number in range(runs):
            log = await ledger.start(making.start(new_run_id(), number))
            written[log.run] = [f"r{number}t{step}" for step in range(20)]
            for id in written[log.run]:
                await log.intend(making.intent(id))
                await log.judge(making.judged(id, rng))
            await log.finish(RunStatus.DONE)
    return written
