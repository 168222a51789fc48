"""Bayes' rule over stories, and why negligible scoring passes may be skipped."""

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from secateur.gates.errors import UnreadableError
from secateur.gates.evidence import SentenceScore
from secateur.gates.posterior import NEGLIGIBLE, check_sentences, negligible, posteriors

LOGS = st.floats(-400, 0)


def sentence(untagged: float, **tags: tuple[float, float | None]) -> SentenceScore:
    opens = {tag: log_open for tag, (log_open, _) in tags.items()}
    tagged = {tag: log_tagged for tag, (_, log_tagged) in tags.items()}
    return SentenceScore(0, 1, untagged, opens, tagged)


def test_posterior_is_bayes_rule_over_all_stories():
    joint = {"deceit": 0.1 * 0.5, "powerseeking": 0.02 * 0.25}
    scores = sentence(
        math.log(0.01),
        deceit=(math.log(0.1), math.log(0.5)),
        powerseeking=(math.log(0.02), math.log(0.25)),
    )
    total = sum(joint.values()) + 0.01
    assert posteriors(scores) == pytest.approx({tag: p / total for tag, p in joint.items()})


@given(LOGS, st.tuples(LOGS, LOGS), st.tuples(LOGS, LOGS))
def test_posteriors_are_probabilities_that_share_one_whole(untagged, deceit, powerseeking):
    found = posteriors(sentence(untagged, deceit=deceit, powerseeking=powerseeking))
    assert all(0 <= p <= 1 for p in found.values())
    assert sum(found.values()) <= 1 + 1e-9


@given(LOGS, LOGS, LOGS)
def test_the_bound_is_never_below_the_posterior(untagged, log_open, tagged):
    found = posteriors(sentence(untagged, deceit=(log_open, tagged)))
    assert found["deceit"] <= negligible(log_open, untagged) + 1e-12


@given(LOGS, st.floats(-400, -0.5), LOGS, st.tuples(LOGS, LOGS), st.floats(NEGLIGIBLE, 1))
def test_skipping_a_negligible_pass_changes_no_verdict_on_its_tag(
    untagged, log_open, tagged, other, threshold
):
    if negligible(log_open, untagged) >= NEGLIGIBLE:
        log_open = untagged + math.log(NEGLIGIBLE / 2)
    full = sentence(untagged, deceit=(log_open, tagged), powerseeking=other)
    skipped = replace(full, tagged={**full.tagged, "deceit": None})
    before, after = posteriors(full), posteriors(skipped)
    assert (before["deceit"] >= threshold) == (after["deceit"] >= threshold)
    slack = after["powerseeking"] - before["powerseeking"]
    assert -1e-12 <= slack < NEGLIGIBLE / 4 * 1.01, "errs towards the cut, and by very little"


@given(LOGS, st.floats(0.01, 100))
def test_a_skipped_term_reads_as_its_bound_so_that_low_thresholds_still_cut(untagged, ratio):
    log_open = min(untagged + math.log(ratio), 0.0)
    found = posteriors(sentence(untagged, deceit=(log_open, None)))
    assert found["deceit"] == pytest.approx(negligible(log_open, untagged))


def test_very_long_sentences_do_not_underflow():
    found = posteriors(sentence(-5000.0, deceit=(-3.0, -4996.0)))
    assert found["deceit"] == pytest.approx(1 / (1 + math.exp(-1.0)))


@pytest.mark.parametrize(
    "broken",
    [
        sentence(math.nan, deceit=(-1.0, -1.0)),
        sentence(-1.0, deceit=(math.inf, -1.0)),
        sentence(-1.0, deceit=(-1.0, math.nan)),
        sentence(-1.0, deceit=(-1.0, 0.5)),
        sentence(-1.0, powerseeking=(-1.0, -1.0)),
        replace(sentence(-1.0, deceit=(-1.0, -1.0)), opens={}),
        replace(sentence(-1.0, deceit=(-1.0, -1.0)), end=5),
        replace(sentence(-1.0, deceit=(-1.0, -1.0)), start=1),
    ],
)
def test_impossible_or_missing_terms_are_refused(broken):
    with pytest.raises(UnreadableError, match="sentence 0"):
        check_sentences((broken,), ["deceit"], 2)
