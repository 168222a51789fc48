"""A small share of ``benchmarks/resume.py``: runs killed for real come to their end, each effect
happened once, and what nobody can know goes to a person."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from secateur.runtime.ledger.events import EventKind

ROOT = Path(__file__).parents[2]

NEVER = {EventKind.ABANDONED, EventKind.ERASED, EventKind.NOTED}
"""Events that no uninterrupted run of the cases has."""


@pytest.fixture(scope="module")
def campaign(tmp_path_factory: pytest.TempPathFactory, tiny_checkpoint: Path):
    """Run the benchmark with these arguments; what it counted."""

    def run(*arguments: str) -> dict[str, Any]:
        told = tmp_path_factory.mktemp("resume") / "counts.json"
        script = ROOT / "benchmarks" / "resume.py"
        done = subprocess.run(
            [sys.executable, script, "--model", tiny_checkpoint, "--json", told, *arguments],
            capture_output=True,
            text=True,
            check=False,
            timeout=900,
        )
        assert told.exists(), done.stderr[-4000:]
        counts = json.loads(told.read_text())
        assert [found["faults"] for found in counts.values()] == [[] for _ in counts]
        assert done.returncode == 0
        return counts

    return run


KINDS = set(EventKind) - NEVER - {"resumed", "decided", "escalated"}


def test_a_run_killed_at_any_named_point_comes_to_its_end(campaign):
    (counts,) = campaign("--case", "figure", "--database", "sqlite", "--kills", "26").values()
    points, seen = counts["points"], counts["seen"]
    assert {f"{when} {kind}" for kind in KINDS for when in ("before", "after")} <= points.keys()
    assert {"before the effect", "after the effect", "laid out", "token"} <= points.keys()
    assert seen["chains that verify"] == counts["kills"] == 26
    assert seen["graphs equal to the uninterrupted one"] >= 3


def test_the_same_holds_on_postgresql(campaign):
    wanted = ("--points", "after,token", "--kills", "14")
    (counts,) = campaign("--case", "figure", "--database", "postgres", *wanted).values()
    assert {f"after {kind}" for kind in (*KINDS, "the effect")} <= counts["points"].keys()
    assert counts["seen"]["chains that verify"] == counts["kills"] == 14


def test_a_run_that_asks_a_person_may_be_killed_before_and_after_the_answer(campaign):
    wanted = ("--points", "escalated,decided,resumed,run_finished", "--kills", "12")
    counts = campaign("--case", "asking", "--database", "sqlite", *wanted)
    points = counts["sqlite"]["points"]
    for kind in ("escalated", "decided", "resumed", "run_finished"):
        for when in ("before", "after"):
            assert points[f"{when} {kind}"] >= 1
