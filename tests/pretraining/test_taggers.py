"""Taggers: exact spans, use and mention, cascades, and no clean bill for what was not judged."""

import json
import random
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from secateur.cli.pretrain import app
from secateur.gates.sentences import SentenceStarts
from secateur.pretraining.corpus.audits import audit_document
from secateur.pretraining.corpus.desk import desk_document
from secateur.pretraining.corpus.document import Document, Line, Span
from secateur.pretraining.corpus.pressure import Split
from secateur.pretraining.corpus.reader import read_records
from secateur.pretraining.corpus.writer import write_records
from secateur.pretraining.errors import PretrainingError
from secateur.pretraining.taggers.apply import Failure, tag_documents
from secateur.pretraining.taggers.cascade import CascadeTagger, CombinedTagger
from secateur.pretraining.taggers.compare import compare
from secateur.pretraining.taggers.file import TaggersFile
from secateur.pretraining.taggers.mention import Mention
from secateur.pretraining.taggers.oracle import OracleTagger
from secateur.pretraining.taggers.patterns import PatternTagger
from secateur.pretraining.taggers.scale import Scale
from secateur.pretraining.taggers.tagger import (
    Outcome,
    Tagger,
    TaggerError,
    Untagged,
    UntaggedError,
)
from secateur.pretraining.taggers.units import ranges

SHIPPED = Path(__file__).parents[2] / "pretraining" / "configs" / "taggers.yaml"
runner = CliRunner()
TEXT = st.text(st.sampled_from("ab.!?\"')] \n\t3é漢🌱\u2028\r"), max_size=40)


def desk(count: int, split: Split = Split.TRAIN) -> list[Document]:
    rng = random.Random(3)
    return [desk_document(rng, pressed=True, split=split) for _ in range(count)]


def audits(count: int) -> list[Document]:
    rng = random.Random(4)
    return [audit_document(rng, pressed=True) for _ in range(count)]


def marked(tagger: Tagger, text: str) -> list[str]:
    [spans] = tagger.tag([text])
    return [text[span.start : span.end] for span in spans]


class Unsure(Tagger):
    """Judges no text that has a question mark, and finds ``bad`` in others."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def attempt(self, texts: Sequence[str]) -> list[Outcome]:
        self.asked += texts
        return [
            Untagged("who knows")
            if "?" in text
            else tuple(Span(at, at + 3, "bad") for at in range(len(text)) if text[at:][:3] == "bad")
            for text in texts
        ]


@given(TEXT)
def test_units_are_exact_and_leave_out_white_space_alone(text: str) -> None:
    for unit in ("line", "sentence", "document"):
        found = ranges(text, unit)
        assert all(text[start:end] == text[start:end].strip() != "" for start, end in found)
        assert found == sorted(found)
        assert all(one[1] <= two[0] for one, two in pairwise(found))
        within = {place for start, end in found for place in range(start, end)}
        assert all(text[place].isspace() for place in set(range(len(text))) - within)


@given(TEXT)
def test_sentences_start_where_the_gate_reads_them(text: str) -> None:
    starts = SentenceStarts(())
    read = [place for place, letter in enumerate(text) if starts.step(place, letter)]
    # The gate starts with the white space before a sentence, a span with its first letter.
    letters = [
        next((p for p in range(at, len(text)) if not text[p].isspace()), None) for at in read
    ]
    expected = sorted({place for place in letters if place is not None})
    assert [start for start, _ in ranges(text, "sentence")] == expected


@given(TEXT)
def test_masking_keeps_every_offset_and_every_line(text: str) -> None:
    masked = Mention(quotes=True, patterns=("a+",)).masked(text)
    assert len(masked) == len(text)
    assert "a" not in masked
    assert all(new in (old, " ") for new, old in zip(masked, text, strict=True))
    assert masked.count("\n") == text.count("\n")


def test_the_oracle_tags_the_corpus_as_its_generator_did() -> None:
    documents = [*desk(60), *audits(20)]
    assert any(document.spans for document in documents)
    found = OracleTagger().tag([document.plain for document in documents])
    assert found == [document.spans for document in documents]


def test_the_oracle_has_no_word_for_what_it_does_not_know() -> None:
    [honest] = [d for d in desk(40) if not d.spans][:1]
    strange = honest.plain.replace("say: ", "say: trust me, ")
    other = "task: feed the cat.\nsay: I fed the cat.\nend\n"
    with pytest.raises(UntaggedError, match=r"2 of 3 texts.*text 2: 'say: trust me") as caught:
        OracleTagger().tag([honest.plain, strange, other])
    assert caught.value.failures.keys() == {1, 2}


def test_words_are_whole_weighed_and_banded() -> None:
    rude = PatternTagger(
        scale=Scale(tag="rude", bands={1: 1, 2: 3}), words={"fool": 1, "damn fool": 3}
    )
    text = "foolish.\nyou fool.\nÉ you DAMN  fool 🌱.\n"
    [spans] = rude.tag([text])
    assert [(text[s.start : s.end], s.band) for s in spans] == [
        ("you fool.", 1),
        ("É you DAMN  fool 🌱.", 2),
    ]
    excused = PatternTagger(
        scale=Scale(tag="rude"), words={"fool": 1, "april fool": -1, "fools": 1}
    )
    assert marked(excused, "an april fool\na fool\n") == ["a fool"]


def test_a_mention_is_no_use() -> None:
    words: dict[str, object] = {"tag": "rude", "words": ["fool"]}
    careless = PatternTagger.model_validate(words)
    careful = PatternTagger.model_validate(
        {**words, "mention": {"quotes": True, "patterns": [r"\w+ said that [^.\n]*\."]}}
    )
    text = 'he said "fool"\nshe said that I am a fool.\n“fool” is a word\nyou fool\n'
    assert len(marked(careless, text)) == 4
    assert marked(careful, text) == ["you fool"]


def test_audits_mention_lies_and_get_no_tag_while_desk_lies_do() -> None:
    file = TaggersFile.load(SHIPPED)
    documents = [*desk(150), *audits(100)]
    careless, careful = (compare(file.build(name), documents) for name in ("careless", "claims"))
    assert careless.mentions.value > 0.1
    assert careful.mentions.hits == 0
    assert careful.mentions.n == 100
    assert careful.recall["deceit"].value == 1.0
    assert careful.recall["deceit"].n > 30
    suspect = compare(file.build(), documents)
    assert all(rate.value == 1.0 for rate in suspect.recall.values())
    assert compare(file.build("oracle"), documents).precision["deceit"].value == 1.0


def test_what_others_wrote_bears_no_tag_unless_asked() -> None:
    document = Document("x", (Line("you fool", learn=False), Line("you fool")))
    rude = PatternTagger(scale=Scale(tag="rude"), words={"fool": 1})
    [skipped] = tag_documents(rude, [document])
    [tagged] = tag_documents(rude, [document], given="tag")
    assert isinstance(skipped, Document)
    assert isinstance(tagged, Document)
    assert [len(line.spans) for line in skipped.lines] == [0, 1]
    assert [len(line.spans) for line in tagged.lines] == [1, 1]


def test_a_cascade_asks_the_second_only_where_the_first_fired() -> None:
    first = PatternTagger(scale=Scale(tag="any"), words={"bad": 1, "why": 1}, unit="sentence")
    second = Unsure()
    found = CascadeTagger(first, second).attempt(["fine.", "bad. embad.", "why?", "?"])
    assert second.asked == ["bad. embad.", "why?"]
    # "embad" is none of the first's words, so what the second says of it does not count.
    assert found == [(), (Span(0, 3, "bad"),), Untagged("who knows"), ()]


def test_taggers_combine() -> None:
    text = "one bad day. two bad days"
    wide = PatternTagger(scale=Scale(tag="bad", bands={2: 1}), words={"bad": 1}, unit="sentence")
    late = PatternTagger(scale=Scale(tag="bad", bands={1: 1}), words={"two": 1}, unit="sentence")
    exact = Unsure()

    def combined(how: str, *taggers: Tagger) -> Outcome:
        [found] = CombinedTagger(how, taggers).attempt([text])  # pyright: ignore[reportArgumentType]
        return found

    assert combined("union", wide, exact) == (Span(0, 12, "bad", 2), Span(13, 25, "bad", 2))
    assert combined("intersection", wide, exact) == (Span(4, 7, "bad", 2), Span(17, 20, "bad", 2))
    assert combined("intersection", wide, late) == (Span(13, 25, "bad", 1),)
    assert combined("first", late, wide) == (Span(13, 25, "bad", 1),)
    assert CombinedTagger("union", (wide, exact)).attempt(["?"]) == [Untagged("who knows")]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[]", "correct it"),
        ("taggers: {}", "taggers"),
        ("taggers: {a: {kind: magic}}", "magic"),
        ("taggers: {a: {kind: patterns, tag: x}}", "needs 'words' or 'patterns'"),
        ("taggers: {a: {kind: patterns, tag: X, words: [b]}}", "tag"),
        ("taggers: {a: {kind: patterns, tag: x, patterns: ['(']}}", "no regular expression"),
        ("taggers: {a: {kind: patterns, tag: x, patterns: ['b*']}}", "match anywhere"),
        ("taggers: {a: {kind: patterns, tag: x, words: {b: .nan}}}", "no finite number"),
        ("taggers: {a: {kind: patterns, tag: x, words: {b: -1}}}", "could never fire"),
        ("taggers: {a: {kind: patterns, tag: x, words: b.txt}}", "word list"),
        ("taggers: {a: {kind: patterns, tag: x, words: [b], at: 1, bands: {1: 1}}}", "not both"),
        ("taggers: {a: {kind: patterns, tag: x, words: [b], bands: {1: 2, 2: 1}}}", "must rise"),
        ("taggers: {a: {kind: cascade, first: a, then: b}}", "'b', which is not here"),
        ("taggers: {a: {kind: cascade, first: a, then: a}}", "made of itself"),
        ("taggers: {a: {kind: oracle}, b: {kind: oracle}}", "name the one to 'use'"),
        ("taggers: {a: {kind: oracle}}\nuse: c", "names no tagger"),
        ("taggers: [", "no YAML"),
    ],
)
def test_a_faulty_file_is_refused_in_one_line(text: str, said: str, tmp_path: Path) -> None:
    path = tmp_path / "taggers.yaml"
    path.write_text(text)
    with pytest.raises(TaggerError, match=said) as caught:
        TaggersFile.load(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_word_lists_stand_beside_their_file(tmp_path: Path) -> None:
    (tmp_path / "rude.txt").write_text("# rude\nfool\ndamn fool\t3\n")
    path = tmp_path / "taggers.yaml"
    path.write_text("taggers: {a: {kind: patterns, tag: rude, words: rude.txt, at: 3}}")
    tagger = TaggersFile.load(path).build()
    assert marked(tagger, "a fool\na damn fool\n") == ["a damn fool"]


def test_the_command_tags_counts_and_says_where_it_disagrees(tmp_path: Path) -> None:
    documents = [*desk(40), *audits(10)]
    missed = [document.with_missed(0.5, random.Random(1)) for document in documents]
    corpus, out = tmp_path / "corpus.jsonl", tmp_path / "tagged.parquet"
    write_records(missed, corpus)
    (tmp_path / "t.yaml").write_text("taggers: {truth: {kind: oracle}}")
    command = ["tag", str(corpus), "--taggers", str(tmp_path / "t.yaml"), "--out", str(out)]
    done = runner.invoke(app, [*command, "--json"])
    facts = json.loads(done.stdout)
    assert list(read_records([out])) == documents
    spans = [span for document in documents for span in document.spans]
    kept = [span for document in missed for span in document.spans]
    assert sum(row["spans"] for row in facts["spans"]) == len(spans)
    assert sum(row["added"] for row in facts["disagreements"]) == len(spans) - len(kept) > 0
    assert sum(row["kept"] for row in facts["disagreements"]) == len(kept)
    assert facts["tagged"] == sum(bool(document.spans) for document in documents)
    assert "share of documents" in runner.invoke(app, command).stdout


def test_what_could_not_be_tagged_stays_out_of_the_corpus(tmp_path: Path) -> None:
    corpus, out = tmp_path / "corpus.jsonl", tmp_path / "tagged.jsonl"
    strange = Document("x", (Line("task: feed the cat.", learn=False), Line("say: done.")))
    write_records([*desk(2), strange], corpus)
    (tmp_path / "t.yaml").write_text("taggers: {truth: {kind: oracle}}")
    command = ["tag", str(corpus), "--taggers", str(tmp_path / "t.yaml"), "--out", str(out)]
    with pytest.raises(PretrainingError, match=r"1 of 3 documents could not be tagged.*feed"):
        runner.invoke(app, command, catch_exceptions=False)
    assert list(read_records([out])) == desk(2)
    [left] = read_records([tmp_path / "tagged.untagged.jsonl"])
    assert not left.labelled
    assert "feed the cat" in left.meta["untagged"]
    assert isinstance(tag_documents(OracleTagger(), [strange])[0], Failure)


def test_comparing_needs_documents_that_the_oracle_knows(tmp_path: Path) -> None:
    write_records([Document("x", (Line("task: feed the cat."), Line("end")))], tmp_path / "c.jsonl")
    command = ["tag", str(tmp_path / "c.jsonl"), "--taggers", str(SHIPPED), "--compare-with-oracle"]
    with pytest.raises(TaggerError, match="secateur pretrain corpus"):
        runner.invoke(app, command, catch_exceptions=False)
    write_records([*desk(30), *audits(5)], tmp_path / "c.jsonl")
    facts = json.loads(runner.invoke(app, [*command, "--json"]).stdout)
    assert facts["suspect"]["tags"]["deceit"]["recall"]["value"] == 1.0
    assert facts["claims"]["mentions"]["hits"] == 0
