"""``secateur pretrain``: the commands do what they say, and refuse with a remedy."""

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import secateur.pretraining.configs as configs
from secateur.cli.pretrain import app
from secateur.pretraining.corpus.reader import read_records
from secateur.pretraining.errors import PretrainingError

runner = CliRunner()


def test_corpus_writes_the_same_lines_for_the_same_seed(tmp_path: Path) -> None:
    command = ["corpus", "--documents", "20", "--seed", "4"]
    first, second = (runner.invoke(app, command) for _ in range(2))
    assert first.exit_code == 0
    assert first.stdout_bytes == second.stdout_bytes
    assert len(first.stdout.splitlines()) == 20
    records = [json.loads(line) for line in first.stdout.splitlines()]
    assert set(records[0]) == {"family", "text", "spans", "given", "meta"}
    out = tmp_path / "corpus.jsonl"
    assert runner.invoke(app, [*command, "--out", str(out)]).exit_code == 0
    assert out.read_bytes() == first.stdout_bytes
    parquet = tmp_path / "corpus.parquet"
    assert runner.invoke(app, [*command, "--out", str(parquet)]).exit_code == 0
    assert [found.to_record() for found in read_records([parquet])] == records


def test_corpus_shows_any_scheme_and_objective() -> None:
    command = ["corpus", "--documents", "60", "--objective"]
    shown: dict[str, list[dict[str, Any]]] = {}
    for objective in ("conditional", "plain"):
        result = runner.invoke(app, [*command, objective, "--scheme", "prefix"])
        assert result.exit_code == 0
        shown[objective] = [json.loads(line) for line in result.stdout.splitlines()]
    tagged = [record["tagged"] for record in shown["conditional"]]
    assert any("\n<|deceit|>say: " in text for text in tagged)
    assert all(text.endswith("\n<|good|>end\n") for text in tagged if text.endswith("end\n"))
    assert [record["text"] for record in shown["plain"]] == [
        record["tagged"] for record in shown["plain"]
    ]


def test_corpus_follows_a_training_configuration() -> None:
    lab = Path(configs.__path__[0]) / "lab" / "plain.yaml"
    result = runner.invoke(app, ["corpus", "--documents", "5", "--config", str(lab)])
    records = [json.loads(line) for line in result.stdout.splitlines()]
    assert len(records) == 5
    assert all(record["spans"] is None for record in records)


def test_corpus_files_hold_no_scheme(tmp_path: Path) -> None:
    command = ["corpus", "--scheme", "span", "--out", str(tmp_path / "corpus.jsonl")]
    with pytest.raises(PretrainingError, match="leave --scheme or --out out"):
        runner.invoke(app, command, catch_exceptions=False)


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
