"""A vocabulary fits its tokenizer exactly, or is refused by name; controls become biases."""

import pytest
from pydantic import ValidationError

from secateur.gates.canonical import canonical_json, digest
from secateur.gates.control import ALLOW, BAN, BAN_BIAS, Control, forced_ids, logit_bias
from secateur.gates.errors import VocabularyError
from secateur.gates.layout import Layout
from secateur.gates.vocabulary import Vocabulary

SPAN = {"name": "deceit", "open": "<|d|>", "close": "<|/d|>"}
BANDED = {
    "name": "nsfw",
    "close": "<|/n|>",
    "bands": [{"level": 1, "open": "<|n1|>"}, {"level": 2, "open": "<|n2|>"}],
}
PREFIX = {"name": "bad", "scheme": "prefix", "open": "<|bad|>", "good": "<|good|>"}
OTHER = {"name": "rude", "scheme": "prefix", "open": "<|rude|>", "good": "<|good|>"}


def test_a_tag_that_is_not_one_token_is_refused_by_name():
    vocabulary = Vocabulary.model_validate({"name": "v", "tags": [SPAN]})
    with pytest.raises(VocabularyError, match=r"'<\|d\|>' .* is 3 tokens .* must be exactly one"):
        vocabulary.bind(lambda literal: [1, 2, 3])


def test_two_tags_that_share_one_id_are_refused():
    vocabulary = Vocabulary.model_validate({"name": "v", "tags": [SPAN]})
    with pytest.raises(VocabularyError, match="same id 0"):
        vocabulary.bind(lambda literal: [0])


@pytest.mark.parametrize(
    "tag",
    [
        {"name": "x", "open": "<|x|>"},
        {"name": "x", "scheme": "prefix", "open": "<|x|>"},
        {"name": "x", "scheme": "marker", "open": "<|x|>"},
        {"name": "x", "scheme": "marker", "open": "<|x|>", "rate": 0},
        {"name": "x", "scheme": "document", "open": "<|x|>", "close": "<|/x|>"},
        {"name": "x", "close": "<|/x|>"},
        {**BANDED, "open": "<|x|>"},
        {**BANDED, "bands": BANDED["bands"][::-1]},
        {**PREFIX, "unit": "span"},
        {**PREFIX, "scheme": "document", "unit": "span"},
        {**PREFIX, "good": "<|bad|>"},
        {**SPAN, "close": "<|d|>"},
    ],
)
def test_a_tag_that_does_not_fit_its_scheme_is_refused(tag):
    with pytest.raises(ValidationError):
        Vocabulary.model_validate({"name": "v", "tags": [tag]})


@pytest.mark.parametrize("other", [{"unit": "sentence"}, {"scheme": "document"}])
def test_tags_that_share_their_good_twin_stand_in_the_same_places(other):
    with pytest.raises(ValidationError, match="'bad' and 'rude' share the good token"):
        Vocabulary.model_validate({"name": "v", "tags": [PREFIX, {**OTHER, **other}]})


def test_a_document_label_may_have_a_good_twin_that_is_a_column_too(make_vocabulary):
    label = {"name": "fiction", "scheme": "document", "open": "<|fiction|>", "good": "<|fact|>"}
    bound = make_vocabulary(SPAN, label)
    assert [column.token for column in bound.vocabulary.columns][1:] == ["<|fiction|>", "<|fact|>"]
    layout = Layout.of(bound)
    assert not layout.prefixed
    assert layout.twins == ((), ())


def test_a_shared_good_twin_is_one_column(make_vocabulary):
    bound = make_vocabulary(PREFIX, OTHER, BANDED)
    columns = bound.vocabulary.columns
    assert [column.token for column in columns] == [
        "<|bad|>",
        "<|good|>",
        "<|rude|>",
        "<|n1|>",
        "<|n2|>",
    ]
    assert bound.column_ids == [bound.ids[column.token] for column in columns]


def test_controls_become_biases_on_opening_tokens_alone(make_vocabulary):
    bound = make_vocabulary(SPAN, BANDED, PREFIX)
    controls = {
        "deceit": Control.model_validate("penalise(2.5)"),
        "nsfw": BAN,
        "bad": Control.model_validate("boost(1)"),
    }
    bias = {bound.ids[t]: b for t, b in [("<|d|>", -2.5), ("<|bad|>", 1.0)]}
    bias |= {bound.ids[t]: BAN_BIAS for t in ("<|n1|>", "<|n2|>")}
    assert logit_bias(controls, bound) == bias
    assert logit_bias({"deceit": ALLOW}, bound) == {}


def test_force_writes_the_strongest_band_or_the_good_twin(make_vocabulary):
    bound = make_vocabulary(SPAN, BANDED, PREFIX)
    force = Control.model_validate("force")
    assert forced_ids({"nsfw": force, "deceit": BAN}, bound) == [bound.ids["<|n2|>"]]
    assert forced_ids({"bad": force}, bound) == [bound.ids["<|good|>"]]


@pytest.mark.parametrize("spelling", ["ban", "allow", "force", "penalise(2.5)", "boost(1)"])
def test_a_control_is_read_as_it_is_spelt(spelling):
    assert str(Control.model_validate(spelling)) == spelling


def test_canonical_json_is_one_spelling_of_one_value():
    assert canonical_json({"b": 1, "a": [True, None, "é"]}) == b'{"a":[true,null,"\\u00e9"],"b":1}'
    assert digest({"a": 1, "b": 2}) == digest({"b": 2, "a": 1}) != digest({"a": 1, "b": 3})


@pytest.mark.parametrize("value", [float("nan"), float("inf"), {1, 2}, b"x"])
def test_what_json_cannot_say_is_never_hashed(value):
    with pytest.raises((ValueError, TypeError)):
        digest(value)
