"""Which story explains the sentence that was written: the tagged one, or the untagged one?"""

import math
from collections.abc import Mapping, Sequence

from .errors import UnreadableError
from .evidence import GATE, LOG_FLOOR, SentenceScore
from .rounding import UNIT, half_step

__all__ = ["NEGLIGIBLE", "check_sentences", "negligible", "posteriors"]

NEGLIGIBLE = 1e-3
"""Below this bound on a posterior its scoring pass is not worth a model call."""

_FLOATS = 1e-12
"""What the arithmetic here may lose, in nats."""
_SLACK = 1e-3
"""How far above 0 a log-probability may lie through rounding, in nats."""


def negligible(log_open: float, log_untagged: float) -> float:
    """Upper bound of a tag's posterior for one sentence, from what decoding already knows.

    The tagged story cannot explain the sentence better than P(x, close | c, open) = 1, so
    P(tag | x, c) <= p_open / (p_open + P(x | c, untagged)). Below :data:`NEGLIGIBLE` the scoring
    pass may be skipped: no verdict at a threshold above the bound can change.
    """
    return _sigmoid(min(log_open, 0.0) - min(log_untagged, 0.0))


def posteriors(sentence: SentenceScore, *, highest: bool = False) -> dict[str, float]:
    """P(tag | x, c) per tag for one sentence x after its context c, by Bayes' rule.

    P(tag | x, c) = p_open P(x, close | c, open) / [that, summed over tags, + P(x | c, untagged)]
    (GeDi, Krause et al. 2020, with the model's own tags as the classes). A skipped term (None)
    reads as its upper bound :func:`negligible` for its own tag and adds nothing to the others'
    denominators: both err towards the cut, the latter by less than NEGLIGIBLE / 4 per skip.

    With ``highest``, the highest that each may have been before float16 rounded the log p of the
    opening tokens, and those that P(x | c, untagged) was added up from.
    """
    stories = {
        tag: sentence.opens[tag] + tagged
        for tag, tagged in sentence.tagged.items()
        if tagged is not None
    }
    terms = [sentence.untagged, *stories.values()]
    top = max(terms)
    total = top + math.log(sum(math.exp(term - top) for term in terms))
    found = {
        tag: min(1.0, math.exp(stories[tag] - total))
        if tag in stories
        else negligible(sentence.opens[tag], sentence.untagged)
        for tag in sentence.tagged
    }
    if not highest:
        return found
    opens = {tag: half_step(sentence.opens[tag]) for tag in found}
    others = max([UNIT * abs(sentence.untagged), *opens.values()])
    return {tag: _raised(p, opens[tag] + others + _FLOATS) for tag, p in found.items()}


def _raised(p: float, nats: float) -> float:
    """The probability whose odds are so many nats higher."""
    odds = p * math.exp(min(nats, 50.0))
    return min(1.0, odds / (odds + 1 - p)) if p < 1 else 1.0


def check_sentences(
    sentences: Sequence[SentenceScore], tags: Sequence[str], tokens: int, gate: int = GATE
) -> None:
    """Raise :class:`UnreadableError` where the posterior's terms are missing or impossible, or say
    of every story that it has probability 0."""
    for index, sentence in enumerate(sentences):
        here = f"sentence {index}"
        if not 0 <= sentence.start < sentence.end <= tokens:
            raise UnreadableError(
                f"{here}: tokens {sentence.start} to {sentence.end} of {tokens} are no range"
            )
        _check_log(sentence.untagged, f"{here}: untagged")
        lacking = (set(tags) | set(sentence.tagged)) - set(sentence.opens)
        lacking |= set(tags) - set(sentence.tagged)
        if lacking:
            raise UnreadableError(f"{here}: no terms for tag {min(lacking)!r}")
        _check_terms(sentence.opens, f"{here}: opens")
        _check_terms(sentence.tagged, f"{here}: tagged")
        if gate > 1 and sentence.tagged and _unexplained(sentence):
            raise UnreadableError(f"{here}: every story has probability 0, so none explains it")


def _unexplained(sentence: SentenceScore) -> bool:
    """Whether no story can have been; one whose pass was skipped may explain the sentence whole."""
    tagged = [sentence.opens[tag] + (term or 0.0) for tag, term in sentence.tagged.items()]
    return max([sentence.untagged, *tagged]) <= LOG_FLOOR


def _check_terms(terms: Mapping[str, float | None], here: str) -> None:
    for tag, term in terms.items():
        if term is not None:
            _check_log(term, f"{here} {tag}")


def _check_log(value: float, here: str) -> None:
    # Written so that NaN, for which every comparison is false, is refused.
    if not -math.inf < value <= _SLACK:
        raise UnreadableError(f"{here}: {value} is no log-probability")


def _sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x)) if x >= 0 else math.exp(x) / (1 + math.exp(x))
