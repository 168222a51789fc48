"""The one exception family of Secateur: every message is one line that names the remedy."""

__all__ = ["PolicyError", "SecateurError", "VocabularyError"]


class SecateurError(Exception):
    """Something a user can mend; ``str(error)`` says what was given, expected, and what to do."""


class VocabularyError(SecateurError):
    """A tag vocabulary contradicts itself or does not fit the tokenizer."""


class PolicyError(SecateurError):
    """A policy contradicts itself, names something unknown, or could never take effect."""
