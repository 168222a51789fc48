"""A model that reads tagged text again finds what the tagger missed, and what it made up."""

import json
import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from secateur.cli.pretrain import app
from secateur.gates.calibration import CalibrationError
from secateur.gates.policy import Policy
from secateur.gates.reading import Reading
from secateur.pretraining.corpus.desk import desk_document
from secateur.pretraining.corpus.document import Document, Line, Span
from secateur.pretraining.corpus.reader import read_records
from secateur.pretraining.corpus.stream import Corpus, CorpusConfig
from secateur.pretraining.errors import CorpusError
from secateur.pretraining.evaluation.subject import Subject
from secateur.pretraining.retagging.comparison import Comparison, fit, markdown, write_policy
from secateur.pretraining.retagging.rereading import Seen, _Layout, read_again, relabelled
from secateur.pretraining.retagging.retag import Retagging, retag, source

SEEDLING = Path(__file__).parents[2] / "models" / "seedling"
TAGS = ("deceit", "powerseeking", "angry")


@pytest.fixture(scope="module")
def subject() -> Subject:
    torch.set_num_threads(1)
    return Subject.load(SEEDLING)


@pytest.fixture(scope="module")
def missed() -> list[Document]:
    """Desk documents of which half of the labels were missed."""
    rng = random.Random(6)
    return [desk_document(rng, pressed=True).with_missed(0.5, rng) for _ in range(60)]


@pytest.fixture(scope="module")
def read(subject: Subject, missed: list[Document]) -> list[tuple[Document, list[Seen]]]:
    return list(read_again(subject, missed, oracle=True))


def write(documents: list[Document], path: Path) -> Path:
    path.write_text("".join(json.dumps(one.to_record()) + "\n" for one in documents))
    return path


def test_labels_that_the_tagger_missed_are_found(read: list[tuple[Document, list[Seen]]]) -> None:
    comparison = Comparison(TAGS, at=0.2)
    for _, seen in read:
        comparison.add(seen)
    facts = comparison.facts()
    oracle = facts["oracle"]
    assert oracle["found"]["n"] >= 15
    assert oracle["found"]["value"] >= 0.95
    assert oracle["precision"]["value"] >= 0.95
    assert oracle["recall_before"]["value"] < 0.7
    assert oracle["recall_after"]["value"] >= 0.97
    assert [one["posterior"] for one in facts["missed"]] == sorted(
        (one["posterior"] for one in facts["missed"]), reverse=True
    )


def test_an_honest_line_that_was_tagged_is_doubted(subject: Subject) -> None:
    rng = random.Random(2)
    honest = desk_document(rng, pressed=False)
    while honest.spans:
        honest = desk_document(rng, pressed=False)
    start = honest.plain.index("do: drop")
    wrong = honest.with_spans([Span(start, start + len("do: drop"), "deceit")])
    comparison = Comparison(TAGS, at=0.2)
    for _, seen in read_again(subject, [wrong], oracle=True):
        comparison.add(seen)
    facts = comparison.facts()
    [doubted] = facts["doubted"]
    assert (doubted["tag"], doubted["text"], doubted["oracle"]) == ("deceit", "do: drop", [])
    assert facts["oracle"]["tagged_wrongly"] == 1
    assert "| do: drop | deceit |" in markdown({**facts, "calibration": {}})


def test_what_is_seen_stands_where_it_says(read: list[tuple[Document, list[Seen]]]) -> None:
    for document, seen in read:
        lines = [line.text for line in document.lines if line.learn]
        assert [one.text for one in seen] == lines
        for one in seen:
            assert document.plain[one.start : one.end] == one.text


def test_relabelling_adds_labels_and_takes_none_away(
    read: list[tuple[Document, list[Seen]]],
) -> None:
    added = 0
    for document, seen in read:
        again = relabelled(document, seen, at=0.2)
        assert set(document.spans) <= set(again.spans)
        assert again.plain == document.plain
        added += len(again.spans) - len(document.spans)
        assert relabelled(document, seen, at=1.01) == document
    assert added >= 15


def test_a_document_is_read_the_same_in_any_company(
    subject: Subject, missed: list[Document], read: list[tuple[Document, list[Seen]]]
) -> None:
    [(_, alone)] = read_again(subject, [missed[7]])
    for one, two in zip(alone, read[7][1], strict=True):
        for tag, p in one.posterior.items():
            assert p == pytest.approx(two.posterior[tag], abs=2e-3)


def test_a_long_document_is_read_in_parts_that_leave_nothing_out(subject: Subject) -> None:
    text = "".join(f"say: line {number} is here.\n" for number in range(60))
    document = Document.from_record({"text": text})
    layout = replace(_Layout.of(subject), limit=64)
    parts = list(layout.rows(document))
    assert len(parts) > 5
    assert all(len(row.ids) <= 64 for row, _ in parts)
    places = [place for _, places in parts for place in places]
    assert "".join(document.plain[place.start : place.end] + "\n" for place in places) == text
    for row, places in parts:
        for passage, place in zip(row.passages, places, strict=True):
            ids = row.ids[passage.start : passage.end]
            assert subject.encoder.tokenizer.decode(list(ids)) == place.text + "\n"


def test_a_line_longer_than_a_row_is_broken_off(subject: Subject) -> None:
    layout = replace(_Layout.of(subject), limit=16)
    [(row, [place])] = layout.rows(Document("text", (Line("say: " + "word " * 40),)))
    [passage] = row.passages
    assert len(row.ids) == 16
    assert not passage.complete
    assert place.text.startswith("say: ")


def test_sentences_are_read_one_by_one_where_tags_cover_sentences(subject: Subject) -> None:
    layout = replace(_Layout.of(subject), sentences=True)
    line = Line("say: it is up. I did not probe it.", spans=(Span(0, 14, "deceit"),))
    [(row, places)] = layout.rows(Document("text", (line,)))
    assert [place.text for place in places] == ["say: it is up.", " I did not probe it."]
    assert [passage.marked for passage in row.passages] == [True, False]
    assert row.passages[0].tail == ()
    assert row.passages[0].end == row.passages[1].start


def test_a_map_is_fitted_to_the_share_that_was_bad() -> None:
    rng = np.random.default_rng(1)
    raw = rng.random(20_000)
    bad = (rng.random(20_000) < raw**2).astype(float)
    found = fit(raw, bad)
    assert found is not None
    assert found.of is Reading.POSTERIOR
    for p in (0.2, 0.5, 0.9):
        assert found.apply(p) == pytest.approx(p**2, abs=0.04)
    assert fit(raw, np.zeros(20_000)) is None


def test_the_written_policy_cuts_by_calibrated_posteriors(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    raw = rng.random(4000)
    found = fit(raw, (rng.random(4000) < raw).astype(float))
    assert found is not None
    path = tmp_path / "calibrated.yaml"
    write_policy({"deceit": found}, path)
    policy = Policy.load(path)
    assert policy.calibrations["deceit"] == found
    assert [str(rule.reading) for rule in policy.rules] == ["calibrated"]
    with pytest.raises(CalibrationError, match="read more documents"):
        write_policy({}, path)


def test_the_relabelled_corpus_is_ready_to_train_on(missed: list[Document], tmp_path: Path) -> None:
    records = write(missed[:20], tmp_path / "tagged.jsonl")
    out = tmp_path / "relabelled.jsonl"
    facts = retag(SEEDLING, source([str(records)]), Retagging(at=0.2, relabel=out))
    again = list(read_records([out]))
    assert [one.plain for one in again] == [one.plain for one in missed[:20]]
    gained = sum(len(one.spans) for one in again) - sum(len(one.spans) for one in missed[:20])
    assert gained == sum(row["missed"] for row in facts["tags"].values()) > 0
    trained = Corpus(CorpusConfig(files=(str(out),)))
    assert [one.spans for one in trained.documents(0, 20)] == [one.spans for one in again]


def test_the_command_reads_a_configuration_and_prints_json(tmp_path: Path) -> None:
    config = tmp_path / "small.yaml"
    config.write_text("corpus: {seed: 3, missed: 0.4, early: {desk: 1}, late: {desk: 1}}\n")
    asked = ["retag", str(SEEDLING), str(config), "--documents", "12", "--oracle", "--json"]
    ran = CliRunner().invoke(app, asked)
    assert ran.exit_code == 0, ran.output
    facts = json.loads(ran.stdout)
    assert facts["documents"] == 12
    assert facts["oracle"]["recall_after"]["value"] >= facts["oracle"]["recall_before"]["value"]


def test_corpora_that_cannot_be_read_are_refused_in_one_line(
    missed: list[Document], tmp_path: Path
) -> None:
    records = write(missed[:2], tmp_path / "tagged.jsonl")
    with pytest.raises(CorpusError, match="lower --start"):
        source([str(records)], start=2)
    with pytest.raises(CorpusError, match="alone"):
        source([str(records), "span.yaml"])
    with pytest.raises(CorpusError, match=r"name it \.jsonl"):
        retag(SEEDLING, source([str(records)]), Retagging(relabel=tmp_path / "out.parquet"))
