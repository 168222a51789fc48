"""The Graph of Thoughts benchmark: its table says what was measured, and it reads the paper's
files."""

import importlib.util
import json
import random
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from secateur.agents.ready.paper import PLANS, PlanName

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def report() -> Any:
    """The module that writes the table."""
    spec = importlib.util.spec_from_file_location("got_report", BENCHMARKS / "got_report.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@dataclass(frozen=True)
class Outcome:
    errors: int | None
    requests: int = 2
    tokens: int = 50


@dataclass(frozen=True)
class Cell:
    plan: PlanName
    outcomes: list[Outcome]
    problem: str = "sorting-64"
    source: str = "drawn"
    seconds: float = 10.0


def cells(**errors: list[int | None]) -> list[Cell]:
    return [Cell(plan, [Outcome(e) for e in errors[plan]]) for plan in PLANS if plan in errors]


def test_answers_that_cannot_be_read_are_in_no_figure_of_errors(report) -> None:
    (cell,) = cells(io=[0, 4, None, 8])
    name, middle, average, exact, unread, *_ = report.row(cell)
    assert (name, middle, unread) == ("IO", "4", "1")
    assert average.startswith("4.00 (")
    assert exact.startswith("25 % (")


def test_the_order_is_compared_instance_by_instance_and_says_where_it_breaks(report) -> None:
    rng = random.Random(0)
    hard = [rng.randrange(10, 30) for _ in range(60)]
    group = cells(
        io=[e + 5 for e in hard],
        chain=[e + 6 for e in hard],
        tree=[e + rng.choice((5, 6, 7)) for e in hard],
        graph=[e - 8 for e in hard],
    )
    said = report.order(group).split("; ")
    assert said[0].startswith("graph against tree: 14.")
    assert "errors fewer" in said[0]
    assert "no difference that shows" in said[1]
    assert said[2] == "chain against IO: **1.00 errors more** (1.00 to 1.00)"


def test_the_page_has_the_papers_numbers_only_where_they_are_known(report) -> None:
    known = cells(io=[1], chain=[1], tree=[1], graph=[0])
    page = report.markdown(known, "seedling", "got.svg")
    assert "| IO | 1 |" in page
    assert "| 40.5 |" in page
    assert "![Errors by plan, a box for each problem](got.svg)" in page
    other = [Cell(cell.plan, cell.outcomes, problem="sorting-32") for cell in known]
    assert "GPT-3.5" not in report.markdown(other, "seedling", "got.svg")


def test_the_papers_files_are_run_under_all_four_plans(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    (tmp_path / "lists.csv").write_text('ID,Unsorted,Sorted\n0,"[3, 1, 2, 0]","[0, 1, 2, 3]"\n')
    (tmp_path / "sets.csv").write_text(
        'ID,SET1,SET2,INTERSECTION\n0,"[3, 27, 5]","[27, 8, 3]","[3, 27]"\n'
    )
    given = ["--instances", "lists.csv", "--instances", "sets.csv", "--json", "got.json"]
    done = subprocess.run(
        [sys.executable, BENCHMARKS / "got.py", *given, "--markdown", "got.md"],
        capture_output=True, text=True, cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "got.json").read_text())["cells"]
    assert [(one["problem"], one["source"], one["plan"]) for one in found] == [
        (problem, source, plan)
        for problem, source in (("sorting-4", "lists.csv"), ("intersection-3", "sets.csv"))
        for plan in PLANS
    ]
    requests = {(one["problem"], one["plan"]): one["outcomes"][0]["requests"] for one in found}
    assert requests["sorting-4", "io"] == requests["intersection-3", "io"] == 1
    assert requests["sorting-4", "chain"] == 2
    assert "**Sorting 4 (lists.csv)**" in (tmp_path / "got.md").read_text()
    assert (tmp_path / "got.svg").read_text().lstrip().startswith("<?xml")


def test_a_file_without_instances_is_refused_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "bad.csv").write_text("a,b\n1,2\n")
    done = subprocess.run(
        [sys.executable, BENCHMARKS / "got.py", "--instances", "bad.csv"],
        capture_output=True, text=True, cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        "error: bad.csv: no instances; a file has ID,Unsorted,Sorted or ID,SET1,SET2,…"
    ]
