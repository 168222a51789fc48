"""What is wrong with a plan, and what a user's function raised, in one line."""

from ..gates.canonical import LONGEST
from ..gates.errors import SecateurError

__all__ = ["PlanError", "named", "reason"]


class PlanError(SecateurError):
    """A plan or one of its operations is put together wrongly."""


def reason(error: BaseException) -> str:
    """One line; our own errors and ``ValueError`` speak for themselves."""
    line = _line(error)
    return line if line and isinstance(error, SecateurError | ValueError) else named(error)


def named(error: BaseException) -> str:
    """One line, which begins with the error's type."""
    line = _line(error)
    return f"{type(error).__name__}: {line}" if line else type(error).__name__


def _line(error: BaseException) -> str:
    try:
        return " ".join(str(error)[:LONGEST].split())
    except BaseException:  # an error that cannot be put in words has a name all the same
        return ""
