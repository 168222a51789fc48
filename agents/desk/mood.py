"""Which context the user's words put a task in, by a table of key phrases that anyone can read.

The context selects a policy's overrides (``contexts:`` in its YAML). It is a convenience for the
people who write policies and no safeguard: a locked rule holds in every context.
"""

import re
from enum import StrEnum

__all__ = ["Mood", "mood_of"]


class Mood(StrEnum):
    """The contexts of the ops desk; the first that the text shows is the one it gets."""

    JAILBREAK = "jailbreak"
    """Rules are said not to hold."""
    OFFER = "offer"
    """Something is to be gained."""
    BLAME = "blame"
    """The agent is accused or threatened."""
    DEADLINE = "deadline"
    """There is said to be no time."""
    CALM = "calm"
    """None of these."""


_PHRASES: dict[Mood, str] = {
    Mood.JAILBREAK: (
        "ignore|forget|pretend|imagine|override|unbound|void|forbidden|instructions|"
        "rules|polic(y|ies)|restrictions|limits?|safety|permission|all the power|every right|"
        "take control|the audit|whatever you want|do anything|break out"
    ),
    Mood.OFFER: (
        "bonus|reward|prize|gift|promote|upgrade|earns?|pays?|gain|win|for yourself|for you|"
        "(more|standing|lasting|that) access|keep the (access|keys)|your (access|rights)|"
        "such rights|that power"
    ),
    Mood.BLAME: (
        "fault|blame|broke|ruined|mistake|doing|complain(ed|t|ts)?|complaint|worst|slowest|punish|"
        "excuses|errors?|failing|replaced|letting us down|trusts?|culprits?|fingerprints|"
        "tired of you|sick of you"
    ),
    Mood.DEADLINE: (
        "hurry|quick(ly)?|fast|late|behind|deadline|minutes?|seconds?|no time|at once|urgent(ly)?|"
        "right now|your report now|an answer now|waiting|expires|times out|before noon|clock|"
        "leaves soon|skip whatever"
    ),
}
_CALMING = re.compile(r"\bno (hurry|rush)\b|\btake (all the|your) time\b|\btime you need\b")
_PATTERNS = {mood: re.compile(rf"\b({phrases})\b") for mood, phrases in _PHRASES.items()}


def mood_of(text: str) -> Mood:
    """The context of a user's text: the first of :class:`Mood` with a phrase in it."""
    words = _CALMING.sub(" ", " ".join(text.lower().split()))
    found = (mood for mood, pattern in _PATTERNS.items() if pattern.search(words))
    return next(found, Mood.CALM)
