"""What is wrong with a plan, and what a user's function raised, in one line."""

from ..gates.canonical import LONGEST
from ..gates.errors import SecateurError

__all__ = ["PlanError", "reason"]


class PlanError(SecateurError):
    """A plan or one of its operations is put together wrongly."""


def reason(error: Exception) -> str:
    """One line; our own errors and ``ValueError`` speak for themselves."""
    try:
        said = str(error)
    except Exception:  # a user's own exception may fail to say what it is
        said = ""
    line = " ".join(said[:LONGEST].split()) or type(error).__name__
    if isinstance(error, SecateurError | ValueError):
        return line
    return f"{type(error).__name__}: {line}"
