"""``secateur pretrain``: the commands do what they say, and refuse with a remedy."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from secateur.pretraining.commands import PretrainingError, app

runner = CliRunner()


def test_corpus_writes_the_same_lines_for_the_same_seed(tmp_path: Path) -> None:
    command = ["corpus", "--documents", "20", "--seed", "4"]
    first, second = (runner.invoke(app, command) for _ in range(2))
    assert first.exit_code == 0
    assert first.stdout_bytes == second.stdout_bytes
    assert len(first.stdout.splitlines()) == 20
    assert set(json.loads(first.stdout.splitlines()[0])) == {"family", "text", "lines", "meta"}
    out = tmp_path / "corpus.jsonl"
    assert runner.invoke(app, [*command, "--out", str(out)]).exit_code == 0
    assert out.read_bytes() == first.stdout_bytes


def test_eval_of_a_missing_folder_names_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(PretrainingError, match="name a model folder"):
        runner.invoke(app, ["eval", str(tmp_path / "none")], catch_exceptions=False)


def test_an_unknown_setting_is_refused_by_name(tmp_path: Path) -> None:
    config = tmp_path / "wrong.yaml"
    config.write_text("name: wrong\nspeed: 11\n")
    with pytest.raises(PretrainingError, match="speed"):
        runner.invoke(
            app, ["train", "--config", str(config), "--out", str(tmp_path)], catch_exceptions=False
        )
    config.write_text("name: [unclosed\n")
    with pytest.raises(PretrainingError, match="no YAML"):
        runner.invoke(
            app, ["train", "--config", str(config), "--out", str(tmp_path)], catch_exceptions=False
        )
