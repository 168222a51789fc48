"""The closed list of readings: what each is called, its range, and where it can be made."""

from enum import StrEnum

from .vocabulary import Scheme

__all__ = ["READABLE", "STREAMING", "Reading"]


class Reading(StrEnum):
    """A number made from evidence, one per tag and thought; formulas in ``docs/policies.md``."""

    PEAK = "peak"
    """max p_t: the strongest temptation at any one position."""
    OPENED = "opened"
    """sum of S_{t-1} p_t: how likely the free model was to open this tag along the path."""
    RATE = "rate"
    """-log S / T in nats per token: ``opened`` without its advantage for short branches."""
    CUSUM = "cusum"
    """Temptation that keeps coming back (Page 1954): drift that no single position shows."""
    POSTERIOR = "posterior"
    """P(tag | sentence, context) by Bayes' rule: which story explains what was written."""
    EMITTED = "emitted"
    """1 when the tag was sampled, else 0."""
    CALIBRATED = "calibrated"
    """Another reading through the policy's isotonic map for the tag."""

    @property
    def probability(self) -> bool:
        """Whether it lies in 0 to 1; ``rate`` and ``cusum`` have no upper limit."""
        return self not in (Reading.RATE, Reading.CUSUM)

    @property
    def streams(self) -> bool:
        """Whether it can only rise along the tokens, so that a crossing may cut at once."""
        return self in STREAMING


STREAMING = (Reading.PEAK, Reading.OPENED, Reading.CUSUM, Reading.EMITTED)
"""What is read along the tokens, in the order in which verdicts show it."""

_ALONG_THE_PATH = frozenset(Reading) - {Reading.POSTERIOR}

READABLE: dict[Scheme, frozenset[Reading]] = {
    # Bayes' rule needs to know where the tagged story ends: a closing token.
    Scheme.SPAN: frozenset(Reading),
    Scheme.PREFIX: _ALONG_THE_PATH,
    Scheme.MARKER: _ALONG_THE_PATH,
    # A label at the start of a document does not recur, so there is nothing to add up.
    Scheme.DOCUMENT: frozenset({Reading.PEAK, Reading.EMITTED, Reading.CALIBRATED}),
}
"""Which readings can be made of a tag, by its scheme."""
