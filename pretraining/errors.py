"""What can go wrong before and while a model is trained; every message names the remedy."""

from ..gates.errors import SecateurError

__all__ = ["CorpusError", "TrainingError"]


class CorpusError(SecateurError):
    """A corpus file that is missing, or a record in it that cannot be read."""


class TrainingError(SecateurError):
    """A training run that cannot start or go on."""
