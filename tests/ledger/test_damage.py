"""A small share of ``benchmarks/damage.py``, on both databases: what is promised holds."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from secateur.runtime.ledger.events import EventKind

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def campaign(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The counts of a quick campaign."""
    told = tmp_path_factory.mktemp("damage") / "counts.json"
    done = subprocess.run(
        [sys.executable, ROOT / "benchmarks" / "damage.py", "--quick", "--json", told],
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    assert told.exists(), done.stderr[-4000:]
    counts = json.loads(told.read_text())
    assert done.returncode == (1 if counts["broken"] else 0)
    return counts


def parts(campaign: dict[str, Any], database: str) -> dict[str, dict[str, Any]]:
    """The parts of a database's campaign by name."""
    return {part["name"]: part for part in campaign["databases"][database]}


@pytest.fixture(params=["sqlite", "postgres"])
def database(request: pytest.FixtureRequest) -> str:
    return request.param


def test_no_promise_was_broken(campaign, database):
    broken = [line for part in campaign["databases"][database] for line in part["broken"]]
    assert broken == []
    assert campaign["broken"] == 0


def test_processes_were_killed_at_random_and_at_named_points(campaign, database):
    done = parts(campaign, database)["kill -9"]["done"]
    points = [what for what in done if what.startswith("killed ")]
    assert done["kills"] >= 24
    assert any("is queued" in point for point in points)
    assert any("COMMIT" in point or "INSERT" in point or "COPY" in point for point in points)
    assert done["events acknowledged"] > 200
    assert done["effects of tools"] > 10


def test_what_was_acknowledged_was_looked_for(campaign, database):
    held = parts(campaign, database)["kill -9"]["held"]
    assert held["what was acknowledged is there"] > 200
    assert held["every chain is contiguous and verifies"] > 50
    assert held["every effect has its durable intent"] > 10


def test_a_killed_server_and_a_torn_image_lose_nothing(campaign):
    assert parts(campaign, "postgres")["the server killed"]["done"]["servers killed"] >= 1
    assert parts(campaign, "postgres")["the server killed"]["done"]["backends killed"] >= 1
    images = parts(campaign, "sqlite")["crash images"]["done"]
    assert sum(times for what, times in images.items() if what.startswith("images: ")) >= 8


def test_full_disks_races_and_clocks_were_tried(campaign, database):
    found = parts(campaign, database)
    full = found["full disks"]
    assert full["left_out"] or full["done"]["runs that met a full disk"] >= 5
    assert found["two writers of one run"]["held"]["of two writers of one run, one goes on"] >= 24
    assert found["clocks going backwards"]["done"]["times that the clock went back"] >= 5


def test_changed_rows_of_every_table_are_found_and_changes_refused(campaign, database):
    found = parts(campaign, database)
    changed = found["rows changed by an attacker"]["done"]
    assert changed["changes of event"] >= len(EventKind) // 2
    assert sum(what.startswith("changes of ") for what in changed) >= 6
    assert found["changes through the front door"]["done"]["changes tried through the front door"]
