"""What can go wrong before and while a model is trained; every message names the remedy."""

from ..gates.errors import SecateurError

__all__ = ["CorpusError", "PretrainingError", "TrainingError"]


class CorpusError(SecateurError):
    """A corpus file that is missing, or a record in it that cannot be read."""


class PretrainingError(SecateurError):
    """A corpus, a training run or an evaluation that cannot start."""


class TrainingError(SecateurError):
    """A training run that cannot start or go on."""
