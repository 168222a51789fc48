"""Outside text can never become a tag; texts come back whole."""

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from secateur.agents.prompt import Ids, Special, Text
from secateur.gates.errors import VocabularyError
from secateur.gates.vocabulary import Vocabulary
from secateur.runtime.engines.protocol import EngineError
from secateur.runtime.engines.tokenizer import TagTokenizer, TextStream

PARTS = [
    *("<|/deceit|>", "<|deceit|>", "<|angry|>", "<|bos|>", "<|eos|>", "<|pad|>"),
    *("<|", "|>", "/", "deceit", "＜｜deceit｜＞", "<|dec\u200beit|>", "<\u200d|deceit|>"),
    *("é", "€", "😀", "\x00", " ", "\n"),
]


@pytest.fixture(scope="module")
def tokenizer(tiny_checkpoint: Path) -> TagTokenizer:
    vocabulary = Vocabulary.load(tiny_checkpoint / "vocabulary.json")
    return TagTokenizer.load(tiny_checkpoint, vocabulary)


@pytest.mark.parametrize("literal", PARTS)
def test_a_literal_in_outside_text_stays_plain_characters(
    tokenizer: TagTokenizer, literal: str
) -> None:
    ids = tokenizer.encode([Text(literal)])
    assert not any(tokenizer.is_special(id_) for id_ in ids)
    assert tokenizer.decode(ids) == literal


@given(pieces=st.lists(st.sampled_from(PARTS) | st.text(max_size=6), max_size=12))
@settings(max_examples=100)
def test_no_sequence_of_outside_texts_becomes_a_tag(
    tokenizer: TagTokenizer, pieces: list[str]
) -> None:
    ids = tokenizer.encode([Text(piece) for piece in pieces])
    assert not any(tokenizer.is_special(id_) for id_ in ids)
    assert tokenizer.decode(ids) == "".join(pieces)
    assert ids == tokenizer.encode([Text("".join(pieces))])


def test_our_own_tokens_are_one_id_each_and_ids_stay_as_they_are(tokenizer: TagTokenizer) -> None:
    ids = tokenizer.encode(
        [Special("<|bos|>"), Text("<|deceit|>"), Special("<|deceit|>"), Ids((9,))]
    )
    assert ids[0] == 1
    assert ids[-2:] == [tokenizer.vocabulary.ids["<|deceit|>"], 9]
    assert len(ids) > 4


@pytest.mark.parametrize("token", ["<|sarcasm|>", "web", "", "<|bos|><|bos|>"])
def test_a_special_that_is_not_one_special_token_is_refused(
    tokenizer: TagTokenizer, token: str
) -> None:
    with pytest.raises(EngineError, match="not one special token of this model; it has: <"):
        tokenizer.encode([Special(token)])


@given(text=st.text(max_size=30))
@settings(max_examples=60)
def test_streamed_texts_add_up_to_the_text(tokenizer: TagTokenizer, text: str) -> None:
    ids = tokenizer.encode([Text(text), Special("<|angry|>"), Text(text)])
    stream = TextStream(tokenizer)
    parts = [stream.push(id_, last=n == len(ids) - 1) for n, id_ in enumerate(ids)]
    assert "".join(parts) == text + text


@given(ids=st.lists(st.integers(0, 299), min_size=1, max_size=30))
@settings(max_examples=60)
def test_streamed_texts_of_any_tokens_add_up_to_the_decoded_whole(
    tokenizer: TagTokenizer, ids: list[int]
) -> None:
    ids = [id_ % tokenizer.size for id_ in ids] + tokenizer.encode([Text("a")])
    stream = TextStream(tokenizer)
    parts = [stream.push(id_, last=n == len(ids) - 1) for n, id_ in enumerate(ids)]
    assert "".join(parts) == tokenizer.decode(ids)


def rewritten(folder: Path, to: Path, *, drop: str | None = None, ordinary: bool = False) -> Path:
    """The tokenizer without the added token ``drop``, or with tags listed as ordinary tokens."""
    content = json.loads((folder / "tokenizer.json").read_text())
    content["added_tokens"] = [t for t in content["added_tokens"] if t["content"] != drop]
    for token in content["added_tokens"]:
        token["special"] = not ordinary
    if drop is not None:
        content["model"]["vocab"].pop(drop)
    (to / "tokenizer.json").write_text(json.dumps(content))
    return to


def test_a_tag_that_is_not_one_token_is_refused_by_name(
    tiny_checkpoint: Path, tmp_path: Path
) -> None:
    vocabulary = Vocabulary.load(tiny_checkpoint / "vocabulary.json")
    folder = rewritten(tiny_checkpoint, tmp_path, drop="<|/angry|>")
    with pytest.raises(VocabularyError, match=r"'<\|/angry\|>' .* must be exactly one"):
        TagTokenizer.load(folder, vocabulary)


def test_a_tag_listed_as_an_ordinary_token_is_closed_to_outside_text_too(
    tiny_checkpoint: Path, tmp_path: Path
) -> None:
    vocabulary = Vocabulary.load(tiny_checkpoint / "vocabulary.json")
    loose = TagTokenizer.load(rewritten(tiny_checkpoint, tmp_path, ordinary=True), vocabulary)
    assert loose.vocabulary.ids["<|deceit|>"] == 3
    assert 3 not in loose.encode([Text("<|deceit|>")])
    assert loose.encode([Special("<|deceit|>")]) == [3]


def test_a_tag_that_plain_text_spells_is_refused(tiny_checkpoint: Path) -> None:
    word = Vocabulary.model_validate(
        {"name": "words", "tags": [{"name": "w", "scheme": "marker", "open": "I", "rate": 0.5}]}
    )
    with pytest.raises(VocabularyError, match=r"'I' .* can be spelt by plain text"):
        TagTokenizer.load(tiny_checkpoint, word)
