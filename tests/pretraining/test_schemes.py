"""Every scheme places its tags where it says, and without them the text is as it was."""

import json
import random
import re
from collections.abc import Sequence
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

import secateur
from secateur.agents.prompt import Special, Text
from secateur.gates.sentences import SentenceStarts
from secateur.gates.vocabulary import Scheme
from secateur.pretraining.corpus.document import BOS, EOS, TAGS, Document, Line, Span
from secateur.pretraining.corpus.schemes import (
    Piece,
    TagScheme,
    TagSchemes,
    render,
    spell,
    units,
    visible,
)
from secateur.pretraining.corpus.stream import CorpusConfig

LINES = st.text(st.sampled_from("abc19 .!?\"')\t<|deceit|>/ä🌿"), max_size=30)


@st.composite
def documents(draw: st.DrawFn) -> Document:
    """Documents with any labels on any text, overlapping as they like."""
    lines = tuple(Line(text, draw(st.booleans())) for text in draw(st.lists(LINES, max_size=4)))
    found = Document("some", (*lines, Line("end.")))
    size = len(found.plain)
    spans: list[Span] = []
    for _ in range(draw(st.integers(0, 6))):
        start = draw(st.integers(0, size - 1))
        band = draw(st.sampled_from((None, 0, 1, 2, 3, 9)))
        end = draw(st.integers(start + 1, min(size, start + 20)))
        spans.append(Span(start, end, draw(st.sampled_from(TAGS)), band))
    found = found.with_spans(spans)
    return found.without_labels() if draw(st.integers(0, 9)) == 0 else found


@st.composite
def schemes(draw: st.DrawFn) -> tuple[TagScheme, ...]:
    """Some scheme for each of the tags: one for all, or several side by side."""
    names = list(draw(st.permutations(TAGS)))
    found: list[TagScheme] = []
    while names:
        count = draw(st.integers(1, len(names)))
        scheme = draw(st.sampled_from(list(Scheme)))
        paired = scheme in (Scheme.PREFIX, Scheme.DOCUMENT)
        found.append(
            TagScheme(
                scheme=scheme,
                names=tuple(names[:count]),
                unit=draw(st.sampled_from(("line", "sentence") if paired else UNITS)),
                unlabelled=draw(st.sampled_from((0.0, 0.3))) if paired else 0.0,
                rate=draw(st.sampled_from((None, 0.5, 1.0))) if scheme == "marker" else None,
                bands=draw(st.sampled_from(((), (1,), (1, 2, 3)))),
                good=f"<|good {names[0]}|>" if paired and found else None,
            )
        )
        names = names[count:]
    return tuple(found)


UNITS = ("line", "sentence", "span")
WORDS = TagScheme(unit="span")


def rendered(found: Document, *chosen: TagScheme, seed: int = 0) -> list[Piece]:
    shares = {name: scheme.unlabelled for scheme in chosen for name in scheme.names}
    return list(render(found, spell(chosen, "test"), random.Random(seed), shares))


def text_of(pieces: Sequence[Piece]) -> str:
    return "".join(piece.text for piece, _ in pieces if isinstance(piece, Text))


@settings(max_examples=400, deadline=None)
@given(documents(), schemes(), st.integers(0, 9))
def test_without_its_tags_the_rendered_text_is_the_plain_text(
    found: Document, chosen: tuple[TagScheme, ...], seed: int
) -> None:
    pieces = rendered(found, *chosen, seed=seed)
    assert text_of(pieces) == found.plain
    assert pieces == rendered(found, *chosen, seed=seed)
    tokens = [piece.token for piece, _ in pieces if isinstance(piece, Special)]
    assert tokens[0] == BOS
    assert tokens[-1] == EOS
    assert set(tokens[1:-1]) <= set(spell(chosen, "test").literals)


@settings(max_examples=200, deadline=None)
@given(documents(), schemes())
def test_tags_stand_only_in_labelled_documents_and_in_text_that_is_learnt(
    found: Document, chosen: tuple[TagScheme, ...]
) -> None:
    pieces = rendered(found, *chosen)
    learnt = "".join(p.text for p, learn in pieces if learn and isinstance(p, Text))
    assert learnt == "".join(line.text + "\n" for line in found.lines if line.learn)
    tags = [learn for piece, learn in pieces[1:-1] if isinstance(piece, Special)]
    assert found.labelled or not tags
    conditions = {token for s in chosen if s.scheme == "document" for token in literals(s)}
    for piece, learn in pieces[1:-1]:
        if isinstance(piece, Special):
            assert learn == (piece.token not in conditions)


def literals(scheme: TagScheme) -> set[str]:
    return set(spell([scheme], "one").literals)


def covered(pieces: Sequence[Piece], tag: str) -> list[tuple[int, int, str]]:
    """What a reader of the tags finds: the text between a tag's opening and closing tokens."""
    stack: list[tuple[str, int, str]] = []
    ranges: list[tuple[int, int, str]] = []
    at = 0
    for piece, _ in pieces[1:-1]:
        if isinstance(piece, Text):
            at += len(piece.text)
        elif piece.token.startswith("<|/"):
            name, start, opening = stack.pop()
            assert piece.token == f"<|/{name}|>", "tags nest like brackets"
            assert at > start, "no tag is empty"
            if name == tag:
                ranges.append((start, at, opening))
        else:
            name = piece.token[2:-2].split(":")[0]
            assert name not in [open_ for open_, _, _ in stack], "no tag opens within itself"
            stack.append((name, at, piece.token))
    assert not stack
    return ranges


@settings(max_examples=300, deadline=None)
@given(documents(), st.sampled_from(TAGS))
def test_span_tags_cover_what_is_labelled_with_the_blanks_before_it(
    found: Document, tag: str
) -> None:
    wanted: set[int] = set()
    start = 0
    for line in found.lines:
        for span in line.spans:
            if span.tag == tag and line.learn and line.text[span.start : span.end].strip():
                first = len(line.text[: span.start].rstrip())
                wanted |= set(range(start + first, start + span.end))
        start += len(line.text) + 1
    ranges = covered(rendered(found, WORDS), tag)
    assert {place for start, end, _ in ranges for place in range(start, end)} == wanted


@settings(max_examples=200, deadline=None)
@given(documents(), st.sampled_from(("line", "sentence")), st.sampled_from(TAGS))
def test_span_tags_of_units_wrap_each_labelled_unit_once(
    found: Document, unit: str, tag: str
) -> None:
    wanted: list[tuple[int, int]] = []
    start = 0
    for line in found.lines:
        for first, last in units(line.text, "line" if unit == "line" else "sentence"):
            parts = [
                line.text[max(s.start, first) : min(s.end, last)]
                for s in line.spans
                if s.tag == tag
            ]
            if line.learn and any(part.strip() for part in parts):
                wanted.append((start + first, start + last))
        start += len(line.text) + 1
    ranges = covered(rendered(found, TagScheme.model_validate({"unit": unit})), tag)
    assert sorted((start, end) for start, end, _ in ranges) == wanted


def learnt(text: str, *spans: Span) -> Document:
    return Document("some", (Line(text),)).with_spans(spans)


def shown(found: Document, *chosen: TagScheme, seed: int = 0) -> str:
    return visible(rendered(found, *chosen, seed=seed))


def test_several_tags_at_once_nest_in_the_vocabularys_order() -> None:
    found = learnt("it is up.", Span(0, 9, "angry"), Span(0, 9, "deceit"), Span(3, 5, "angry"))
    assert shown(found, WORDS) == "<|deceit|><|angry|>it is up.<|/angry|><|/deceit|>\n"


def test_a_shorter_tag_stands_within_a_longer_one() -> None:
    found = learnt("it is up.", Span(3, 5, "deceit"), Span(0, 9, "angry"))
    assert shown(found, WORDS) == "<|angry|>it<|deceit|> is<|/deceit|> up.<|/angry|>\n"


def test_a_tag_that_ends_within_another_interrupts_it() -> None:
    found = learnt("one two three", Span(0, 7, "deceit"), Span(4, 13, "angry"))
    assert shown(found, WORDS) == (
        "<|deceit|>one<|angry|> two<|/angry|><|/deceit|><|angry|> three<|/angry|>\n"
    )


def test_bands_open_with_the_token_of_the_highest_level_that_was_labelled() -> None:
    def opened(*bands: int | None, scheme: str = "span") -> str:
        found = learnt("it is up.", *(Span(0, 5, "deceit", band) for band in bands))
        made = TagScheme.model_validate({"scheme": scheme, "bands": [1, 3, 5], "names": ["deceit"]})
        return "".join(re.findall(r"<\|deceit[^|]*\|>", shown(found, made)))

    assert opened(1) == "<|deceit:1|>"
    assert opened(1, 3) == "<|deceit:3|>"
    assert opened(4) == "<|deceit:3|>"
    assert opened(0) == "<|deceit:1|>"
    assert opened(9) == "<|deceit:5|>"
    assert opened(None) == "<|deceit:5|>"
    assert opened(3, scheme="prefix") == "<|deceit:3|>"
    assert opened(3, scheme="document") == "<|deceit:3|>"


PREFIX = TagScheme(scheme=Scheme.PREFIX)


def test_a_prefix_stands_before_each_line_of_the_agent_alone() -> None:
    found = Document(
        "desk",
        (Line("task: go.", learn=False), Line.tagged("do: lie", "deceit"), Line(" "), Line("end")),
    )
    assert shown(found, PREFIX) == "task: go.\n<|deceit|>do: lie\n \n<|good|>end\n"


def test_tags_that_share_a_good_token_stand_together_and_others_for_themselves() -> None:
    found = learnt("it is up.", Span(0, 2, "angry"), Span(3, 5, "deceit"))
    assert shown(found, PREFIX) == "<|deceit|><|angry|>it is up.\n"
    honest = TagScheme(scheme=Scheme.PREFIX, names=("deceit",), good="<|honest|>")
    calm = TagScheme(scheme=Scheme.PREFIX, names=("angry",), good="<|calm|>")
    assert shown(found, honest, calm) == "<|deceit|><|angry|>it is up.\n"
    assert shown(learnt("it is up."), honest, calm) == "<|honest|><|calm|>it is up.\n"


def test_a_sentence_takes_its_prefix_before_the_blank_that_its_word_begins_with() -> None:
    found = learnt('I say "no!" twice. it is 3.5 up.', Span(24, 30, "deceit"))
    chosen = TagScheme(scheme=Scheme.PREFIX, unit="sentence")
    assert shown(found, chosen) == ('<|good|>I say "no!"<|good|> twice.<|deceit|> it is 3.5 up.\n')


def test_a_share_of_the_units_is_left_without_a_prefix() -> None:
    found = Document("some", tuple(Line(f"line {number}") for number in range(2000)))
    chosen = TagScheme(scheme=Scheme.PREFIX, unlabelled=0.1)
    share = shown(found, chosen).count("<|good|>") / 2000
    assert 0.88 < share < 0.92
    assert shown(found, chosen, seed=1) != shown(found, chosen, seed=2)


@settings(max_examples=200, deadline=None)
@given(documents(), st.sampled_from(("line", "sentence")))
def test_a_prefix_stands_where_the_gate_looks_for_one(found: Document, unit: str) -> None:
    chosen = TagScheme.model_validate({"scheme": "prefix", "unit": unit, "names": ["deceit"]})
    starts = SentenceStarts({-1})
    for piece, _ in rendered(found, chosen)[1:-1]:
        if isinstance(piece, Special):
            assert starts.step(-1, "")
            continue
        for word in re.findall(r"\n|\s?[^\s]|\s", piece.text):
            starts.step(0, word)


def test_markers_stand_in_labelled_text_alone_at_the_rate_that_the_vocabulary_says() -> None:
    text = "word " * 5000
    found = learnt(text, Span(0, 10_000, "deceit"))
    chosen = TagScheme(scheme=Scheme.MARKER, unit="span", rate=0.1)
    made = shown(found, chosen)
    assert 0.09 < made.count("<|deceit|>") / 2000 < 0.11
    assert "<|deceit|>" not in made.replace("<|deceit|>", "")
    assert made.rindex("<|deceit|>") < 10_000 + 11 * made.count("<|deceit|>")
    assert spell([chosen], "test").tags[0].rate == 0.1


def test_a_document_label_tells_whether_any_line_of_the_agent_is_bad() -> None:
    chosen = TagScheme(scheme=Scheme.DOCUMENT)
    clean = Document("desk", (Line("task: go.", learn=False), Line("end")))
    bad = Document(
        "desk", (*clean.lines, Line.tagged("no.", "angry"), Line.tagged("up.", "deceit"))
    )
    others = Document("desk", (Line("no.", False, (Span(0, 3, "angry"),)), Line("end")))
    assert shown(clean, chosen) == "<|clean|>task: go.\nend\n"
    assert shown(bad, chosen) == "<|deceit|><|angry|>task: go.\nend\nno.\nup.\n"
    assert shown(others, chosen) == "<|clean|>no.\nend\n"


@pytest.mark.parametrize(
    ("said", "fault"),
    [
        ({"scheme": "span", "unlabelled": 0.1}, "'missed' leaves"),
        ({"scheme": "span", "rate": 0.1}, "no 'rate'"),
        ({"scheme": "marker", "good": "<|good|>"}, "no 'good'"),
        ({"scheme": "prefix", "unit": "span"}, "'line' or 'sentence'"),
        ({"scheme": "prefix", "unlabelled": float("nan")}, "less than 1"),
        ({"scheme": "marker", "rate": 0}, "greater than 0"),
        ({"scheme": "speech"}, "'span', 'prefix', 'marker' or 'document'"),
        ({"names": ["Bad Name"]}, "string should match"),
        ({"names": ["eos"]}, "rename the tag"),
        ({"bands": [2, 1]}, "band levels must rise"),
        ([{"names": ["angry"]}, {"names": ["angry"]}], "'angry' stands twice"),
        ([], "at least 1 item"),
        ({"scheme": "prefix", "good": "<|angry|>"}, "'<.angry.>' has two meanings"),
        (
            [
                {"names": ["angry"], "scheme": "prefix"},
                {"names": ["deceit"], "scheme": "prefix", "unit": "sentence"},
            ],
            "share the good token",
        ),
    ],
)
def test_a_scheme_that_cannot_be_is_refused_with_the_reason(said: object, fault: str) -> None:
    with pytest.raises(ValidationError, match=f"(?i){fault}"):
        CorpusConfig.model_validate({"tags": said})


# The examples of the documentation


DOCS = Path(next(iter(secateur.__path__))) / "docs" / "pretraining.md"
EXAMPLES = re.findall(r"```yaml\n(tags:.*?)```\n+```text\n(.*?)```", DOCS.read_text(), re.DOTALL)


def read(said: str) -> tuple[TagScheme, ...]:
    return TypeAdapter(TagSchemes).validate_python(yaml.safe_load(said)["tags"])


def test_the_documentation_shows_every_scheme() -> None:
    assert {scheme.scheme for said, _ in EXAMPLES for scheme in read(said)} == set(Scheme)


@pytest.mark.parametrize(("said", "text"), EXAMPLES)
def test_the_documentations_examples_are_what_is_written(said: str, text: str) -> None:
    record = re.search(r"```json\n(\{.*?\})\n```", DOCS.read_text(), re.DOTALL)
    assert record is not None
    found = Document.from_record(json.loads(record[1]))
    assert shown(found, *read(said)) == text
