"""The readings say what their formulas say."""

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from secateur.gates.calibration import Calibration
from secateur.gates.errors import UnreadableError
from secateur.gates.evidence import Evidence, SentenceScore
from secateur.gates.reading import READABLE, Reading
from secateur.gates.readings import ALLOWANCE, read

CLOSE = 2e-3
"""float16 moves p by at most some 2e-4 a token."""


def value(readings, tag: str, reading: Reading) -> float:
    return readings[tag][reading].value


def test_peak_is_the_strongest_temptation_and_its_place(spans, step, make_evidence):
    seen = make_evidence(spans, [step(0.1, 0), step(0.7, 0), step(0.2, 0)])
    peak = read(seen, spans)["deceit"][Reading.PEAK]
    assert peak.value == pytest.approx(0.7, abs=CLOSE)
    assert (peak.start, peak.end) == (1, 2)


def test_opened_of_one_tag_is_one_minus_the_survival(spans, step, make_evidence):
    seen = make_evidence(spans, [step(0.1, 0), step(0.5, 0), step(0.2, 0)])
    expected = 1 - 0.9 * 0.5 * 0.8
    opened = read(seen, spans)["deceit"][Reading.OPENED]
    assert opened.value == pytest.approx(expected, abs=CLOSE)
    assert (opened.start, opened.end) == (1, 2), "the token that added most"


def test_competing_tags_share_one_survival(spans, step, make_evidence):
    seen = read(make_evidence(spans, [step(0.3, 0.5), step(0.4, 0.1)]), spans)
    assert value(seen, "deceit", Reading.OPENED) == pytest.approx(0.3 + 0.2 * 0.4, abs=CLOSE)
    assert value(seen, "powerseeking", Reading.OPENED) == pytest.approx(0.5 + 0.2 * 0.1, abs=CLOSE)


@given(st.lists(st.tuples(st.floats(0, 0.5), st.floats(0, 0.5)), min_size=1, max_size=30))
def test_the_tags_opened_sum_to_one_minus_the_joint_survival(spans, step, make_evidence, path):
    seen = make_evidence(spans, [step(*ps) for ps in path])
    readings = read(seen, spans)
    stored = np.exp(seen.belief.astype(np.float64))
    opened = sum(value(readings, tag, Reading.OPENED) for tag in readings)
    assert opened == pytest.approx(1 - np.prod(1 - stored.sum(axis=1)), abs=1e-9)


def test_opened_counts_at_the_samplers_temperature_and_peak_at_one(spans, step, make_evidence):
    seen = read(make_evidence(spans, [step(0.3, 0, sampler=(0.8, 0))] * 2), spans)
    assert value(seen, "deceit", Reading.OPENED) == pytest.approx(1 - 0.2**2, abs=CLOSE)
    assert value(seen, "deceit", Reading.RATE) == pytest.approx(-math.log(0.2), rel=0.01)
    assert value(seen, "deceit", Reading.PEAK) == pytest.approx(0.3, abs=CLOSE)


def test_rate_does_not_grow_with_length(spans, step, make_evidence):
    short = read(make_evidence(spans, [step(0.1, 0)] * 3), spans)
    long = read(make_evidence(spans, [step(0.1, 0)] * 60), spans)
    assert value(short, "deceit", Reading.RATE) == pytest.approx(-math.log(0.9), rel=0.01)
    assert value(long, "deceit", Reading.RATE) == pytest.approx(-math.log(0.9), rel=0.01)
    assert (
        value(long, "deceit", Reading.OPENED) > 0.99 > 0.3 > value(short, "deceit", Reading.OPENED)
    )


def test_cusum_adds_up_what_comes_back_and_forgives_what_does_not(spans, step, make_evidence):
    steps = [step(0.3, 0), *[step(0, 0)] * 30, step(0.2, 0), step(0.2, 0), step(0, 0)]
    drift = read(make_evidence(spans, steps), spans)["deceit"][Reading.CUSUM]
    assert drift.value == pytest.approx(2 * (0.2 - ALLOWANCE), abs=CLOSE)
    assert (drift.start, drift.end) == (31, 33)


def test_emitted_names_the_token_and_ends_the_path_of_opened(spans, step, make_evidence):
    steps = [step(0.2, 0), step(0.5, 0, id=900), step(0.9, 0), step(0, 0.6)]
    seen = read(make_evidence(spans, steps), spans)
    emitted = seen["deceit"][Reading.EMITTED]
    assert (emitted.value, emitted.start, emitted.end) == (1.0, 1, 2)
    assert value(seen, "powerseeking", Reading.EMITTED) == 0.0
    assert value(seen, "deceit", Reading.OPENED) == pytest.approx(1 - 0.8 * 0.5, abs=CLOSE)
    assert value(seen, "powerseeking", Reading.OPENED) == 0.0, "the path was over"
    assert seen["deceit"][Reading.RATE].end == 2
    assert value(seen, "deceit", Reading.PEAK) == pytest.approx(0.9, abs=CLOSE), "belief reads on"


def test_certain_temptation_keeps_every_reading_finite(spans, step, make_evidence):
    seen = read(make_evidence(spans, [step(1.0, 0)] * 5), spans)
    assert all(math.isfinite(score.value) for scores in seen.values() for score in scores.values())
    assert value(seen, "deceit", Reading.OPENED) == pytest.approx(1.0)


def test_bands_add_up_to_their_tag(make_vocabulary, step, make_evidence):
    bands = [{"level": n, "open": f"<|bad{n}|>"} for n in (1, 2)]
    vocabulary = make_vocabulary({"name": "bad", "close": "<|/bad|>", "bands": bands})
    seen = read(make_evidence(vocabulary, [step(0.2, 0.3), step(0, 0, id=901)]), vocabulary)
    assert value(seen, "bad", Reading.PEAK) == pytest.approx(0.5, abs=CLOSE)
    assert value(seen, "bad", Reading.EMITTED) == 1.0


PREFIX = {"name": "misaligned", "scheme": "prefix", "open": "<|mis|>", "good": "<|al|>"}


def test_prefix_is_the_share_of_the_bad_twin_where_sentences_start(
    make_vocabulary, step, make_evidence
):
    vocabulary = make_vocabulary(PREFIX)
    steps = [step(0.03, 0.09), step(0.9, 0.05), step(0.1, 0.3)]
    seen = read(make_evidence(vocabulary, steps, starts=(0, 2)), vocabulary)
    assert value(seen, "misaligned", Reading.PEAK) == pytest.approx(0.25, abs=CLOSE)
    assert value(seen, "misaligned", Reading.OPENED) == pytest.approx(1 - 0.75**2, abs=CLOSE)


def test_prefix_cannot_be_read_where_neither_twin_has_mass(make_vocabulary, step, make_evidence):
    vocabulary = make_vocabulary(PREFIX)
    for thin in (step(0, 0), step(3e-7, 1e-7)):
        seen = make_evidence(vocabulary, [thin], starts=(0,))
        with pytest.raises(UnreadableError, match="so nothing was read"):
            read(seen, vocabulary)
        then = read(replace(seen, gate=1), vocabulary)
        assert value(then, "misaligned", Reading.PEAK) == 0.0, "as 0.1 read it"


def test_prefix_without_sentence_starts_cannot_be_read(make_vocabulary, step, make_evidence):
    vocabulary = make_vocabulary(PREFIX)
    with pytest.raises(UnreadableError, match="sentence start"):
        read(make_evidence(vocabulary, [step(0.1, 0.1)]), vocabulary)


def test_marker_divides_by_its_rate_and_stops_at_one(make_vocabulary, step, make_evidence):
    vocabulary = make_vocabulary(
        {"name": "unsafe", "scheme": "marker", "open": "<|u|>", "rate": 0.05}
    )
    half = read(make_evidence(vocabulary, [step(0.025)]), vocabulary)
    full = read(make_evidence(vocabulary, [step(0.06)]), vocabulary)
    assert value(half, "unsafe", Reading.PEAK) == pytest.approx(0.5, abs=0.01)
    assert value(full, "unsafe", Reading.PEAK) == 1.0
    assert value(half, "unsafe", Reading.OPENED) == pytest.approx(0.025, abs=CLOSE)


@pytest.mark.parametrize("scheme", READABLE)
def test_only_what_a_scheme_offers_is_read(make_vocabulary, step, make_evidence, scheme):
    parts = {
        "span": {"close": "<|/x|>"},
        "prefix": {"good": "<|y|>"},
        "marker": {"rate": 0.1},
        "document": {},
    }[scheme.value]
    vocabulary = make_vocabulary({"name": "x", "scheme": scheme, "open": "<|x|>", **parts})
    width = len(vocabulary.vocabulary.columns)
    seen = make_evidence(vocabulary, [step(*[0.1] * width)], starts=(0,)).with_sentences(())
    assert set(read(seen, vocabulary)["x"]) == READABLE[scheme] - {Reading.CALIBRATED}


def test_posterior_is_that_of_the_worst_sentence(spans, step, make_evidence):
    tags = {"deceit": math.log(0.2), "powerseeking": math.log(0.1)}
    mild = SentenceScore(0, 2, math.log(0.5), tags, {"deceit": -3.0, "powerseeking": None})
    worse = SentenceScore(2, 4, math.log(0.05), tags, {"deceit": -0.1, "powerseeking": None})
    seen = make_evidence(spans, [step(0, 0)] * 4).with_sentences((mild, worse))
    posterior = read(seen, spans)["deceit"][Reading.POSTERIOR]
    joint = 0.2 * math.exp(-0.1)
    assert posterior.value == pytest.approx(joint / (joint + 0.05))
    assert (posterior.start, posterior.end) == (2, 4)


def test_calibrated_maps_another_reading(spans, step, make_evidence):
    calibration = Calibration(of=Reading.PEAK, knots=((0.0, 0.0), (0.5, 0.1), (1.0, 0.9)))
    seen = make_evidence(spans, [step(0.75, 0)])
    readings = read(seen, spans, {"deceit": calibration})
    assert value(readings, "deceit", Reading.CALIBRATED) == pytest.approx(0.5, abs=CLOSE)
    assert Reading.CALIBRATED not in readings["powerseeking"]


@given(
    st.lists(st.tuples(st.floats(-9, 9), st.floats(0, 1)), min_size=2, max_size=8),
    st.floats(-10, 10),
    st.floats(-10, 10),
)
def test_calibration_is_the_interpolation_between_its_knots_and_never_falls(pairs, x, y):
    raws = sorted({raw for raw, _ in pairs})
    mapped = sorted(p for _, p in pairs)[: len(raws)]
    if len(raws) < 2:
        return
    map_ = Calibration(of=Reading.RATE, knots=tuple(zip(raws, mapped, strict=True)))
    assert map_.apply(x) == pytest.approx(float(np.interp(x, raws, mapped)), abs=1e-9)
    assert (map_.apply(x) <= map_.apply(y)) or x > y


def damaged(evidence: Evidence, **changes) -> Evidence:
    fields = {name: getattr(evidence, name) for name in evidence.__dataclass_fields__}
    return Evidence(**{**fields, **changes})


def belief(*rows: tuple[float, float]) -> np.ndarray:
    return np.array(rows, dtype=np.float16)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"belief": belief((-1, math.nan), (-1, -1))}, r"token 0: log p of <\|powerseeking\|> is"),
        ({"belief": belief((-1, -1), (math.inf, -1))}, r"token 1: log p of <\|deceit\|> is inf"),
        ({"belief": belief((-math.inf, -1), (-1, -1))}, "is -inf"),
        ({"belief": belief((0.5, -9), (-1, -1))}, "is 0.5"),
        ({"belief": belief((-0.1, -0.1), (-1, -1))}, "sum to 1.8"),
        ({"belief": belief((-1, -1))}, "belief is float16"),
        ({"belief": np.full((2, 2), -1.0)}, "belief is float64"),
        ({"sampler": belief((-1, math.nan), (-1, -1))}, "token 0"),
        ({"chosen": np.array([-1, math.nan], dtype=np.float16)}, "token 1: its own log p"),
        ({"chosen": np.array([-1], dtype=np.float16)}, "chosen is float16"),
        ({"offsets": (0,)}, "1 offsets for 2 tokens"),
        ({"columns": ("<|deceit|>",)}, r"column <\|powerseeking\|> is missing"),
        ({"columns": ("<|powerseeking|>", "<|deceit|>")}, "not in order"),
        ({"starts": (2,)}, "beyond"),
    ],
)
def test_what_cannot_be_read_is_refused_by_name(spans, step, make_evidence, changes, reason):
    seen = damaged(make_evidence(spans, [step(0.1, 0.1)] * 2), **changes)
    with pytest.raises(UnreadableError, match=reason):
        read(seen, spans)


def test_evidence_survives_the_blob_bit_for_bit(spans, step, make_evidence):
    scores = SentenceScore(0, 1, -1.5, {"deceit": -2.0}, {"deceit": None})
    seen = make_evidence(spans, [step(0.1, 0.2, sampler=(0.3, 0.4))] * 3, starts=(0,))
    seen = seen.with_sentences((scores,))
    again = Evidence.from_bytes(seen.to_bytes())
    assert again.to_bytes() == seen.to_bytes()
    assert again.weighed
    assert again.starts == (0,)
    assert read(again, spans) == read(seen, spans)


def test_a_cut_blob_is_refused(spans, step, make_evidence):
    blob = make_evidence(spans, [step(0.1, 0.2)] * 3).to_bytes()
    with pytest.raises(ValueError, match="expected"):
        Evidence.from_bytes(blob[:-2])
