"""All kinds of damage on one database, one after the other, each with its count and its time."""

import json
import os
import shutil
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from secateur.benchmarks.breaking.clocks import turn_back_clocks
from secateur.benchmarks.breaking.crowds import kill_crowds
from secateur.benchmarks.breaking.databases import Database, PostgresPlace, SqlitePlace, open_place
from secateur.benchmarks.breaking.disks import fill_disks
from secateur.benchmarks.breaking.forking import wait_long
from secateur.benchmarks.breaking.images import take_images
from secateur.benchmarks.breaking.kills import kill_many
from secateur.benchmarks.breaking.mutations import mutate_everything
from secateur.benchmarks.breaking.races import race
from secateur.benchmarks.breaking.refusals import refuse_everything
from secateur.benchmarks.breaking.servers import kill_servers
from secateur.benchmarks.breaking.tally import Tally
from secateur.benchmarks.breaking.upgrades import kill_upgrades
from secateur.runtime.engines.checkpoint import Checkpoint

__all__ = ["FULL", "QUICK", "Part", "Sizes", "run_campaign"]


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much of each."""

    kills: int
    crowds: int
    """Kills among several processes on one SQLite file."""
    images: int
    disks: int
    races: int
    backends: int
    servers: int
    clocks: int
    statements: int
    """Of an upgrade's statements, every so-manieth."""
    every: int
    """Of all mutations of rows, every so-manieth."""


FULL = Sizes(
    kills=1000,
    crowds=1000,
    images=30,
    disks=40,
    races=200,
    backends=30,
    servers=12,
    clocks=10,
    statements=1,
    every=1,
)
QUICK = Sizes(
    kills=24,
    crowds=24,
    images=2,
    disks=5,
    races=24,
    backends=2,
    servers=1,
    clocks=2,
    statements=12,
    every=30,
)
_NEEDED_BY_VICTIMS = (
    "langgraph.checkpoint.memory",
    "langgraph.graph",
    "secateur.runtime.engines.local.worker",
)
"""What they would import one by one: here, so that a fork has it."""


@dataclass(frozen=True, slots=True)
class Part:
    """One kind of damage, done."""

    name: str
    tally: Tally
    seconds: float

    def to_json(self) -> dict[str, Any]:
        """As plain data."""
        return {"name": self.name, "seconds": round(self.seconds, 1), **self.tally.to_json()}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> "Part":
        """What :meth:`to_json` made."""
        return cls(data["name"], Tally.from_json(data), data["seconds"])


def run_campaign(
    databases: list[Database], sizes: Sizes, checkpoint: Checkpoint, seed: int
) -> dict[Database, list[Part]]:
    """Each database in a process of its own, side by side."""
    for module in _NEEDED_BY_VICTIMS:
        import_module(module)
    with tempfile.TemporaryDirectory(prefix="damage") as name:
        folder = Path(name)
        lanes = {
            database: _lane(database, folder, sizes, checkpoint, seed) for database in databases
        }
        for lane in lanes.values():
            wait_long(lane)
        return {database: _told(folder / f"{database}.json") for database in databases}


def _told(path: Path) -> list[Part]:
    if not path.exists():
        lost = Tally(broken=["the campaign itself ended with an error: see above"])
        return [Part("the campaign", lost, 0.0)]
    return [Part.from_json(data) for data in json.loads(path.read_text())]


def _lane(database: Database, folder: Path, sizes: Sizes, checkpoint: Checkpoint, seed: int) -> int:
    sys.stdout.flush()
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        home = folder / database
        home.mkdir()
        parts = _all_parts(database, home, sizes, checkpoint, seed)
        (folder / f"{database}.json").write_text(json.dumps([part.to_json() for part in parts]))
        code = 0
    except BaseException:  # whatever it is, a child never goes back into its parent's stack
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


def _all_parts(
    database: Database, home: Path, sizes: Sizes, checkpoint: Checkpoint, seed: int
) -> list[Part]:
    parts: list[Part] = []
    with open_place(database, home) as place:

        def part(name: str, damage: Callable[[Path], Tally]) -> None:
            folder = home / f"part{len(parts)}"
            folder.mkdir()
            if isinstance(place, SqlitePlace):
                place.folder = folder
            began = time.monotonic()
            try:
                tally = damage(folder)
            except Exception as error:  # what was to be counted is not: that is no success
                traceback.print_exc()
                tally = Tally(broken=[f"{name} could not be finished: {error!r}"])
            took = time.monotonic() - began
            parts.append(Part(name, tally, took))
            shutil.rmtree(folder, ignore_errors=True)
            told = f"{database}: {name}: {took:.0f} s, {len(tally.broken)} broken"
            print(told, file=sys.stderr, flush=True)

        if isinstance(place, PostgresPlace):
            part(
                "the server killed",
                lambda at: kill_servers(place, at, sizes.backends, sizes.servers, seed),
            )
        elif isinstance(place, SqlitePlace):
            part("crash images", lambda at: take_images(place, at, sizes.images, seed))
            part("crowds on one file", lambda at: kill_crowds(place, at, sizes.crowds, seed))
        part("kill -9", lambda at: kill_many(place, at, checkpoint, sizes.kills, seed))
        part("upgrades killed", lambda at: kill_upgrades(place, at, sizes.statements))
        part("full disks", lambda at: fill_disks(place, at, sizes.disks, seed))
        part("two writers of one run", lambda at: race(place, at, sizes.races, seed))
        part("clocks going backwards", lambda at: turn_back_clocks(place, at, sizes.clocks, seed))
        part("rows changed by an attacker", lambda at: mutate_everything(place, at, sizes.every))
        part("changes through the front door", lambda at: refuse_everything(place, at))
    return parts
