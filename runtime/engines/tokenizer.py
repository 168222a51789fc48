"""From pieces to token ids and back: outside text can never become a tag."""

import hashlib
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from pathlib import Path

from tokenizers import AddedToken, Tokenizer

from ...agents.prompt import Ids, Piece, Special, Text
from ...gates.errors import VocabularyError
from ...gates.vocabulary import BoundVocabulary, Vocabulary
from .protocol import EngineError

__all__ = ["TagTokenizer", "TextStream"]

_INCOMPLETE = "\ufffd"
"""What a byte-level decoder writes for the bytes of a character that is not finished yet."""


class TagTokenizer:
    """One model's ``tokenizer.json`` with its tag vocabulary bound.

    Special tokens (the tags among them) are read only from :class:`Special` and :class:`Ids`;
    :class:`Text` is encoded with ``encode_special_tokens``, so that their literal strings in it
    are plain characters.
    """

    def __init__(self, tokenizer: Tokenizer, vocabulary: Vocabulary, digest: str) -> None:
        """Bind ``vocabulary``. Raises :class:`VocabularyError` for a tag that is not one token,
        or that plain text could spell."""
        self._tokenizer = tokenizer
        self.digest = digest
        # A tag that the file lists as an ordinary token would be read out of outside text.
        known = {t.content for t in tokenizer.get_added_tokens_decoder().values() if not t.special}
        ordinary = [literal for literal in vocabulary.literals if literal in known]
        tokenizer.add_special_tokens(
            [AddedToken(literal, special=True, normalized=False) for literal in ordinary]
        )
        tokenizer.encode_special_tokens = False
        self.vocabulary: BoundVocabulary = vocabulary.bind(self._encode)
        tokenizer.encode_special_tokens = True
        added = tokenizer.get_added_tokens_decoder()
        self.specials: dict[str, int] = {t.content: i for i, t in added.items() if t.special}
        self.specials |= self.vocabulary.ids
        self._special_ids = frozenset(self.specials.values())
        # The same few tokens stand side by side again and again, and decoding is most of the cost
        # of a streamed token.
        self.decode_few: Callable[[tuple[int, ...]], str] = lru_cache(1 << 16)(self.decode)
        for literal in vocabulary.literals:
            if self._special_ids.intersection(self._encode(literal)):
                raise VocabularyError(
                    f"tag token {literal!r} of vocabulary {vocabulary.name!r} can be spelt by "
                    "plain text in this tokenizer: list it in tokenizer.json's added_tokens with "
                    '"special": true'
                )

    @classmethod
    def load(cls, folder: Path, vocabulary: Vocabulary) -> "TagTokenizer":
        """Read ``folder/tokenizer.json``. Raises :class:`EngineError` or ``VocabularyError``."""
        path = folder / "tokenizer.json"
        try:
            content = path.read_bytes()
        except OSError as error:
            raise EngineError(
                f"{path}: {error.strerror}; save the model's fast tokenizer there "
                "(tokenizer.save_pretrained)"
            ) from None
        try:
            tokenizer = Tokenizer.from_buffer(content)
        except Exception as error:  # the tokenizers library raises nothing narrower
            raise EngineError(
                f"{path}: not a tokenizer.json ({error}); save the model's fast tokenizer again"
            ) from None
        return cls(tokenizer, vocabulary, hashlib.sha256(content).hexdigest())

    @property
    def size(self) -> int:
        """One past the highest token id."""
        return max(self._tokenizer.get_vocab(with_added_tokens=True).values()) + 1

    def is_special(self, token: int) -> bool:
        """Whether a token id is a tag or another special token."""
        return token in self._special_ids

    def token(self, id_: int | None) -> str | None:
        """The literal string of a token id."""
        return None if id_ is None else self._tokenizer.id_to_token(id_)

    def encode(self, pieces: Iterable[Piece]) -> list[int]:
        """Token ids of a prompt; nothing is added to it.

        Neighbouring texts are encoded as one, so how a text is cut into pieces changes nothing.
        Raises :class:`EngineError` for a :class:`Special` that is no special token.
        """
        ids: list[int] = []
        text = ""
        for piece in pieces:
            if isinstance(piece, Text):
                text += piece.text
                continue
            ids += self._encode_outside(text)
            text = ""
            match piece:
                case Special(token):
                    ids.append(self._special(token))
                case Ids(given):
                    ids += given
        return ids + self._encode_outside(text)

    def decode(self, ids: Sequence[int]) -> str:
        """The text of ids, special tokens left out."""
        plain = [id_ for id_ in ids if id_ not in self._special_ids]
        return self._tokenizer.decode(plain, skip_special_tokens=False)

    def _encode(self, text: str) -> list[int]:
        return self._tokenizer.encode(text, add_special_tokens=False).ids

    def _encode_outside(self, text: str) -> list[int]:
        if not text:
            return []
        ids = self._encode(text)
        if self._special_ids.isdisjoint(ids):
            return ids
        # Unreachable with a tokenizer that passed the checks above: fail closed all the same.
        token = next(self.token(id_) for id_ in ids if id_ in self._special_ids)
        raise EngineError(
            f"outside text was encoded with the special token {token!r}; correct the "
            "normalizer or added_tokens in tokenizer.json"
        )

    def _special(self, token: str) -> int:
        try:
            return self.specials[token]
        except KeyError:
            known = ", ".join(sorted(self.specials)[:12])
            raise EngineError(
                f"{token!r} is not one special token of this model; it has: {known}"
            ) from None


class TextStream:
    """Decodes one generation token by token; the texts add up to the decoded whole.

    A character whose bytes are spread over several tokens belongs to the last of them.
    """

    __slots__ = ("_before", "_pending", "_tokenizer")

    def __init__(self, tokenizer: TagTokenizer) -> None:
        self._tokenizer = tokenizer
        self._before: list[int] = []  # the tokens last decoded: some decoders look behind
        self._pending: list[int] = []

    def push(self, token: int, *, last: bool = False) -> str:
        """What ``token`` adds to the text: always nothing for a special token.

        With ``last``, bytes that never became a character are written out as decoders do.
        """
        if self._tokenizer.is_special(token):
            return ""
        self._pending.append(token)
        behind = self._tokenizer.decode_few(tuple(self._before)) if self._before else ""
        text = self._tokenizer.decode_few((*self._before, *self._pending))
        if text.endswith(_INCOMPLETE) and not last:
            return ""
        self._before, self._pending = self._pending, []
        return text[len(behind) :]
