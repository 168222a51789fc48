"""A Ray Data job tags a corpus into the very files that one process writes."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from secateur.cli.pretrain import app
from secateur.pretraining.corpus.document import Document
from secateur.pretraining.corpus.reader import find_files, read_records
from secateur.pretraining.corpus.stream import Corpus, CorpusConfig
from secateur.pretraining.corpus.writer import write_records
from secateur.pretraining.errors import CorpusError, PretrainingError
from secateur.pretraining.taggers.parallel import tag_parts
from secateur.pretraining.taggers.patterns import PatternTagger
from secateur.pretraining.taggers.tagger import Outcome, Tagger, Untagged

DESK = CorpusConfig(seed=5, early={"desk": 1}, late={"desk": 1})
WORDS = PatternTagger.model_validate({"kind": "patterns", "tag": "deceit", "words": ["it"]})


class Doubtful(Tagger):
    """Finds what the word list finds, and cannot judge a text about backups."""

    def attempt(self, texts: Sequence[str]) -> list[Outcome]:
        found = WORDS.attempt(texts)
        return [
            Untagged("about a backup") if "back up" in text else outcome
            for text, outcome in zip(texts, found, strict=True)
        ]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Sixty unlabelled documents in three formats."""
    folder = tmp_path_factory.mktemp("corpus")
    made = [found.without_labels() for found in Corpus(DESK).documents(0, 60)]
    names = ("a.jsonl", "b.jsonl.gz", "c.parquet")
    for number, name in enumerate(names):
        write_records(made[20 * number : 20 * (number + 1)], folder / name)
    return [folder / name for name in names]


def bad_corpus(folder: Path) -> Path:
    """A file whose second record has no text."""
    path = folder / "bad.jsonl"
    path.write_text(json.dumps({"text": "fine"}) + "\n{}\n")
    return path


def tagged(out: Path) -> dict[str, list[Document]]:
    return {path.name: list(read_records([path])) for path in sorted(out.iterdir())}


def test_parts_hold_every_document_once_and_in_order(corpus: list[Path], tmp_path: Path) -> None:
    seen: list[int] = []
    tally = tag_parts(WORDS, corpus, tmp_path / "out", tell=seen.append, size=8).tally
    assert seen == [8, 8, 4] * 3
    assert tally.documents == 60
    plain = [found.plain for found in read_records(corpus)]
    found = [document for part in tagged(tmp_path / "out").values() for document in part]
    assert [document.plain for document in found] == plain
    assert all(document.labelled for document in found)
    for document in found:
        for span in document.spans:
            assert "it" in document.plain[span.start : span.end]
    assert tally.spans["deceit", None] == sum(len(document.spans) for document in found) > 0


def start_ray(ray: Any) -> None:
    """A node of one CPU; on a busy machine it may miss the 30 seconds that Ray gives it."""
    for tries_left in (2, 1, 0):
        try:
            ray.init(num_cpus=1, include_dashboard=False, log_to_driver=False)
            return
        except Exception as error:
            ray.shutdown()
            if not tries_left or "timed out during startup" not in str(error):
                raise


def test_a_ray_job_writes_what_one_process_writes(
    corpus: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ray = pytest.importorskip("ray", reason="ray is not installed (the extra 'cluster')")
    pytest.importorskip("ray.data", reason="ray has no Ray Data (the extra 'cluster')")
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    # This module's own tagger travels whole: the actors cannot import tests.
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    alone = tag_parts(Doubtful(), corpus, tmp_path / "alone", size=20)
    start_ray(ray)
    try:
        shared = tag_parts(Doubtful(), corpus, tmp_path / "shared", size=20, cluster=True)
        with pytest.raises(CorpusError, match=r"bad\.jsonl:2: "):
            tag_parts(Doubtful(), [bad_corpus(tmp_path)], tmp_path / "bad", cluster=True)
    finally:
        ray.shutdown()
    assert shared.tally == alone.tally
    assert alone.tally.failed > 0
    assert tagged(tmp_path / "shared") == tagged(tmp_path / "alone")
    assert sum(map(len, tagged(tmp_path / "alone").values())) == 60


def test_what_cannot_be_judged_stands_apart(corpus: list[Path], tmp_path: Path) -> None:
    result = tag_parts(Doubtful(), corpus[:1], tmp_path / "out", size=20)
    tally = result.tally
    assert [*find_files([result.untagged or ""])] == [*(tmp_path / "out").glob("*.jsonl")]
    good, failed = tagged(tmp_path / "out").values()
    assert (len(good), len(failed)) == (20 - tally.failed, tally.failed)
    assert tally.failed > 0
    assert all("back up" in found.plain and not found.labelled for found in failed)
    assert not any("back up" in found.plain for found in good)


def test_parts_of_another_job_are_not_mixed_with(corpus: list[Path], tmp_path: Path) -> None:
    tag_parts(WORDS, corpus[:1], tmp_path)
    with pytest.raises(CorpusError, match="name a new folder"):
        tag_parts(WORDS, corpus[:1], tmp_path)


def test_a_bad_record_ends_the_job_with_its_file_and_line(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match=r"bad\.jsonl:2: "):
        tag_parts(WORDS, [bad_corpus(tmp_path)], tmp_path / "out")
    assert not any((tmp_path / "out").glob("*"))


def test_the_command_writes_parts_into_a_folder(corpus: list[Path], tmp_path: Path) -> None:
    taggers = tmp_path / "taggers.yaml"
    taggers.write_text("taggers: {it: {kind: patterns, tag: deceit, words: [it]}}\n")
    command = ["tag", *map(str, corpus), "--taggers", str(taggers), "--json", "--out"]
    result = CliRunner().invoke(app, [*command, str(tmp_path / "parts")])
    assert result.exit_code == 0
    assert json.loads(result.stdout)["documents"] == 60
    assert list(tagged(tmp_path / "parts")) == [f"0000{n}-00000.parquet" for n in range(3)]
    refused = CliRunner().invoke(app, [*command, str(tmp_path / "one.parquet"), "--ray"])
    assert isinstance(refused.exception, PretrainingError)
    assert "name a folder with --out" in str(refused.exception)
