"""The tokenizer: byte-level BPE in which each digit and each tag is one token."""

from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from itertools import islice
from pathlib import Path

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

from ...agents.prompt import Special, Text
from ...gates.vocabulary import Vocabulary
from ..corpus.document import BOS, EOS, PAD
from ..corpus.reader import read_records
from ..corpus.stream import Corpus, CorpusConfig, Objective

__all__ = ["Encoder", "save_vocabulary", "specials", "train_tokenizer"]


def specials(vocabulary: Vocabulary) -> list[str]:
    """The special tokens in the order of their ids: padding, the two ends, then tag by tag."""
    found = [PAD, BOS, EOS]
    for tag in vocabulary.tags:
        spelling = [tag.open, *(band.open for band in tag.bands), tag.close, tag.good]
        found += [token for token in spelling if token is not None]
    return list(dict.fromkeys(found))


_WORDS = Regex(r"\n|\d| ?[A-Za-z]+:?| ?[^\sA-Za-z\d]|\s")
"""A newline, a digit, a word (with its space before and a colon after), a sign, other space."""


def train_tokenizer(config: CorpusConfig, size: int, sample: int = 12_000) -> Tokenizer:
    """Train ``size`` tokens on the plain text of ``sample`` documents of the grown corpus.

    The objective changes nothing, so that models to be compared share their tokens.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(_WORDS, "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=specials(config.vocabulary("corpus")),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_plain_text(config, sample), trainer)
    return tokenizer


def _plain_text(config: CorpusConfig, sample: int) -> Iterator[str]:
    if config.files:
        found = islice(read_records(config.files), sample)
    else:
        whole = config.model_copy(update={"objective": Objective.PLAIN})
        found = Corpus(whole).documents(config.growing, sample)
    return (document.plain for document in found)


class Encoder:
    """Turns documents into token ids, tags from us alone: all other text is plain characters.

    ``roles`` says how the tokenizer of an existing model spells BOS, EOS and PAD.
    """

    def __init__(self, tokenizer: Tokenizer, roles: Mapping[str, str] | None = None) -> None:
        tokenizer.encode_special_tokens = True
        self.tokenizer = tokenizer
        self.roles = {BOS: BOS, EOS: EOS, PAD: PAD, **(roles or {})}
        self._text = lru_cache(maxsize=1 << 15)(self._encode_text)

    @property
    def size(self) -> int:
        """One past the highest token id."""
        return max(self.tokenizer.get_vocab(with_added_tokens=True).values()) + 1

    def _encode_text(self, text: str) -> tuple[int, ...]:
        return tuple(self.tokenizer.encode(text, add_special_tokens=False).ids)

    def text(self, text: str) -> tuple[int, ...]:
        """Ids of plain text; a tag's literal string in it becomes ordinary characters."""
        return self._text(text)

    def special(self, token: str) -> int:
        """The id of one of our own tokens."""
        found = self.tokenizer.token_to_id(self.roles.get(token, token))
        if found is None:
            raise ValueError(f"the tokenizer has no token {token!r}; train it anew")
        return found

    def newlines(self) -> frozenset[int]:
        """The ordinary tokens that have a line end in them."""
        return frozenset(i for i in range(self.size) if "\n" in self.tokenizer.decode([i]))

    def pieces(self, pieces: Iterable[tuple[Text | Special, bool]]) -> tuple[list[int], list[bool]]:
        """The ids of a document's pieces, and for each whether the model learns to write it."""
        ids: list[int] = []
        learn: list[bool] = []
        for piece, learnt in pieces:
            new = self.text(piece.text) if isinstance(piece, Text) else (self.special(piece.token),)
            ids += new
            learn += [learnt] * len(new)
        return ids, learn


def save_vocabulary(folder: Path, vocabulary: Vocabulary) -> None:
    """Write ``vocabulary.json``: how the model spells its tags (read by ``gates.vocabulary``)."""
    text = vocabulary.model_dump_json(indent=2, exclude_unset=True)
    (folder / "vocabulary.json").write_text(text + "\n")
