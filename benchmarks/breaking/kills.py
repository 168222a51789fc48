"""kill -9, again and again, at random moments and at every named point."""

import json
import os
import random
import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, assert_never

from secateur.benchmarks.breaking.checks import (
    ALONE,
    CHAINS,
    GOES_ON,
    UNHURT,
    WAITS,
    Event,
    check_desks,
    check_effects,
    check_runs,
    reading,
)
from secateur.benchmarks.breaking.databases import Place
from secateur.benchmarks.breaking.forking import wait, wait_for
from secateur.benchmarks.breaking.journal import Testimony, read
from secateur.benchmarks.breaking.points import Trap
from secateur.benchmarks.breaking.tally import Tally
from secateur.benchmarks.breaking.victim import Errand, Left, effects_of, send
from secateur.runtime.engines.checkpoint import Checkpoint
from secateur.runtime.ledger.events import ErasedBlob, EventKind
from secateur.runtime.ledger.integrity import verification, verifier

__all__ = ["kill_many"]

_GENERATION = 25
"""So many kills share a ledger, one after the other, before a new one is made."""

_AGENTS_PASS = (
    *(
        f"{when} {kind} is queued"
        for kind in ("model_intended", "judged", "tool_intended", "tool_returned", "run_finished")
        for when in ("before", "after")
    ),
    "before COMMIT",
    "after COMMIT",
)
"""Points that every run of the ops desk passes."""
_COPYING = ["checkpoint", "begins"]


@dataclass(frozen=True, slots=True)
class _Kill:
    """How one victim is to die."""

    kind: Literal["random", "beside", "agents", "point", "opening", "checkpoint"]
    point: str = ""
    times: int = 1


@dataclass(slots=True)
class _Generation:
    """A ledger, and what all its victims said of it."""

    url: str
    said: Testimony = field(default_factory=Testimony)
    left: tuple[Left, ...] = ()
    """Runs that the last victim was at."""
    kills: int = 0


@dataclass(slots=True)
class _Killer:
    place: Place
    folder: Path
    checkpoint: Checkpoint
    rng: random.Random
    tally: Tally = field(default_factory=Tally)
    sent: int = 0

    def errand(self, ledger: _Generation) -> Errand:
        """A plain one: produce for a while, and go on with what was left."""
        self.sent += 1
        return Errand(
            number=self.sent,
            url=ledger.url,
            folder=self.folder,
            seed=f"{self.rng.random()}",
            seconds=0.6,
            go_on=ledger.left,
        )

    def rehearse(self) -> dict[str, int]:
        """Let one victim live, to learn the named points and how often each is passed."""
        ledger = _Generation(self.place.new())
        thorough = replace(self.errand(ledger), every_way=True, seconds=30.0)
        # Model calls are left open, and thoughts to erase.
        self.kill(ledger, replace(thorough, trap=Trap("before judged is queued", 9)))
        # The next one goes on with what it left, in every way there is.
        passed = self.live(ledger, replace(self.errand(ledger), every_way=True, seconds=30.0))
        fresh = _Generation(self.place.new())
        made = self.live(fresh, replace(self.errand(fresh), seconds=0.05))
        passed["opening: before a statement"] = made["opening: before a statement"]
        for kind in EventKind:
            for when in ("before", "after"):
                assert f"{when} {kind} is queued" in passed, f"no {kind} was ever appended"
        return passed

    def live(self, ledger: _Generation, errand: Errand) -> dict[str, int]:
        """Send one that nobody kills; the points that it passed, and how often."""
        status = wait(send(errand, None))
        self.tally.hold(GOES_ON, status == 0, "a rehearsal failed")
        said = self.check(ledger, errand)
        return next(words[1] for words in said.words if words[0] == "passed")

    def kill(self, ledger: _Generation, errand: Errand, *, once_open: bool = False) -> None:
        """Send a victim, see it die, and look at what it left."""
        ready, tell = os.pipe()
        child = send(errand, self.checkpoint if errand.agents else None, tell)
        os.close(tell)
        if errand.trap is None and not errand.checkpoints:
            # Some die as they open the ledger; the others when they have said so much or so.
            if once_open or self.rng.random() < 0.85:
                os.read(ready, 1)
                wait_for(errand.journal, self.rng.randrange(9_000 if errand.agents else 30_000))
            time.sleep(self.rng.uniform(0, 0.01))
            os.kill(child, signal.SIGKILL)
        status = wait(child)
        os.close(ready)
        said = self.check(ledger, errand)
        if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL:
            self.tally.done["kills"] += 1
            self.tally.done[f"killed {_where(said, errand)}"] += 1
        else:
            self.tally.done["ended before the kill"] += 1
            self.tally.hold(GOES_ON, status == 0, f"victim {errand.number} failed")

    def kill_beside(self, ledger: _Generation) -> None:
        """Kill one of two processes that write to the ledger; the other one must not feel it."""
        other = replace(self.errand(ledger), go_on=(), seconds=0.3)
        survivor = send(other, None)
        self.kill(ledger, self.errand(ledger))
        self.tally.hold(UNHURT, wait(survivor) == 0, f"victim {other.number} failed")
        self.check(ledger, other)

    def check(self, ledger: _Generation, errand: Errand) -> Testimony:
        """What the victim left behind."""
        said = read(errand.journal)
        errors = [words for words in said.words if words[0] == "error"]
        self.tally.hold(GOES_ON, not errors, str(errors[:1]))
        waits = [words[1] for words in said.words if words[0] == "waits"]
        for setting in waits:
            self.tally.hold(WAITS, setting in ("2", "on"), f"synchronous is {setting}")
        ledger.said.add(said)
        self.tally.done["events acknowledged"] += sum(c.total() for c in said.owed.values())
        if not said.asked:
            return said  # it died before it had a ledger
        with reading(ledger.url) as connection:
            events = check_runs(connection, ledger.said, said.asked, self.tally)
            effects = [(run, it) for run in said.asked for it in effects_of(errand, run)]
            self.tally.done["effects of tools"] += len(effects)
            left = [] if errand.agents else [_left(found) for found in events.values() if found]
            self.rng.shuffle(left)
            ledger.left = tuple(sorted(left, key=lambda run: not run.open)[:2])
            check_effects(events, effects, self.tally)
            desks = list(self.folder.glob(f"desk{errand.number}-*"))
            check_desks(connection, events, desks, self.tally)
        return said

    def close(self, ledger: _Generation) -> None:
        """Look at the whole ledger once more, after all its victims."""
        with reading(ledger.url) as connection:
            check_runs(connection, ledger.said, ledger.said.asked, self.tally)
            found = verification.verify(connection.engine)
            self.tally.hold(CHAINS, found.ok, f"the whole ledger: {found.first_bad}")
        self.tally.done["ledgers"] += 1
        if self.place.name == "sqlite":
            events, _, wrong = verifier.verify(
                verifier.open_ledger(Path(ledger.url)), None, None, None, None
            )
            self.tally.hold(ALONE, not wrong and events == found.events, f"{wrong[:1]}")
        self.place.drop(ledger.url)


def _left(events: Sequence[Event]) -> Left:
    """What there is to do about a run whose process is gone."""
    pairs = {kind: set[tuple[str, int]]() for kind in EventKind}
    texts: list[ErasedBlob] = []
    erased: set[str] = set()
    for event in events:
        pairs[event["kind"]].add((event["thought_id"], event["attempt"]))
        if event["kind"] == EventKind.JUDGED:
            texts.append(ErasedBlob(json.loads(event["blobs"])["text"], event["seq"], "text"))
        elif event["kind"] == EventKind.ERASED:
            erased |= json.loads(event["body"])["blobs"].keys()
    left = pairs[EventKind.MODEL_INTENDED] - pairs[EventKind.JUDGED] - pairs[EventKind.ABANDONED]
    whole = [text for text in texts if text.digest not in erased]
    return Left(events[0]["run_id"], tuple(sorted(left)), whole[-1] if whole else None)


def _where(said: Testimony, errand: Errand) -> str:
    if said.reached is not None:
        return f"an agent's run {said.reached}" if errand.agents else said.reached
    if [words for words in said.words if words[0] == "checkpoint"][-1:] == [_COPYING]:
        return "during a WAL checkpoint"
    return "at a random moment of an agent's run" if errand.agents else "at a random moment"


def kill_many(place: Place, folder: Path, checkpoint: Checkpoint, kills: int, seed: int) -> Tally:
    """So many kills on this place, named points and random moments mixed."""
    killer = _Killer(place, folder, checkpoint, random.Random(f"{place.name}/{seed}"))
    passed = killer.rehearse()
    opening = passed.pop("opening: before a statement")
    points = sorted(passed)
    plan = [_Kill("point", points[n % len(points)]) for n in range(kills * 2 // 5)]
    plan += [_Kill("opening", times=n % opening + 1) for n in range(kills // 20)]
    plan += [_Kill("agents")] * (kills // 10)
    plan += [_Kill("beside")] * (kills // 20)
    if place.name == "sqlite":
        plan += [_Kill("checkpoint")] * (kills // 20)
    plan += [_Kill("random")] * (kills - len(plan))
    killer.rng.shuffle(plan)
    ledger = _Generation(place.new())
    while killer.tally.done["kills"] < kills:
        if ledger.kills == _GENERATION:
            killer.close(ledger)
            ledger = _Generation(place.new())
        ledger.kills += 1
        kill = plan.pop() if plan else _Kill("random")
        match kill.kind:
            case "opening":
                fresh = _Generation(place.new())
                trap = Trap("opening: before a statement", kill.times)
                killer.kill(fresh, replace(killer.errand(fresh), trap=trap))
                killer.kill(fresh, killer.errand(fresh), once_open=True)
                killer.close(fresh)
            case "point":
                often = min(passed[kill.point], 8)
                trap = Trap(kill.point, killer.rng.randint(1, often))
                killer.kill(ledger, replace(killer.errand(ledger), trap=trap))
            case "agents":
                errand = replace(killer.errand(ledger), agents=killer.rng.randint(1, 3), go_on=())
                if killer.rng.random() < 0.5:
                    point = killer.rng.choice(_AGENTS_PASS)
                    errand = replace(errand, trap=Trap(point, killer.rng.randint(1, 3)))
                killer.kill(ledger, errand)
            case "checkpoint":
                killer.kill(ledger, replace(killer.errand(ledger), checkpoints=True))
            case "random":
                killer.kill(ledger, killer.errand(ledger))
            case "beside":
                killer.kill_beside(ledger)
            case unknown:
                assert_never(unknown)
    killer.live(ledger, replace(killer.errand(ledger), seconds=0.05))
    killer.close(ledger)
    return killer.tally
