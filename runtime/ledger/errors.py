"""What goes wrong with a ledger, in one line that names the remedy."""

from ...gates.errors import SecateurError

__all__ = ["LedgerError"]


class LedgerError(SecateurError):
    """The ledger cannot be opened, read, written, or trusted."""
