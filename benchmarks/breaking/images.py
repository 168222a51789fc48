"""Crash images of a SQLite ledger: what a disk may hold at the very moment of a crash.

A process is stopped (SIGSTOP) at a random moment and its files are copied. Each image is then torn
as a power cut may tear it: the last fsync of the log is what must have reached the disk, and
whatever was written after it may be there, cut off, or rubbish.

What this is not: a power cut. It believes the operating system and the disk that what they said was
synced is on the disk.
"""

import os
import random
import shutil
import signal
import time
from pathlib import Path

from secateur.benchmarks.breaking.checks import CHAINS, check_runs, reading
from secateur.benchmarks.breaking.databases import SqlitePlace
from secateur.benchmarks.breaking.forking import wait, wait_for
from secateur.benchmarks.breaking.journal import read
from secateur.benchmarks.breaking.tally import Tally
from secateur.benchmarks.breaking.victim import Errand, send
from secateur.runtime.ledger import connect
from secateur.runtime.ledger.integrity import verification

__all__ = ["take_images"]


def take_images(place: SqlitePlace, folder: Path, images: int, seed: int) -> Tally:
    """So many images of writers at work, each torn in every way."""
    rng = random.Random(f"images/{seed}")
    tally = Tally()
    for number in range(images):
        ready, tell = os.pipe()
        errand = Errand(
            number=1_000_000 + number,
            url=place.new(),
            folder=folder,
            seed=f"{rng.random()}",
            seconds=30.0,
            log_sizes=True,
        )
        child = send(errand, None, tell)
        os.close(tell)
        os.read(ready, 1)
        os.close(ready)
        wait_for(errand.journal, rng.randrange(2_000, 60_000))
        time.sleep(rng.uniform(0, 0.01))
        os.kill(child, signal.SIGSTOP)
        os.waitpid(child, os.WUNTRACED)
        for suffix in ("", "-wal"):
            shutil.copy(f"{errand.url}{suffix}", folder / f"image.db{suffix}")
        # What was acknowledged by now: the copies were made while nobody wrote.
        taken = Path(shutil.copy(errand.journal, folder / "image.journal"))
        os.kill(child, signal.SIGKILL)
        wait(child)
        tally.done["crash images of the files"] += 1
        _check(folder, taken, _tears(folder / "image.db-wal", taken, rng), tally)
    return tally


def _tears(log: Path, journal: Path, rng: random.Random) -> list[tuple[str, int, bytes]]:
    """(what, length to which the log is cut, what follows): states that a crash may leave."""
    whole = log.read_bytes()
    synced = max((words[1] for words in read(journal).words if words[0] == "synced"), default=0)
    rest = len(whole) - synced
    cuts = [
        ("as they were", len(whole), b""),
        ("what was not synced is cut off", synced, b""),
        ("what was not synced is cut in two", synced + rng.randint(0, rest), b""),
        ("what was not synced is zeros", synced, bytes(rest + rng.randint(1, 9000))),
        ("what was not synced is rubbish", synced, rng.randbytes(rest + rng.randint(1, 9000))),
    ]
    return cuts + [("the log ends earlier", rng.randint(0, len(whole)), b"") for _ in range(3)]


def _check(folder: Path, journal: Path, tears: list[tuple[str, int, bytes]], tally: Tally) -> None:
    torn = folder / "torn.db"
    log = (folder / "image.db-wal").read_bytes()
    for what, length, rubbish in tears:
        shutil.copy(folder / "image.db", torn)
        Path(f"{torn}-wal").write_bytes(log[:length] + rubbish)
        Path(f"{torn}-shm").unlink(missing_ok=True)
        said = read(journal, synced=length)
        # As a writer would: an image from before the first transaction becomes a ledger now.
        connect.open_or_create(torn).dispose()
        with reading(str(torn)) as connection:
            check_runs(connection, said, said.asked, tally)
            found = verification.verify(connection.engine)
            tally.hold(CHAINS, found.ok, f"an image ({what}): {found.first_bad}")
        tally.done[f"images: {what}"] += 1
