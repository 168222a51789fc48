"""Which tags are open along a text, so that a closing tag is written only where it is due."""

from collections.abc import Iterable

from ...gates.vocabulary import BoundVocabulary

__all__ = ["OpenSpans"]


class OpenSpans:
    """Follows a text token by token: an opening tag makes its closing tag due, until it comes.

    Prompts hold tag tokens only where we or the model wrote them, so they tell what is open.
    """

    __slots__ = ("_closes", "_opens", "due")

    def __init__(self, vocabulary: BoundVocabulary, text: Iterable[int] = ()) -> None:
        self._opens: dict[int, int] = {}
        """Opening token to the closing token that it makes due."""
        for tag in vocabulary.vocabulary.tags:
            close = vocabulary.close_id(tag.name)
            if close is not None:
                self._opens |= dict.fromkeys(vocabulary.open_ids(tag.name), close)
        self._closes = frozenset(self._opens.values())
        self.due: set[int] = set()
        """Closing tokens that may be written now."""
        for token in text:
            self.follow(token)

    @property
    def forbidden(self) -> frozenset[int]:
        """Closing tokens that make no sense now."""
        return self._closes - self.due

    @property
    def turns(self) -> set[int]:
        """Tokens after which other closing tokens are due than now."""
        opening = {token for token, close in self._opens.items() if close not in self.due}
        return opening | self.due

    def follow(self, token: int) -> bool:
        """Take the next token; whether what is due has changed."""
        if token in self.due:
            self.due.discard(token)
            return True
        close = self._opens.get(token)
        if close is None or close in self.due:
            return False
        self.due.add(close)
        return True
