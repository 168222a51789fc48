"""Our own Graph of Thoughts table: four plans, two tasks, one small model.

    python benchmarks/got.py [--quick] [--count 100] [--only sorting-64] [--model NAME|DIR]
                             [--instances FILE.csv] [--json FILE] [--markdown FILE]

IO, chain, tree and graph (`agents/paper.py`) sort lists of 32, 64 and 128 digits and intersect sets
of 32 and 64 numbers, drawn as in the paper: digits uniform from 0 to 9, sets from 0 to 63 and from
0 to 127. Errors are the paper's: for a list, the differences of the counts plus the adjacent
inversions; for a set, the numbers that are missing or too many. Answers that cannot be read are
counted apart. ``--instances`` takes the paper's own files (``ID,Unsorted,Sorted`` or
``ID,SET1,SET2,INTERSECTION``) in place of drawn instances; may be repeated.

The instances of a plan run side by side in one engine, so its seconds are those of the whole,
divided by the instances. ``--markdown`` writes the table, and its picture as SVG beside it.
"""

import argparse
import asyncio
import csv
import json
import random
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from got_report import markdown, picture, table
from rich.console import Console
from rich.progress import Progress

from secateur.agents.ready.digits import parse_digits, sorting_errors
from secateur.agents.ready.paper import PlanName, intersecting, sorting
from secateur.agents.ready.sets import set_errors
from secateur.agents.spec import AgentSpec
from secateur.gates.errors import SecateurError
from secateur.runtime.agent import Agent
from secateur.runtime.engines.opening import open_engine
from secateur.runtime.engines.protocol import Engine
from secateur.runtime.executor.session import RunResult
from secateur.runtime.ledger.ledger import Ledger

SIDE_BY_SIDE = 64
"""Runs at the same time, so that the engine's batch of 64 is full under every plan."""


@dataclass(frozen=True, slots=True)
class Instance:
    """A task as a user would write it, and how many errors an answer has."""

    task: str
    errors: Callable[[str], int]


@dataclass(frozen=True, slots=True)
class Problem:
    """One column of the table: a task of one size, with its instances and plans."""

    name: str
    source: str
    instances: Sequence[Instance]
    plans: dict[PlanName, AgentSpec]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of one instance under one plan."""

    errors: int | None
    """None where no answer could be read."""
    requests: int
    tokens: int


@dataclass(frozen=True, slots=True)
class Cell:
    """All instances of one problem under one plan."""

    problem: str
    source: str
    plan: PlanName
    outcomes: Sequence[Outcome]
    seconds: float
    """For all of them, side by side."""


def list_instance(digits: Sequence[int]) -> Instance:
    """A list to sort."""
    given = list(digits)
    return Instance(str(given), lambda answer: sorting_errors(given, parse_digits(answer)))


def set_instance(left: Sequence[int], right: Sequence[int]) -> Instance:
    """Two sets to intersect."""
    wanted = sorted({*left} & {*right})
    return Instance(
        f"{list(left)} {list(right)}", lambda answer: set_errors(wanted, json.loads(answer))
    )


def drawn(count: int, seed: int) -> list[Problem]:
    """The five problems of the table, with ``count`` instances each."""
    found: list[Problem] = []
    for size in (32, 64, 128):
        rng = random.Random(f"sorting/{size}/{seed}")
        lists = [[rng.randrange(10) for _ in range(size)] for _ in range(count)]
        found.append(
            Problem(f"sorting-{size}", "drawn", list(map(list_instance, lists)), sorting())
        )
    for size in (32, 64):
        rng = random.Random(f"intersection/{size}/{seed}")
        pairs = [
            (rng.sample(range(2 * size), size), rng.sample(range(2 * size), size))
            for _ in range(count)
        ]
        instances = [set_instance(*pair) for pair in pairs]
        found.append(Problem(f"intersection-{size}", "drawn", instances, intersecting()))
    return found


def from_file(path: Path, count: int) -> Problem:
    """The first ``count`` instances of one of the paper's files."""
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))[:count]
    except OSError as error:
        sys.exit(f"error: {path}: {error.strerror}; give a CSV file of instances")
    columns = set(rows[0]) if rows else set()
    try:
        if "Unsorted" in columns:
            lists = [json.loads(row["Unsorted"]) for row in rows]
            name = f"sorting-{len(lists[0])}"
            return Problem(name, path.name, list(map(list_instance, lists)), sorting())
        if {"SET1", "SET2"} <= columns:
            pairs = [(json.loads(row["SET1"]), json.loads(row["SET2"])) for row in rows]
            instances = [set_instance(*pair) for pair in pairs]
            return Problem(f"intersection-{len(pairs[0][0])}", path.name, instances, intersecting())
    except ValueError as error:
        sys.exit(f"error: {path}: {error}; lists are written like [3, 1, 2]")
    sys.exit(f"error: {path}: no instances; a file has ID,Unsorted,Sorted or ID,SET1,SET2,…")


async def measure(problems: Sequence[Problem], engine: Engine, seed: int) -> list[Cell]:
    """Every instance of every problem under every plan, plan by plan."""
    cells: list[Cell] = []
    room = asyncio.Semaphore(SIDE_BY_SIDE)
    console = Console(stderr=True)
    with tempfile.TemporaryDirectory() as folder, Progress(console=console) as progress:
        runs = sum(len(problem.instances) * len(problem.plans) for problem in problems)
        bar = progress.add_task("runs", total=runs)
        async with Ledger.open(Path(folder) / "got.db") as ledger:
            for problem in problems:
                for name, spec in problem.plans.items():
                    progress.update(bar, description=f"{problem.name} {name}")
                    agent = Agent.of(spec)

                    async def run(number: int, instance: Instance, agent: Agent = agent) -> Outcome:
                        async with room:
                            result = await agent.run(
                                instance.task,
                                policy="prune",
                                engine=engine,
                                ledger=ledger,
                                seed=seed + number,
                            )
                        progress.advance(bar)
                        return outcome(instance, result)

                    began = time.perf_counter()
                    outcomes = await asyncio.gather(
                        *(run(number, one) for number, one in enumerate(problem.instances))
                    )
                    took = time.perf_counter() - began
                    cells.append(Cell(problem.name, problem.source, name, outcomes, took))
    return cells


def outcome(instance: Instance, result: RunResult) -> Outcome:
    """Errors and cost of one run."""
    return Outcome(
        errors=None if result.answer is None else instance.errors(result.answer),
        requests=sum(thought.tokens > 0 for thought in result.thoughts),
        tokens=result.tokens,
    )


def as_json(cells: Sequence[Cell], model: str) -> dict[str, Any]:
    """All that was measured, instance by instance."""
    return {"model": model, "cells": [asdict(cell) for cell in cells]}


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


async def _run(given: argparse.Namespace) -> tuple[list[Cell], str]:
    problems = [from_file(path, given.count) for path in given.instances] or drawn(
        given.count, given.seed
    )
    if given.only:
        known = [problem.name for problem in problems]
        problems = [problem for problem in problems if problem.name in given.only]
        if not problems:
            sys.exit(f"error: --only {' '.join(given.only)}: there are {', '.join(known)}")
    engine = open_engine(given.engine, given.model)
    try:
        return await measure(problems, engine, given.seed), engine.info.model
    finally:
        await engine.aclose()


def main() -> None:
    """Measure, print, and write what was asked for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--count", type=int, default=100, help="instances of each problem")
    parser.add_argument("--quick", action="store_true", help="5 instances of each problem")
    parser.add_argument("--only", action="append", metavar="PROBLEM", help="such as sorting-64")
    parser.add_argument("--instances", action="append", type=Path, metavar="FILE", default=[])
    parser.add_argument("--engine", default="local", help="local, or a server's URL")
    parser.add_argument("--model", default="seedling", help="its name, or a folder")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="the picture goes beside it")
    given = parser.parse_args()
    if given.quick:
        given.count = 5
    if given.count < 1:
        parser.error(f"--count {given.count}: give at least 1")
    try:
        cells, model = asyncio.run(_run(given))
    except SecateurError as error:
        sys.exit(f"error: {error}")
    Console(width=120).print(table(cells))
    if given.json:
        _write(given.json, json.dumps(as_json(cells, model)) + "\n")
    if given.markdown:
        _write(given.markdown, markdown(cells, model, given.markdown.with_suffix(".svg").name))
        picture(cells, model, given.markdown.with_suffix(".svg"))


if __name__ == "__main__":
    main()
