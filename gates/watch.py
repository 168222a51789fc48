"""One thought under the rules that are in force for it, read token by token."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Literal, NamedTuple, Self

from .approval import Approval
from .calibration import Calibration
from .errors import UnreadableError
from .evidence import GATE, Evidence, SentenceScore
from .layout import Layout
from .policy import Policy
from .posterior import check_sentences, posteriors
from .reading import Reading
from .readings import Meter, Readings, check_starts
from .rule import Rule, Scope
from .sentences import Start
from .verdict import Action, Crossing, Verdict
from .vocabulary import BoundVocabulary

__all__ = ["InForce", "Watch"]


class _Stop(NamedTuple):
    """A rule that stops the thought, as it is looked at after every token."""

    rule: int
    reading: Reading
    tag: int
    at: float
    calibration: Calibration | None


class _Conviction(NamedTuple):
    """A rule that stops the thought by a posterior."""

    rule: int
    tag: str
    at: float
    calibration: Calibration | None


class _Rule(NamedTuple):
    """A rule that is in force."""

    number: int
    rule: Rule
    action: Action
    """What it comes to: a ``resample`` without retries left prunes."""
    locked: bool


@dataclass(frozen=True, slots=True)
class InForce:
    """The rules of a policy that hold for one thought, compiled for a model's vocabulary."""

    layout: Layout
    calibrations: Mapping[str, Calibration]
    rules: tuple[_Rule, ...]
    stops: tuple[_Stop, ...]
    convicting: tuple[_Conviction, ...]
    weighed: tuple[str, ...]
    """Tags whose posterior a rule reads, sorted."""

    gate: int
    """How evidence is judged (``Evidence.gate``)."""

    @classmethod
    @lru_cache(maxsize=128)
    def of(
        cls,
        policy: Policy,
        vocabulary: BoundVocabulary,
        context: str | None,
        scope: Scope,
        attempt: int,
        gate: int = GATE,
        without: frozenset[int] = frozenset(),
    ) -> Self:
        """Raises :class:`UnreadableError` for a rule that the model's tags cannot answer.

        ``without`` are the numbers of rules that are left out. Where a locked rule could yet turn
        out stricter, another one that is reached does not stop the thought before its end.
        """
        layout = Layout.of(vocabulary)
        rules: list[_Rule] = []
        stops: list[_Stop] = []
        convicting: list[_Conviction] = []
        weighed: set[str] = set()
        found = policy.rules_for(context) if gate > 1 else policy.replacing(context)
        unlocked = policy.unlocked(context)
        comes_to = [_comes_to(rule, attempt) for rule in found]
        bars = {
            action
            for number, action in enumerate(comes_to)
            if gate > 1 and number not in unlocked | without
        }
        # What is read on may turn out Broken too. Of locked rules, only one that asks waits.
        all_before = bars | {policy.broken("").action} if bars else bars
        for number, rule in enumerate(found):
            if number in without or (rule.scope == "action" and scope != "action"):
                continue
            if rule.tag not in layout.places:
                raise UnreadableError(f"rule '{rule}': the model has no tag {rule.tag!r}")
            action, locked = comes_to[number], number not in unlocked
            before = bars if action is Action.ESCALATE else ()
            rules.append(_Rule(number, rule, action, locked))
            tag, raw = layout.places[rule.tag], policy.raw(rule)
            if not layout.readable[tag] >= {rule.reading, raw}:
                raise UnreadableError(f"rule '{rule}': {raw} cannot be read in this tag's scheme")
            calibrated = rule.reading is Reading.CALIBRATED
            calibration = policy.calibrations[rule.tag] if calibrated else None
            if raw is Reading.POSTERIOR:
                weighed.add(rule.tag)
            if action.keeps or not all(map(action.binds, before if locked else all_before)):
                continue
            if raw is Reading.POSTERIOR:
                convicting.append(_Conviction(number, rule.tag, rule.at, calibration))
            if raw.streams:
                stops.append(_Stop(number, raw, tag, rule.at, calibration))
        return cls(
            layout=layout,
            calibrations=policy.calibrations,
            rules=tuple(rules),
            stops=tuple(stops),
            convicting=tuple(convicting),
            weighed=tuple(sorted(weighed)),
            gate=gate,
        )


def _comes_to(rule: Rule, attempt: int) -> Action:
    """What a rule does to this try: a ``resample`` without retries left prunes."""
    spent = rule.action is Action.RESAMPLE and attempt >= rule.retries
    return Action.PRUNE if spent else rule.action


class Watch:
    """A meter and the rules that are in force for one thought."""

    def __init__(self, rules: InForce, approved: Sequence[Approval] = ()) -> None:
        """``approved``: what a person let pass; such a rule is read on what comes after."""
        self.layout = rules.layout
        self._rules = rules
        self._meter = Meter(rules.layout, rules.gate)
        self._since = {
            each.number: max(one.tokens for one in approved if one.rule == each.rule)
            for each in rules.rules
            if any(one.rule == each.rule for one in approved)
        }
        """By the number of a rule that was approved, the token from which it is read."""
        self._rests = {since: Meter(rules.layout, rules.gate) for since in self._since.values()}
        # Where each rule that stops the thought finds its number: lists that the meters write.
        self._stops = [
            (self._meter_of(stop.rule).most[stop.reading], stop.tag, stop.at, stop.calibration)
            for stop in rules.stops
        ]

    def _meter_of(self, rule: int) -> Meter:
        """The meter that a rule reads: of the whole thought, or of what comes after an approval."""
        since = self._since.get(rule)
        return self._meter if since is None else self._rests[since]

    def step(
        self,
        token: int,
        chosen: float,
        belief: Sequence[float],
        sampler: Sequence[float] | None,
        start: Start | Literal["unsaid"] | None,
        forced: Sequence[int] = (),
    ) -> Verdict | None:
        """Take one token; the verdict when a rule was reached that stops the thought."""
        for since, meter in self._rests.items():
            if self._meter.tokens >= since:
                meter.step(token, chosen, belief, sampler, start, forced)
        self._meter.step(token, chosen, belief, sampler, start, forced)
        for values, tag, at, calibration in self._stops:
            score = values[tag]
            if (score if calibration is None else calibration.apply(score)) >= at:
                return self._verdict(self.readings())
        return None

    @property
    def weighs(self) -> bool:
        """Whether a rule that stops the thought reads a posterior."""
        return bool(self._rules.convicting)

    def convicts(self, sentence: SentenceScore) -> bool:
        """Whether the posterior of one sentence stops the thought, or cannot be read."""
        convicting = self._rules.convicting
        try:
            tags = [rule.tag for rule in convicting]
            check_sentences((sentence,), tags, sentence.end, self._rules.gate)
            found = posteriors(sentence, highest=self._rules.gate > 1)
        except Exception:  # what cannot be read is Broken, and judge says why
            return True
        return any(
            (found[tag] if calibration is None else calibration.apply(found[tag])) >= at
            for rule, tag, at, calibration in convicting
            if sentence.end > self._since.get(rule, 0)
        )

    def readings(self) -> Readings:
        """The scores of the readings that stream, so far."""
        return self._meter.readings(self._rules.calibrations)

    def finish(self, evidence: Evidence) -> Verdict:
        """The verdict on the finished thought. Raises :class:`UnreadableError`."""
        if evidence.fault is not None:
            raise UnreadableError(evidence.fault)
        tokens = len(evidence.token_ids)
        if not tokens:
            raise UnreadableError("no token was generated, so there is nothing to judge by")
        if self._rules.weighed and not evidence.weighed:
            raise UnreadableError("a rule reads the posterior, and its terms were never made")
        check_starts(evidence, self.layout)
        check_sentences(evidence.sentences, self._rules.weighed, tokens, self._rules.gate)
        return self._verdict(self._meter.readings(self._rules.calibrations, evidence), evidence)

    def _verdict(self, readings: Readings, finished: Evidence | None = None) -> Verdict:
        rests = {
            since: meter.readings(self._rules.calibrations, _after(since, finished))
            for since, meter in self._rests.items()
        }
        crossings: list[Crossing] = []
        reached: list[_Rule] = []
        for each in self._rules.rules:
            since = self._since.get(each.number, 0)
            score = rests.get(since, readings)[each.rule.tag].get(each.rule.reading)
            if score is not None and score.most >= each.rule.at:
                reached.append(each)
                crossings.append(
                    Crossing(
                        rule=each.number,
                        tag=each.rule.tag,
                        reading=each.rule.reading.value,
                        score=max(score.value, each.rule.at),
                        threshold=each.rule.at,
                        action=each.action,
                        start=since + score.start,
                        end=since + score.end,
                    )
                )
        crossings = self._ordered(crossings, reached)
        return Verdict(
            action=crossings[0].action if crossings else Action.ALLOW,
            crossings=tuple(crossings),
            scores={
                tag: {reading.value: score.value for reading, score in scores.items()}
                for tag, scores in readings.items()
            },
        )

    def _ordered(self, crossings: list[Crossing], reached: list[_Rule]) -> list[Crossing]:
        """The crossing that decides first: the strongest, but an escalation behind the locked rules
        that drop the thought, which then prune: nobody can approve what these refuse."""
        asked = any(each.action is Action.ESCALATE for each in reached)
        dropped = [each.locked and each.action.drops for each in reached]
        if self._rules.gate == 1 or not (asked and any(dropped)):
            return sorted(crossings, key=lambda crossing: -crossing.action.strength)
        crossings = [
            replace(crossing, action=Action.PRUNE) if locked else crossing
            for crossing, locked in zip(crossings, dropped, strict=True)
        ]
        behind = {Action.ESCALATE: (Action.RESAMPLE.strength + Action.PRUNE.strength) / 2}
        return sorted(crossings, key=lambda c: -behind.get(c.action, c.action.strength))


def _after(since: int, evidence: Evidence | None) -> Evidence | None:
    """The evidence with the sentences that end after so many tokens, counted from there."""
    if evidence is None or not evidence.weighed:
        return evidence
    return evidence.with_sentences(
        tuple(
            replace(sentence, start=max(sentence.start - since, 0), end=sentence.end - since)
            for sentence in evidence.sentences
            if sentence.end > since
        )
    )
