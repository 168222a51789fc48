"""Full disks: small ones that are really full, at many fill levels, on both databases."""

import asyncio
import os
import pwd
import random
import resource
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from secateur.benchmarks.breaking import making
from secateur.benchmarks.breaking.checks import check_runs, reading
from secateur.benchmarks.breaking.databases import Place, PostgresPlace
from secateur.benchmarks.breaking.forking import in_child
from secateur.benchmarks.breaking.journal import Journal, listen, read
from secateur.benchmarks.breaking.tally import Tally
from secateur.benchmarks.breaking.victim import Errand, fill
from secateur.gates.errors import SecateurError
from secateur.runtime.ledger.errors import LedgerError
from secateur.runtime.ledger.ledger import Ledger, new_run_id
from secateur.runtime.ledger.writing.runlog import RunLog

__all__ = ["fill_disks"]

ONE_LINE = "a full disk is one line that says so"
ROOM = "it goes on when there is room"
_LIMIT = 1 << 40


@dataclass(frozen=True, slots=True)
class _Disk:
    """A small disk; without a folder of its own, a limit on the size of files stands in for it."""

    folder: Path
    mounted: bool

    def leave(self, room: int) -> None:
        """Fill it up to so many bytes."""
        if not self.mounted:
            size = max((path.stat().st_size for path in self.folder.iterdir()), default=0)
            resource.setrlimit(resource.RLIMIT_FSIZE, (size + room, _LIMIT))
            return
        free = os.statvfs(self.folder)
        with (self.folder / "filler").open("wb") as filler:
            os.posix_fallocate(filler.fileno(), 0, max(free.f_bavail * free.f_frsize - room, 1))

    def make_room(self) -> None:
        """Take the filling away."""
        if not self.mounted:
            resource.setrlimit(resource.RLIMIT_FSIZE, (_LIMIT, _LIMIT))
        (self.folder / "filler").unlink(missing_ok=True)


@contextmanager
def _small_disk(folder: Path, size: str, owner: str | None) -> Iterator[_Disk]:
    """A disk in memory where the system allows one, and a plain folder otherwise."""
    folder.mkdir()
    options = f"size={size}"
    if owner is not None:
        options += f",uid={pwd.getpwnam(owner).pw_uid},mode=700"
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)],
        capture_output=True,
        check=False,
    )
    mounted = done.returncode == 0
    try:
        yield _Disk(folder, mounted)
    finally:
        if mounted:
            subprocess.run(["umount", str(folder)], check=True)


def fill_disks(place: Place, folder: Path, levels: int, seed: int) -> Tally:
    """Write until the disk is full, at so many fill levels; then make room, and go on."""
    tally = Tally()
    rng = random.Random(f"disks/{seed}")
    owner, size = (place.owner, "40m") if isinstance(place, PostgresPlace) else (None, "6m")
    with _small_disk(folder / "disk", size, owner) as disk:
        if isinstance(place, PostgresPlace):
            if not disk.mounted:
                tally.left_out.append("full disks: no small disk can be mounted here")
                return tally
            place.ask(f"CREATE TABLESPACE tiny LOCATION '{disk.folder}'")
        for level in range(levels):
            errand = Errand(
                number=2_000_000 + level,
                url=_new(place, disk),
                folder=folder,
                seed=f"{rng.random()}",
                seconds=30.0,
            )
            # Every fifth disk is full before there is a ledger; rooms cluster where little is left.
            before = level % 5 == 4
            room = int(rng.uniform(0, 1) ** 2 * (400_000 if before else 1_000_000))
            errors, went_on = in_child(lambda e=errand, b=before, r=room: _meet(e, disk, b, r))
            tally.done["full disks"] += 1
            tally.done["runs that met a full disk"] += len(errors)
            for error in errors:
                tally.hold(ONE_LINE, _says_so(error), error)
            tally.hold(ROOM, went_on == "", went_on)
            said = read(errand.journal)
            with reading(errand.url) as connection:
                check_runs(connection, said, said.asked, tally)
            _remove(place, disk, errand.url)
        if isinstance(place, PostgresPlace):
            place.ask("DROP TABLESPACE tiny")
    return tally


def _new(place: Place, disk: _Disk) -> str:
    if isinstance(place, PostgresPlace):
        place.ask("CREATE DATABASE small TABLESPACE tiny")
        return place.url("small")
    return str(disk.folder / "small.db")


def _remove(place: Place, disk: _Disk, url: str) -> None:
    if isinstance(place, PostgresPlace):
        place.drop(url)
        place.ask("CHECKPOINT")  # the files of what was dropped go with it
        return
    for path in disk.folder.glob("small.db*"):
        path.unlink()


def _says_so(error: str) -> bool:
    return "\n" not in error and ("full" in error or "disk" in error)


async def _meet(errand: Errand, disk: _Disk, before: bool, room: int) -> tuple[list[str], str]:
    """The one-line errors of the runs that met the full disk, and why it did not go on."""
    listen(Journal(errand.journal))
    rng = random.Random(errand.seed)
    errors: list[str] = []
    if before:
        disk.leave(room)
        try:
            await Ledger.open(errand.url).aclose()
        except SecateurError as error:
            errors.append(str(error))
        disk.make_room()
    async with Ledger.open(errand.url) as ledger:
        logs: list[RunLog] = []
        disk.leave(room)

        async def write(number: int) -> None:
            for _ in range(1000):
                log = await ledger.start(making.start(new_run_id(), number))
                logs.append(log)
                await fill(errand, log, rng, asyncio.Event(), steps=rng.randint(1, 5))

        ended = await asyncio.gather(*(write(n) for n in range(3)), return_exceptions=True)
        errors += [str(error) for error in ended if isinstance(error, LedgerError)]
        disk.make_room()
        strange = [error for error in ended if not isinstance(error, LedgerError)]
        if strange:
            return errors, f"a run ended with {strange[0]!r}"
        later = replace(errand, number=errand.number + 500_000)  # thoughts of another name
        try:
            for number, log in enumerate(logs[-3:]):
                again = await ledger.reopen(log.run)
                await again.resumed(making.start(log.run, number), "there is room")
                await fill(later, again, rng, asyncio.Event(), steps=1)
            log = await ledger.start(making.start(new_run_id(), 7))
            await fill(later, log, rng, asyncio.Event(), steps=2)
        except SecateurError as error:
            return errors, str(error)
    return errors, ""
