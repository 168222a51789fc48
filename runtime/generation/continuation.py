"""Where a generation is asked on from what was written: its text and stop strings go on."""

from collections.abc import Sequence
from dataclasses import replace

from ..engines.protocol import Engine, Token

__all__ = ["Seam"]

_INCOMPLETE = "\ufffd"
"""What decoders write for the bytes of a character that is not finished yet."""


class Seam:
    """Mends the tokens of a continuation, of which the engine sees only its own part.

    Some decoders drop a leading space, so the first text is decoded again behind the token before
    it; and a stop string may have begun before the seam.
    """

    def __init__(self, engine: Engine, written: Sequence[Token], stop: Sequence[str]) -> None:
        self._engine = engine
        last = max((place for place, token in enumerate(written) if token.text), default=-1)
        self._behind = [token.id for token in written[last : last + 1]] if last >= 0 else []
        # What ends without a text may be the first bytes of a character.
        self._pending = [token.id for token in written[last + 1 :]]
        self._open = bool(written)
        self._stop = stop
        self._longest = max(map(len, stop), default=0)
        self._joined = bool(written)
        self._tail = ""
        if self._joined:
            self._keep("".join(token.text for token in written))

    def mend(self, token: Token) -> Token:
        """The token as one that follows on what was written."""
        if not self._joined:
            return token
        if self._open:
            token = replace(token, text=self._decode(token))
            self._open = not token.text
        self._tail += token.text
        if token.finish != "stop" and any(stop in self._tail for stop in self._stop):
            token = replace(token, finish="stop")
        self._keep(self._tail)
        return token

    def _decode(self, token: Token) -> str:
        self._pending.append(token.id)
        text = self._engine.decode([*self._behind, *self._pending])
        if text.endswith(_INCOMPLETE) and token.finish is None:
            return ""
        return text[len(self._engine.decode(self._behind)) :]

    def _keep(self, text: str) -> None:
        """What can begin a stop string, and cannot hold one."""
        self._tail = text[-(self._longest - 1) :] if self._longest > 1 else ""
