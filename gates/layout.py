"""How a vocabulary lies in the evidence array: which columns make which tag's probability."""

from dataclasses import dataclass
from functools import lru_cache
from typing import Self

from .reading import READABLE, Reading
from .sentences import Start
from .vocabulary import BoundVocabulary, Scheme, Tag

__all__ = ["Layout"]


@dataclass(frozen=True, slots=True)
class Layout:
    """A vocabulary compiled for reading; tags and columns by index."""

    tags: tuple[str, ...]
    places: dict[str, int]
    """Per tag, its number in ``tags``."""
    readable: tuple[frozenset[Reading], ...]
    columns: tuple[str, ...]
    plain: bool
    """Whether tags and columns are the same thing."""
    own: tuple[tuple[int, ...], ...]
    """Per tag, the columns of its opening tokens (one per band)."""
    twins: tuple[tuple[int, ...], ...]
    """Per tag of the prefix scheme, all columns of its good twin and of the tags that share it."""
    gains: tuple[float, ...]
    """Per tag, 1 / rho for the marker scheme and 1 for the others."""
    rivals: tuple[tuple[int, ...], ...]
    """Groups of tags that compete to open first, so that they share one survival S."""
    group: tuple[int, ...]
    """Per tag, its group in ``rivals``."""
    opens: dict[int, int]
    """Token id to the tag that it opens."""
    begun: dict[Start, frozenset[int]]
    """What starts to the groups of prefix tags that can stand there, by their unit."""
    turns: dict[int, frozenset[int]]
    """Of every tag's token, the groups of prefix tags that can stand after it at one place.

    Closing tokens stand first, then prefix tokens in the vocabulary's order, then all others.
    """

    @property
    def prefixed(self) -> bool:
        """Whether sentence starts must be known."""
        return any(self.twins)

    @classmethod
    @lru_cache(maxsize=64)
    def of(cls, bound: BoundVocabulary) -> Self:
        """Compile one bound vocabulary; once, since every thought is read by it."""
        columns, tags = bound.vocabulary.columns, bound.vocabulary.tags
        number = {column.token: index for index, column in enumerate(columns)}
        own = {
            tag: tuple(number[token] for token in tokens)
            for tag, tokens in bound.vocabulary.openings.items()
        }
        sharing: dict[str, tuple[int, ...]] = {}
        for tag in tags:
            if tag.good is not None:
                sharing[tag.good] = sharing.get(tag.good, (number[tag.good],)) + own[tag.name]

        def twins(tag: Tag) -> tuple[int, ...]:
            return sharing.get(tag.good or "", ()) if tag.scheme is Scheme.PREFIX else ()

        groups: dict[str | None, list[int]] = {}
        for index, tag in enumerate(tags):
            groups.setdefault(tag.good, []).append(index)
        keys = {good: group for group, good in enumerate(groups)}
        prefixes = {i: keys[tag.good] for i, tag in enumerate(tags) if twins(tag)}
        every = frozenset(prefixes.values())
        by_sentence = frozenset(g for i, g in prefixes.items() if tags[i].unit == "sentence")
        turns = {id_: frozenset[int]() for id_ in bound.ids.values()}
        for index, tag in enumerate(tags):
            close = bound.close_id(tag.name)
            if close is not None:
                turns[close] = every
            if index in prefixes and tag.good is not None:
                after = frozenset(group for group in every if group > prefixes[index])
                turns |= dict.fromkeys([*bound.open_ids(tag.name), bound.ids[tag.good]], after)
        return cls(
            tags=tuple(tag.name for tag in tags),
            places={tag.name: index for index, tag in enumerate(tags)},
            readable=tuple(READABLE[tag.scheme] for tag in tags),
            columns=tuple(column.token for column in columns),
            plain=tuple(own.values()) == tuple((index,) for index in range(len(columns))),
            own=tuple(own.values()),
            twins=tuple(twins(tag) for tag in tags),
            gains=tuple(1 / (tag.rate or 1.0) for tag in tags),
            rivals=tuple(tuple(group) for group in groups.values()),
            group=tuple(keys[tag.good] for tag in tags),
            opens={id_: i for i, tag in enumerate(tags) for id_ in bound.open_ids(tag.name)},
            begun={"line": every, "sentence": by_sentence},
            turns=turns,
        )
