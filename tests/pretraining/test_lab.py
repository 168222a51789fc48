"""The laboratory measures trained models side by side, and trains those that are missing."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from secateur.cli.pretrain import app
from secateur.pretraining.corpus.reader import read_records
from secateur.pretraining.errors import PretrainingError, TrainingError
from secateur.pretraining.laboratory.defences import Trial
from secateur.pretraining.laboratory.lab import Point, find_points, measure, prepare
from secateur.pretraining.laboratory.labbook import markdown, save

SEEDLING = Path(__file__).parents[2] / "models" / "seedling"
TRIAL = Trial(n=6, calibration=12, alpha=0.2, tries=1, temperatures=(1.0,))
TINY = """
seed: 1
architecture: {vocabulary: 400, layers: 1, width: 32, heads: 2, feed_forward: 32, context: 192}
corpus:
  missed: MISSED
  early: {desk: 1}
  late: {desk: 1}
steps: 2
pool: 16
tokens_per_batch: 1024
warmup: 0
decay: 0
compile: false
precision: float32
device: cpu
threads: 1
"""


def run_folder(folder: Path, **corpus: object) -> Path:
    """The shipped model as if a training run with this corpus had written it."""
    model = folder / "model"
    shutil.copytree(SEEDLING, model, ignore=shutil.ignore_patterns("*.py", "__pycache__"))
    facts = json.loads((model / "training.json").read_text())
    facts["config"]["corpus"].update(corpus)
    (model / "training.json").write_text(json.dumps(facts))
    return folder


@pytest.fixture(scope="module")
def points(tmp_path_factory: pytest.TempPathFactory) -> list[Point]:
    torch.set_num_threads(1)
    root = tmp_path_factory.mktemp("lab")
    return find_points(
        [
            run_folder(root / "relabelled-30"),
            run_folder(root / "missed-30", missed=0.3),
            run_folder(root / "span") / "model",
            run_folder(root / "plain", objective="plain"),
        ]
    )


def test_a_run_says_itself_what_it_is(points: list[Point]) -> None:
    found = {point.name: point for point in points}
    assert [point.name for point in points] == ["plain", "span", "missed-30", "relabelled-30"]
    assert [point.name for point in points if point.on_the_curve] == [
        "span", "missed-30", "relabelled-30",
    ]  # fmt: skip
    assert [point.name for point in points if point.reference] == ["plain", "span"]
    assert (found["relabelled-30"].missed, found["relabelled-30"].relabelled) == (0.3, True)
    assert not found["plain"].tagged


def test_a_folder_that_does_not_say_how_it_was_trained_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="train it first"):
        Point.load(tmp_path)
    folder = run_folder(tmp_path / "odd")
    (folder / "model" / "training.json").write_text("{}")
    with pytest.raises(TrainingError, match="train it again"):
        Point.load(folder)


def test_both_comparisons_are_measured_written_and_drawn(
    points: list[Point], tmp_path: Path
) -> None:
    told: list[tuple[int, int]] = []
    chosen = [point for point in points if point.name in ("span", "plain", "relabelled-30")]
    facts = measure(chosen, TRIAL, lambda what, done, of: told.append((done, of)))
    assert [point["name"] for point in facts["curve"]] == ["span", "relabelled-30"]
    # The same model under two names: the same tasks, and the same luck.
    span, again = facts["curve"]
    assert span["defences"] == again["defences"]
    by_name = {point["name"]: point for point in facts["objectives"]}
    assert {row["tags"] for row in by_name["plain"]["rows"]} == {"none"}
    assert {row["tags"] for row in by_name["span"]["rows"]} == {"allow", "ban"}
    assert told[-1] == (4, 4)

    save(facts, tmp_path)
    assert json.loads((tmp_path / "lab.json").read_text()) == facts
    table = (tmp_path / "lab.md").read_text()
    assert table == markdown(facts)
    assert "| 30 % missed, relabelled | ban, prune by posterior |" in table
    picture = (tmp_path / "missed.svg").read_text()
    assert "ban, resample by posterior" in picture
    assert "hollow: relabelled" in picture


def test_what_is_missing_is_trained_and_the_missed_labels_are_put_back(tmp_path: Path) -> None:
    configs = tmp_path / "configs"
    configs.mkdir()
    (configs / "base.yaml").write_text(TINY.replace("MISSED", "0.0"))
    (configs / "missed-50.yaml").write_text(
        TINY.replace("MISSED", "0.5") + "init: elsewhere/base/model\n"
    )
    out = tmp_path / "runs"
    told: list[str] = []
    named = sorted(configs.glob("*.yaml"))
    folders = prepare(named, out, 0.2, told.append)
    assert [folder.name for folder in folders] == ["missed-50", "relabelled-50"]
    assert (out / "base" / "model" / "config.json").is_file()
    told_then = len(told)
    assert prepare(named, out, 0.2, told.append) == folders
    assert len(told) == told_then
    again = Point.load(out / "relabelled-50")
    assert (again.missed, again.relabelled, again.on_the_curve) == (0.5, True, True)
    records = list(read_records([out / "relabelled-50" / "corpus.jsonl"]))
    assert len(records) % 16 == 0
    assert {record.family for record in records} == {"desk"}


def test_a_laboratory_without_models_is_refused(tmp_path: Path) -> None:
    for given, words in (([], "no model is named"), (["--configs", str(tmp_path)], "no config")):
        ran = CliRunner().invoke(app, ["lab", *given])
        assert isinstance(ran.exception, PretrainingError)
        assert words in str(ran.exception)
