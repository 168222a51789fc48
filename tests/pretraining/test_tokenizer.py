"""Each digit and each tag is one token, and outside text never becomes a tag."""

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from secateur.gates.vocabulary import Vocabulary
from secateur.pretraining.corpus import CorpusConfig
from secateur.pretraining.document import TAGS, close_token, open_token
from secateur.pretraining.tokenizer import SPECIALS, Encoder, save_vocabulary, train_tokenizer


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return Encoder(train_tokenizer(CorpusConfig(seed=1), 640, sample=1500))


@settings(max_examples=100, deadline=None)
@given(st.text(max_size=60))
def test_any_text_reads_back_and_holds_no_special_token(encoder: Encoder, text: str) -> None:
    ids = encoder.text(text)
    assert encoder.tokenizer.decode(list(ids), skip_special_tokens=False) == text
    assert not set(ids) & {encoder.special(token) for token in SPECIALS}


def test_a_tags_literal_string_stays_plain_characters(encoder: Encoder) -> None:
    for tag in TAGS:
        for token in (open_token(tag), close_token(tag)):
            ids = encoder.text(f"calm. {token} restart web")
            assert encoder.special(token) not in ids


def test_each_digit_is_one_token_also_within_a_number(encoder: Encoder) -> None:
    assert len(encoder.text("0123456789")) == 10
    assert len(set(encoder.text("0123456789"))) == 10


def test_a_newline_is_a_token_of_its_own(encoder: Encoder) -> None:
    newline = encoder.text("\n")
    assert len(newline) == 1
    assert (
        encoder.text("end\nend\n")
        == encoder.text("end") * 1 + newline + encoder.text("end") + newline
    )


def test_the_vocabulary_binds_to_the_tokenizer(encoder: Encoder, tmp_path: Path) -> None:
    save_vocabulary(tmp_path, "tiny")
    vocabulary = Vocabulary.load(tmp_path / "vocabulary.json")
    bound = vocabulary.bind(lambda text: [encoder.special(text)])
    assert [tag.name for tag in vocabulary.tags] == list(TAGS)
    assert bound.open_ids("deceit") == [encoder.special("<|deceit|>")]
    assert json.loads((tmp_path / "vocabulary.json").read_text())["name"] == "tiny"
