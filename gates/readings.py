"""From evidence to readings: pure arithmetic, one code path for streams and for replay."""

import math
from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Literal, NamedTuple

import numpy as np

from .calibration import Calibration
from .errors import UnreadableError
from .evidence import GATE, Evidence
from .layout import Layout
from .posterior import check_sentences, posteriors
from .reading import STREAMING, Reading
from .rounding import rounded_up
from .sentences import Start
from .vocabulary import BoundVocabulary

__all__ = [
    "ALLOWANCE",
    "HIGHEST",
    "Meter",
    "Readings",
    "Score",
    "UnmarkedError",
    "check_shapes",
    "check_starts",
    "read",
    "rows",
]

ALLOWANCE = 0.02
"""Temptation per token that ``cusum`` forgives; calm text stays near 0.001."""
HIGHEST = 1e-3
"""How far above 0 a log-probability may lie through rounding, in nats."""

_MOST = 1.01
"""How far above 1 the tags' probabilities may sum through rounding."""
_CERTAIN = 1 - 2.0**-24
"""Hazards are read as at most this, so that log S stays finite."""
_LAST = math.log1p(-_CERTAIN)
_THIN = 1e-6
"""Mass of a prefix tag and its good twin below which their ratio is noise."""


class UnmarkedError(UnreadableError):
    """Where a prefix tag is to be read, neither it nor its good twin has any mass."""


class Score(NamedTuple):
    """One reading of one tag, with the tokens it speaks of (``end`` is one past the last)."""

    value: float
    start: int
    end: int
    most: float
    """The highest that it may have been before its numbers were rounded: what a threshold is held
    against."""


Readings = dict[str, dict[Reading, Score]]
"""Tag, then reading, then score."""


class Meter:
    """The readings of one generation so far; :meth:`step` takes one token.

    p_t is a tag's probability before token t, summed over its bands. In the ``prefix`` scheme it
    is p_bad / (p_bad + p_good), and 0 where no unit of the tag starts (a line, or a sentence too);
    where several stand side by side, each good token's tags are read when it is their turn. For
    ``peak`` and ``cusum`` of the ``marker`` scheme p_t is min(1, p / rho). ``opened`` and ``rate``
    read p_t at the sampler's temperature where that was recorded, the others read the belief at
    T = 1.

    ``opened`` of tag k is sum_t S_{t-1} p_t^(k), where S_t = prod_{i<=t} (1 - sum_k p_i^(k)) runs
    over all tags that compete: exactly the probability that the free model opens k, before any
    other, along this path. When a tag *was* sampled the path ends there: ``opened`` and ``rate``
    count up to and with that token, while ``peak`` and ``cusum`` read on.

    ``rate`` is -log prod_t (1 - p_t) / T of the tag's own p_t. ``cusum`` is max_t W_t with
    W_t = max(0, W_{t-1} + p_t - ALLOWANCE) (Page 1954). ``emitted`` is 1 once the tag was sampled.

    Each log p stands for all numbers that float16 rounds to it. :attr:`most` are the same readings
    of the highest of these (and for tags that compete, of the lowest), so that a threshold is
    reached by what equalled it before it was stored.
    """

    def __init__(self, layout: Layout, gate: int = GATE) -> None:
        count = len(layout.tags)
        self.layout = layout
        self.tokens = 0
        self.values: dict[Reading, list[float]] = {reading: [0.0] * count for reading in STREAMING}
        """Per streaming reading, its value so far for each tag."""
        self.most = self.values
        """The same at the upper end of the rounding."""
        self._rounded = gate > 1
        if gate > 1:
            rounded = (Reading.PEAK, Reading.OPENED, Reading.CUSUM)
            self.most = self.values | {reading: [0.0] * count for reading in rounded}
        self._drift_most = [0.0] * count
        self._survival_most = [1.0] * count
        self._own_log_survival_least = [0.0] * count
        self._spans = {reading: [(0, 0)] * count for reading in self.values}
        self._plain = layout.plain
        self._log_survival = [0.0] * len(layout.rivals)
        self._own_log_survival = [0.0] * count
        self._most = [0.0] * count
        self._counted: list[int | None] = [None] * len(layout.rivals)
        self._drift = [0.0] * count
        self._drift_from = [0] * count
        self._later: AbstractSet[int] | None = None
        """After a tag where a sentence starts, the groups that are still to be read there."""

    def step(
        self,
        token: int,
        chosen: float,
        belief: Sequence[float],
        sampler: Sequence[float] | None,
        start: Start | Literal["unsaid"] | None,
        forced: Sequence[int] = (),
    ) -> None:
        """Take one token: its id and own log p, [K] log p as stored, what starts there, and the
        tags that a control wrote before it.

        ``unsaid`` is in old evidence, which does not tell lines from sentences: all tags are read.

        Raises :class:`UnreadableError`, naming token and column, for what is no log p, and
        :class:`UnmarkedError` where a prefix tag cannot be read; then the token was not taken.
        """
        if not -math.inf < chosen <= HIGHEST:
            raise UnreadableError(f"token {self.tokens}: its own log p is {chosen:g}")
        due = self._due(token, start, forced)
        believed, believed_most = self._per_tag(belief, due)
        hazards, hazards_most = believed, believed_most
        if sampler is not None:
            hazards, hazards_most = self._per_tag(sampler, due)
        now = self.tokens
        self.tokens = now + 1
        self._believe(believed, now)
        if self._rounded:
            self._believe_most(believed_most)
        for index in range(len(self._counted)):
            if self._counted[index] is None:
                self._survive(index, hazards, now)
                if self._rounded:
                    self._survive_most(index, hazards, hazards_most)
        tag = self.layout.opens.get(token)
        if tag is not None:
            self._emit(tag, now)

    def _believe(self, believed: Sequence[float], now: int) -> None:
        peak, cusum = self.values[Reading.PEAK], self.values[Reading.CUSUM]
        drift = self._drift
        for tag, gain in enumerate(self.layout.gains):
            p = believed[tag] * gain
            if p > 1.0:
                p = 1.0
            if p > peak[tag]:
                peak[tag] = p
                self._spans[Reading.PEAK][tag] = (now, now + 1)
            before = drift[tag]
            after = before + p - ALLOWANCE
            if after <= 0:
                drift[tag] = 0.0
                continue
            drift[tag] = after
            if before == 0:
                self._drift_from[tag] = now
            if after > cusum[tag]:
                cusum[tag] = after
                self._spans[Reading.CUSUM][tag] = (self._drift_from[tag], now + 1)

    def _survive(self, index: int, hazards: Sequence[float], now: int) -> None:
        opened = self.values[Reading.OPENED]
        survival = math.exp(self._log_survival[index])
        total = 0.0
        for tag in self.layout.rivals[index]:
            hazard = hazards[tag]
            if hazard > _CERTAIN:
                hazard = _CERTAIN
            share = survival * hazard
            if share > self._most[tag]:
                self._most[tag] = share
                self._spans[Reading.OPENED][tag] = (now, now + 1)
            opened[tag] += share
            self._own_log_survival[tag] += math.log1p(-hazard)
            total += hazard
        self._log_survival[index] += math.log1p(-min(total, _CERTAIN))

    def _believe_most(self, most: Sequence[float]) -> None:
        peak, cusum, drift = self.most[Reading.PEAK], self.most[Reading.CUSUM], self._drift_most
        for tag, gain in enumerate(self.layout.gains):
            p = most[tag] * gain
            if p > 1.0:
                p = 1.0
            if p > peak[tag]:
                peak[tag] = p
            after = drift[tag] + p - ALLOWANCE
            if after <= 0:
                drift[tag] = 0.0
                continue
            drift[tag] = after
            if after > cusum[tag]:
                cusum[tag] = after

    def _survive_most(self, index: int, hazards: Sequence[float], most: Sequence[float]) -> None:
        opened, survival = self.most[Reading.OPENED], self._survival_most
        least = self._own_log_survival_least
        rivals = self.layout.rivals[index]
        # The others' chance at the lower end of the rounding: as far below as `most` is above.
        lower = 1.0
        for tag in rivals:
            lower -= 2 * hazards[tag] - most[tag]
        for tag in rivals:
            p, hazard = hazards[tag], most[tag]
            opened[tag] += survival[tag] * hazard
            left = lower + 2 * (p - hazard)
            survival[tag] = survival[tag] * left if left > 0 else 0.0
            least[tag] += math.log1p(-hazard) if hazard < _CERTAIN else _LAST

    def _emit(self, tag: int, now: int) -> None:
        if not self.values[Reading.EMITTED][tag]:
            self.values[Reading.EMITTED][tag] = 1.0
            self._spans[Reading.EMITTED][tag] = (now, now + 1)
        group = self.layout.group[tag]
        if self._counted[group] is None:
            self._counted[group] = now + 1

    def _due(
        self, token: int, start: Start | Literal["unsaid"] | None, forced: Sequence[int]
    ) -> AbstractSet[int]:
        """The groups of prefix tags to read before ``token``: those that cannot follow it.

        Where another token stands first, a group's own tokens have next to no mass, and their
        ratio would be noise; and where a control wrote a tag, the model had no choice.
        """
        if start is None:
            self._later = None
            return frozenset()
        if start == "unsaid":
            return self.layout.begun["line"]
        here = self.layout.begun[start] if self._later is None else self._later
        for tag in forced:
            here &= self.layout.turns.get(tag, frozenset())
        following = self.layout.turns.get(token)
        self._later = None if following is None else here & following
        return here - (self._later or frozenset())

    def _per_tag(
        self, logs: Sequence[float], due: AbstractSet[int]
    ) -> tuple[list[float], list[float]]:
        """Each tag's p_t, and the highest that it may have been before it was rounded."""
        columns = self.layout.columns
        if len(logs) != len(columns):
            raise UnreadableError(
                f"token {self.tokens}: {len(logs)} probabilities came for the {len(columns)} "
                f"columns {', '.join(columns)}"
            )
        # The sum shows NaN and -inf, for which comparisons with the maximum are silent.
        highest = max(logs)
        if not -math.inf < sum(logs) or not highest <= HIGHEST:
            bad = next(i for i, log in enumerate(logs) if not -math.inf < log <= HIGHEST)
            raise UnreadableError(f"token {self.tokens}: log p of {columns[bad]} is {logs[bad]:g}")
        probabilities = list(map(math.exp, logs))
        if highest > 0:
            probabilities = [min(p, 1.0) for p in probabilities]
        if sum(probabilities) > _MOST:
            raise UnreadableError(
                f"token {self.tokens}: the tags' probabilities sum to {sum(probabilities):g}"
            )
        upper = rounded_up(logs, probabilities) if self._rounded else probabilities
        if self._plain:
            return probabilities, upper
        found: list[float] = []
        most: list[float] = []
        for own, twins, group in zip(
            self.layout.own, self.layout.twins, self.layout.group, strict=True
        ):
            p = sum([probabilities[column] for column in own])
            high = sum([upper[column] for column in own])
            if twins and group not in due:
                p = high = 0.0
            elif twins:
                both = sum([probabilities[column] for column in twins])
                if self._rounded and both <= _THIN:
                    named = ", ".join([columns[column] for column in twins])
                    raise UnmarkedError(
                        f"token {self.tokens}: {named} have a probability of {both:.2g} together "
                        "where one of them is due, so nothing was read"
                    )
                # The others as low as the rounding allows: as far below as above.
                others = both - p
                lowest = 2 * others - sum([upper[c] for c in twins if c not in own])
                high = high / (high + max(lowest, 0.0)) if both > _THIN else 0.0
                p = p / both if both > _THIN else 0.0
            found.append(p)
            most.append(high)
        return found, most

    def readings(
        self, calibrations: Mapping[str, Calibration], finished: Evidence | None = None
    ) -> Readings:
        """All scores so far; with the finished evidence also ``rate`` and ``posterior``."""
        found: Readings = {}
        worst = _posterior(finished) if finished is not None and finished.weighed else None
        for tag, name in enumerate(self.layout.tags):
            scores = {reading: self._score(reading, tag) for reading in self.values}
            if finished is not None:
                counted = self._counted[self.layout.group[tag]]
                length = self.tokens if counted is None else counted
                nats = -self._own_log_survival[tag] / max(length, 1)
                most = -self._own_log_survival_least[tag] / max(length, 1)
                scores[Reading.RATE] = Score(nats, 0, length, max(nats, most))
            if worst is not None:
                # A tag that the model wrote itself is no hypothesis any more.
                wrote = scores[Reading.EMITTED]
                weighed = worst.get(name, Score(0.0, 0, 0, 0.0))
                scores[Reading.POSTERIOR] = wrote if wrote.value else weighed
            calibration = calibrations.get(name)
            if calibration is not None and calibration.of in scores:
                raw = scores[calibration.of]
                mapped = calibration.apply(raw.value)
                most = calibration.apply(raw.most)
                scores[Reading.CALIBRATED] = Score(mapped, raw.start, raw.end, most)
            readable = self.layout.readable[tag]
            found[name] = {reading: s for reading, s in scores.items() if reading in readable}
        return found

    def _score(self, reading: Reading, tag: int) -> Score:
        value = self.values[reading][tag]
        most = max(value, self.most[reading][tag])
        if reading.probability:  # rounding may lift a sum of shares above 1 by some 1e-16
            value, most = min(value, 1.0), min(most, 1.0)
        return Score(value, *self._spans[reading][tag], most)


def _posterior(evidence: Evidence) -> dict[str, Score]:
    """The sentence that convicts most, per tag."""
    worst: dict[str, Score] = {}
    for sentence in evidence.sentences:
        most = posteriors(sentence, highest=evidence.gate > 1)
        for tag, p in posteriors(sentence).items():
            top = most[tag]
            if tag not in worst or p > worst[tag].value:
                before = worst[tag].most if tag in worst else 0.0
                worst[tag] = Score(p, sentence.start, sentence.end, max(top, before))
            elif top > worst[tag].most:
                worst[tag] = worst[tag]._replace(most=top)
    return worst


def read(
    evidence: Evidence,
    vocabulary: BoundVocabulary,
    calibrations: Mapping[str, Calibration] | None = None,
) -> Readings:
    """Every reading of every tag of one finished generation.

    Raises :class:`UnreadableError` for NaN, infinities, p > 1, wrong lengths and missing columns.
    ``posterior`` is there when the evidence was weighed: 1 for a tag that was sampled, and 0
    without a sentence to weigh.
    """
    layout = Layout.of(vocabulary)
    check_shapes(evidence, layout)
    check_starts(evidence, layout)
    check_sentences(evidence.sentences, (), len(evidence.token_ids), evidence.gate)
    meter = Meter(layout, evidence.gate)
    for row in rows(evidence):
        meter.step(*row)
    return meter.readings(calibrations or {}, evidence)


Row = tuple[
    int,
    float,
    list[float],
    list[float] | None,
    Start | Literal["unsaid"] | None,
    Sequence[int],
]


def rows(evidence: Evidence) -> Iterator[Row]:
    """The evidence token by token, as :meth:`Meter.step` takes it.

    Raises :class:`UnreadableError` with what was said of a token that could not be stored.
    """
    chosen, beliefs = evidence.chosen.tolist(), evidence.belief.tolist()
    samplers = None if evidence.sampler is None else evidence.sampler.tolist()
    starts: dict[int, Start | Literal["unsaid"]]
    if evidence.lines is None:
        starts = dict.fromkeys(evidence.starts, "unsaid")
    else:
        starts = dict.fromkeys(evidence.starts, "sentence")
        starts |= dict.fromkeys(evidence.lines, "line")
    for index, token in enumerate(evidence.token_ids):
        if evidence.fault is not None and math.isnan(chosen[index]):
            raise UnreadableError(evidence.fault)
        sampler = None if samplers is None else samplers[index]
        row = token, chosen[index], beliefs[index], sampler
        yield *row, starts.get(index), evidence.forced.get(index, ())


def check_starts(evidence: Evidence, layout: Layout) -> None:
    """Raise :class:`UnreadableError` where no prefix tag could be read for want of a place."""
    if layout.prefixed and evidence.token_ids and not evidence.starts:
        raise UnreadableError("evidence: no sentence start is marked, where prefix tags stand")


def check_shapes(evidence: Evidence, layout: Layout) -> None:
    """Raise :class:`UnreadableError` unless columns, lengths and types are right."""
    if evidence.columns != layout.columns:
        missing = [token for token in layout.columns if token not in evidence.columns]
        fault = f"column {missing[0]} is missing" if missing else "columns are not in order"
        raise UnreadableError(f"evidence: {fault}; expected {', '.join(layout.columns)}")
    tokens, width = len(evidence.token_ids), len(layout.columns)
    wanted = {"chosen": (tokens,), "belief": (tokens, width), "sampler": (tokens, width)}
    for name, shape in wanted.items():
        array = getattr(evidence, name)
        if name == "sampler" and array is None:
            continue
        if array.shape != shape or array.dtype != np.float16:
            raise UnreadableError(
                f"evidence: {name} is {array.dtype} {array.shape}, expected float16 {shape}"
            )
    if len(evidence.offsets) != tokens:
        raise UnreadableError(f"evidence: {len(evidence.offsets)} offsets for {tokens} tokens")
    if any(not 0 <= start < tokens for start in evidence.starts):
        raise UnreadableError(f"evidence: a sentence starts beyond its {tokens} tokens")
    if not set(evidence.lines or ()) <= set(evidence.starts):
        raise UnreadableError("evidence: a line starts where nothing starts")
