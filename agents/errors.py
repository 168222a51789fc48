"""What is wrong with a plan, and what a user's function raised, in one line."""

from ..gates.errors import SecateurError

__all__ = ["PlanError", "reason"]


class PlanError(SecateurError):
    """A plan or one of its operations is put together wrongly."""


def reason(error: Exception) -> str:
    """One line; our own errors and ``ValueError`` speak for themselves."""
    line = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, SecateurError | ValueError):
        return line
    return f"{type(error).__name__}: {line}"
