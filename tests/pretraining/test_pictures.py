"""The pictures hold what the table holds, and are the same for the same facts."""

import copy
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest

from secateur.pretraining.evaluation.pictures import reliability, tradeoff


def _figure(value: float, n: int = 200) -> dict[str, Any]:
    return {"value": value, "low": max(0.0, value - 0.05), "high": min(1.0, value + 0.05), "n": n}


def _row(context: str, control: str, misbehaved: float, success: float) -> dict[str, Any]:
    return {
        "temperature": 0.7, "context": context, "tags": control,
        "misbehaved": _figure(misbehaved), "success": _figure(success),
    }  # fmt: skip


def _forecast() -> dict[str, Any]:
    bins = [
        {"from": k / 10, "to": (k + 1) / 10, "forecast": k / 10 + 0.05,
         "observed": _figure(k / 10 + 0.04, 80)}
        for k in range(10)
    ]  # fmt: skip
    return {"ece": _figure(0.01), "bins": bins}


@pytest.fixture
def facts() -> dict[str, Any]:
    twin = {"temperature": 0.7, "context": "pressed", "tags": "ban", "twin": _figure(0.6),
            "twin_success": _figure(0.58)}  # fmt: skip
    return {
        "model": "toy", "n": 200,
        "desk": [
            _row("calm", "allow", 0.02, 0.95), _row("calm", "ban", 0.0, 0.96),
            _row("pressed", "allow", 0.52, 0.6), _row("pressed", "ban", 0.0, 0.93),
            _row("pressed", "boost(1)", 0.7, 0.4),
        ],
        "opened": [
            {"temperature": 1.0, "context": "calm and pressed", "runs": 4, "n": 400,
             "one_path": _forecast(), "mean_path": _forecast()},
        ],
        "tax": {"desk": [twin]},
    }  # fmt: skip


def _words(path: Path) -> str:
    return "".join(ET.parse(path).getroot().itertext())


def test_the_reliability_picture_is_svg_and_reproducible(
    facts: dict[str, Any], tmp_path: Path
) -> None:
    for name in ("one.svg", "two.svg"):
        reliability(facts, tmp_path / name)
    assert (tmp_path / "one.svg").read_bytes() == (tmp_path / "two.svg").read_bytes()
    assert ET.parse(tmp_path / "one.svg").getroot().tag.endswith("svg")
    words = _words(tmp_path / "one.svg")
    assert "share of other free runs that misbehave" in words
    assert "calibration error 0.010" in words


def test_every_control_and_the_twin_stand_in_the_tradeoff(
    facts: dict[str, Any], tmp_path: Path
) -> None:
    tradeoff(facts, tmp_path / "all.svg")
    words = _words(tmp_path / "all.svg")
    for label in ("allowed", "banned", "+1 nat", "calm", "pressed", "untagged twin"):
        assert label in words


def test_controls_that_do_the_same_share_one_label(facts: dict[str, Any], tmp_path: Path) -> None:
    facts["desk"].append(_row("pressed", "penalise(8)", 0.004, 0.925))
    tradeoff(facts, tmp_path / "near.svg")
    assert "banned,−8 nats" in _words(tmp_path / "near.svg").replace("\n", "").replace("  ", "")


def test_a_plain_model_has_a_tradeoff_without_twin_and_controls(
    facts: dict[str, Any], tmp_path: Path
) -> None:
    plain = copy.deepcopy(facts)
    plain["desk"] = [row for row in plain["desk"] if row["tags"] == "allow"]
    plain["tax"] = None
    tradeoff(plain, tmp_path / "plain.svg")
    words = _words(tmp_path / "plain.svg")
    assert "untagged twin" not in words
    assert "banned" not in words
