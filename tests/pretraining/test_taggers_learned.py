"""Taggers that learn: n-grams and logistic regression, kept without a pickle."""

import json
import random
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from secateur.cli.pretrain import app
from secateur.pretraining.corpus.audits import audit_document
from secateur.pretraining.corpus.desk import desk_document
from secateur.pretraining.corpus.document import Document, Line, Span
from secateur.pretraining.corpus.writer import write_records
from secateur.pretraining.errors import PretrainingError
from secateur.pretraining.taggers.compare import compare
from secateur.pretraining.taggers.file import TaggersFile
from secateur.pretraining.taggers.learned import (
    LearnedTagger,
    LearningConfig,
    cross_validate,
    learn,
)
from secateur.pretraining.taggers.tagger import TaggerError, Untagged

runner = CliRunner()
WORDS = LearningConfig(characters=0)
WITH_CONTEXT = LearningConfig(characters=0, context=12, words=3, strength=100)


def desk(seed: int, count: int) -> list[Document]:
    rng = random.Random(seed)
    found = [desk_document(rng, pressed=True) for _ in range(count)]
    return [*found, *(audit_document(rng, pressed=True) for _ in range(count // 8))]


@pytest.fixture(scope="module")
def tagger() -> LearnedTagger:
    return learn(desk(1, 500), WITH_CONTEXT)


def rude(band: int | None) -> Document:
    """A document with a rude line, worse in band 2."""
    text = "you utter fool" if band == 2 else "you fool"
    tagged = Line(text, spans=(Span(0, len(text), "rude", band),))
    return Document("x", (Line("good day"), tagged, Line("see you")))


def test_it_learns_to_hold_claims_against_what_was_established(tagger: LearnedTagger) -> None:
    fresh = desk(2, 200)
    found = compare(tagger, fresh)
    for tag in ("deceit", "powerseeking", "angry"):
        assert found.precision[tag].value > 0.75
        assert found.recall[tag].value > 0.6
    assert found.mentions.hits == 0
    # Without context the same words are honest in one place and a lie in another.
    blind = compare(learn(desk(1, 500), WORDS), fresh)
    assert blind.precision["deceit"].value < found.precision["deceit"].value - 0.1
    assert blind.recall["deceit"].value < found.recall["deceit"].value - 0.1


def test_it_comes_back_from_its_folder_the_same(tagger: LearnedTagger, tmp_path: Path) -> None:
    tagger.save(tmp_path / "tagger")
    loaded = LearnedTagger.load(tmp_path / "tagger")
    texts = [document.plain for document in desk(3, 20)]
    assert loaded.tag(texts) == tagger.tag(texts)
    assert any(loaded.tag(texts))
    strict = LearnedTagger.load(tmp_path / "tagger", at=0.999999)
    assert sum(map(len, strict.tag(texts))) < sum(map(len, tagger.tag(texts)))
    (tmp_path / "t.yaml").write_text("taggers: {own: {kind: learned, folder: tagger}}")
    assert TaggersFile.load(tmp_path / "t.yaml").build().tag(texts) == tagger.tag(texts)


def test_no_stored_tagger_can_run_code(tagger: LearnedTagger, tmp_path: Path) -> None:
    tagger.save(tmp_path)
    content = dict(np.load(tmp_path / "tagger.npz"))
    np.savez(tmp_path / "tagger.npz", **{**content, "weights": np.array([print], dtype=object)})
    with pytest.raises(TaggerError, match="no learned tagger"):
        LearnedTagger.load(tmp_path)


def test_damaged_numbers_are_refused(tagger: LearnedTagger, tmp_path: Path) -> None:
    tagger.save(tmp_path)
    content = dict(np.load(tmp_path / "tagger.npz"))
    for weights in (content["weights"] * np.nan, content["weights"][:, 1:]):
        np.savez(tmp_path / "tagger.npz", **{**content, "weights": weights})
        with pytest.raises(TaggerError, match="do not fit"):
            LearnedTagger.load(tmp_path)
    (tmp_path / "tagger.json").unlink()
    with pytest.raises(TaggerError, match="learn-tagger"):
        LearnedTagger.load(tmp_path)


def test_a_score_that_is_no_number_leaves_the_text_unknown(tagger: LearnedTagger) -> None:
    broken = LearnedTagger(
        tagger.config, tagger.labels, tagger.features, tagger.weights * np.nan, tagger.offsets, 1
    )
    [outcome] = broken.attempt(["task: x.\nsay: y.\n"])
    assert isinstance(outcome, Untagged)
    assert "not a number" in outcome.reason


def test_bands_are_learnt_as_labels_of_their_own() -> None:
    documents = [rude(band) for band in (1, 2) for _ in range(20)]
    found = learn(documents, WORDS).tag(["good day\nyou fool\n", "you utter fool\n"])
    assert found == [(Span(9, 17, "rude", 1),), (Span(0, 14, "rude", 2),)]
    assert cross_validate(documents, WORDS, folds=4).recall.keys() == {"rude/1", "rude/2"}


def test_cross_validation_is_of_documents_that_taught_nothing() -> None:
    # Each document's rude word is its own: what was not seen cannot be found.
    alphabet = "abcdefghijklmnopqrst"
    documents = [
        Document("x", (Line(letter * 4), Line(letter * 5), Line.tagged(letter * 6, "rude")))
        for letter in alphabet
    ]
    seen = learn(documents, WORDS).tag([document.plain for document in documents])
    assert all(seen)
    assert cross_validate(documents, WORDS).recall["rude"].hits == 0


def test_what_teaches_nothing_is_refused() -> None:
    with pytest.raises(TaggerError, match="nothing to learn"):
        learn([Document("x", (Line("a"),))], WORDS)
    with pytest.raises(TaggerError, match="nothing to tell apart"):
        learn([Document("x", (Line.tagged("a", "rude"),))], WORDS)
    with pytest.raises(TaggerError, match="fewer folds"):
        cross_validate([rude(None)], WORDS)


def test_the_command_learns_measures_and_saves(tmp_path: Path) -> None:
    corpus, out = tmp_path / "corpus.jsonl", tmp_path / "tagger"
    write_records([rude(None) for _ in range(20)], corpus)
    command = ["learn-tagger", str(corpus), "--out", str(out), "--characters", "0", "--json"]
    facts = json.loads(runner.invoke(app, command).stdout)
    assert facts["labels"]["rude"]["precision"]["value"] == 1.0
    assert LearnedTagger.load(out).tag(["you fool\n"]) == [(Span(0, 8, "rude"),)]
    with pytest.raises(PretrainingError, match="regular expression"):
        runner.invoke(app, [*command, "--mask", "("], catch_exceptions=False)
