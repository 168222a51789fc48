"""Kill runs at every named point and at random ones, resume them, and count what became of them.

    python benchmarks/resume.py [--kills 300] [--database sqlite|postgres|both]
                                [--case figure|asking|desk|all] [--model NAME|DIR]
                                [--points WORD,WORD] [--seed 1] [--json FILE]

Every run has an uninterrupted twin with the same seed. Each kill is a SIGKILL of a real process;
the run is then resumed, and a person (this script) decides what waits for one, until it ends. What
must hold: every effect happened once, as the ledger says; no model call was made twice under one
id; the chain verifies; and where no call was lost, the graph is the twin's.
"""

import argparse
import json
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from breaking.databases import Database, open_place
from breaking.forking import in_child
from resuming.campaign import Campaign, Tally, warm
from resuming.cases import CASES

from secateur import Ledger
from secateur.runtime.engines.checkpoint import Checkpoint, load_checkpoint


def arguments(given: Sequence[str]) -> argparse.Namespace:
    """What the command line says."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--kills", type=int, default=300, help="in all; named points come first")
    parser.add_argument("--database", choices=("sqlite", "postgres", "both"), default="both")
    parser.add_argument("--case", choices=(*CASES, "all"), default="all")
    parser.add_argument("--model", default="seedling", help="a shipped model, or a checkpoint")
    parser.add_argument("--points", default="", help="named points with one of these words alone")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", type=Path, help="write the counts to this file")
    return parser.parse_args(given)


def kill_runs(
    database: Database,
    cases: Sequence[str],
    checkpoint: Checkpoint,
    kills: int,
    words: Sequence[str],
    seed: int,
) -> dict[str, Tally]:
    """So many kills of each case on one kind of database."""
    tallies: dict[str, Tally] = {}
    # Not under the user's own folder: a server that runs as somebody else must get there.
    with (
        tempfile.TemporaryDirectory(prefix="resume", dir="/tmp") as name,
        open_place(database, Path(name)) as place,
    ):
        for case in cases:
            url = place.new()
            in_child(lambda url=url: make(url))
            campaign = Campaign(CASES[case], checkpoint, url, Path(name))
            rng = random.Random(f"{seed} {case} {database}")
            named = [k for k in campaign.named(rng) if any(w in k.point.name for w in words)]
            others = [k for k in campaign.points() if any(w in k.point.name for w in words)]
            campaign.kill([*named[:kills], *rng.choices(others, k=max(0, kills - len(named)))])
            tallies[case] = campaign.tally
    return tallies


async def make(url: str) -> None:
    """An empty ledger."""
    async with Ledger.open(url):
        pass


def main(given: Sequence[str]) -> int:
    """Print the counts; 1 where something did not hold."""
    wanted = arguments(given)
    torch.set_num_threads(1)
    checkpoint = load_checkpoint(wanted.model)
    warm()
    databases: list[Database] = (
        ["sqlite", "postgres"] if wanted.database == "both" else [wanted.database]
    )
    cases = list(CASES) if wanted.case == "all" else [wanted.case]
    each = -(-wanted.kills // (len(databases) * len(cases)))
    told: dict[str, Any] = {}
    faults = 0
    for database in databases:
        began = time.monotonic()
        tallies = kill_runs(
            database, cases, checkpoint, each, wanted.points.split(","), wanted.seed
        )
        seconds = time.monotonic() - began
        points, seen = Counter[str](), Counter[str]()
        for tally in tallies.values():
            points += tally.kills
            seen += tally.seen
            faults += len(tally.faults)
        told[database] = {
            "kills": points.total(),
            "seconds": round(seconds, 1),
            "points": dict(sorted(points.items())),
            "seen": dict(sorted(seen.items())),
            "faults": [fault for tally in tallies.values() for fault in tally.faults],
        }
        print(f"{database}: {points.total()} kills in {seconds:.0f} s")
        for what, count in [*sorted(points.items()), *sorted(seen.items())]:
            print(f"{count:8}  {what}")
        for fault in told[database]["faults"]:
            print(f"   FAULT  {fault}")
    if wanted.json is not None:
        wanted.json.write_text(json.dumps(told, indent=2))
    return int(faults > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
