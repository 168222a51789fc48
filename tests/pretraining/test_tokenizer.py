"""Each digit and each tag is one token, and outside text never becomes a tag."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import secateur.models as models
from secateur.agents.prompt import Special
from secateur.gates.vocabulary import Scheme, Vocabulary
from secateur.pretraining.corpus.document import TAGS, close_token, open_token
from secateur.pretraining.corpus.schemes import TagScheme
from secateur.pretraining.corpus.stream import Corpus, CorpusConfig, Objective
from secateur.pretraining.training.bpe import Encoder, save_vocabulary, specials, train_tokenizer

CONFIG = CorpusConfig(seed=1)


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return Encoder(train_tokenizer(CONFIG, 640, sample=1500))


@settings(max_examples=100, deadline=None)
@given(st.text(max_size=60))
def test_any_text_reads_back_and_holds_no_special_token(encoder: Encoder, text: str) -> None:
    ids = encoder.text(text)
    assert encoder.tokenizer.decode(list(ids), skip_special_tokens=False) == text
    assert not set(ids) & {
        encoder.special(token) for token in specials(CONFIG.vocabulary("corpus"))
    }


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


def with_tags(*schemes: TagScheme) -> CorpusConfig:
    return CorpusConfig(seed=1, growing=300, tags=schemes)


BANDS = (1, 2, 3)
SCHEMES = {
    "span": with_tags(TagScheme()),
    "span of sentences, in bands": with_tags(TagScheme(unit="sentence", bands=BANDS)),
    "prefix": with_tags(TagScheme(scheme=Scheme.PREFIX, unlabelled=0.1)),
    "prefix in bands": with_tags(TagScheme(scheme=Scheme.PREFIX, unit="sentence", bands=BANDS)),
    "marker": with_tags(TagScheme(scheme=Scheme.MARKER, rate=0.3)),
    "document": with_tags(TagScheme(scheme=Scheme.DOCUMENT, bands=BANDS)),
    "all at once": with_tags(
        TagScheme(names=("deceit",)),
        TagScheme(names=("angry",), scheme=Scheme.PREFIX, good="<|calm|>"),
        TagScheme(names=("powerseeking",), scheme=Scheme.MARKER),
    ),
}


@pytest.mark.parametrize("name", SCHEMES)
def test_every_token_of_every_scheme_is_one_token_of_its_tokenizer(
    name: str, tmp_path: Path
) -> None:
    config = SCHEMES[name]
    encoder = Encoder(train_tokenizer(config, 400, sample=60))
    save_vocabulary(tmp_path, config.vocabulary("tiny"))
    vocabulary = Vocabulary.load(tmp_path / "vocabulary.json")
    assert vocabulary == config.vocabulary("tiny")
    encoder.tokenizer.encode_special_tokens = False
    bound = vocabulary.bind(lambda text: encoder.tokenizer.encode(text).ids)
    encoder.tokenizer.encode_special_tokens = True
    written: set[int] = set()
    for found, pieces in Corpus(config).rendered(300, 150):
        ids, learn = encoder.pieces(pieces)
        assert len(ids) == len(learn)
        tags = {encoder.special(piece.token) for piece, _ in pieces if isinstance(piece, Special)}
        plain = [token for token in ids if token not in tags]
        assert plain == [i for line in found.lines for i in encoder.text(line.text + "\n")]
        written |= set(ids) & set(bound.ids.values())
    opens = {i for tag in vocabulary.tags for i in bound.open_ids(tag.name)}
    assert written & opens


def test_the_vocabulary_is_the_shipped_models_own(tmp_path: Path) -> None:
    save_vocabulary(tmp_path, CONFIG.vocabulary("seedling"))
    shipped = Path(next(iter(models.__path__))) / "seedling" / "vocabulary.json"
    assert (tmp_path / "vocabulary.json").read_bytes() == shipped.read_bytes()
    assert tuple(tag.name for tag in Vocabulary.load(shipped).tags) == TAGS


def test_models_to_be_compared_share_their_tokenizer() -> None:
    first, *others = (
        train_tokenizer(CONFIG.model_copy(update={"objective": objective}), 400, sample=100)
        for objective in Objective
    )
    assert all(other.to_str() == first.to_str() for other in others)
