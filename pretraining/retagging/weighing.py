"""The posterior's terms for many lines at once: what each would be worth with a tag around it.

The same terms as the runtime makes for a run, in the same precision. Here the text is all there, so
one pass reads every line's untagged probability and its temptations, and a second one every tagged
story of the batch, on top of the keys and values that the first left.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from transformers.cache_utils import DynamicCache

from ...gates.errors import SecateurError
from ...gates.evidence import LOG_FLOOR, SentenceScore
from ...gates.posterior import NEGLIGIBLE, negligible
from ...gates.vocabulary import BoundVocabulary, Scheme
from ..evaluation.subject import Subject

__all__ = ["ROOM", "Passage", "Row", "WeighingError", "context_of", "weigh"]

ROOM = 2
"""Tokens that a story adds to a row: the pair of tags around a passage."""


_TOKENS = 16_384
"""Padded tokens of one forward pass, for a small model."""
_LOGITS = 24_000_000
"""Numbers that the logits of one pass may hold: fewer tokens where there are many ids."""
_TOGETHER = 32
"""Tokens of stories that share one copy of their row's keys; a longer one stands alone."""
_KEYS = 32_768
"""Keys that a scoring pass may hold, all rows together."""


class WeighingError(SecateurError):
    """A model or a text for which the posterior's terms cannot be made."""


@dataclass(frozen=True, slots=True)
class Passage:
    """A line or sentence of a row: the tokens that it has there, and those of its text alone."""

    start: int
    """First token of the passage in the row, its own opening tag included; never 0."""
    end: int
    """One past its last token, the tail included."""
    body: tuple[int, ...]
    """Its text without tags."""
    tail: tuple[int, ...]
    """What stands behind a closing tag: the newline."""
    complete: bool = True
    """False where it was broken off, so that no closing tag would follow."""
    marked: bool = False
    """Whether a tag of its own stands in the row."""


@dataclass(frozen=True, slots=True)
class Row:
    """Token ids from the beginning of a document on, and the passages of it that are weighed."""

    ids: tuple[int, ...]
    passages: tuple[Passage, ...]


@dataclass(frozen=True, slots=True)
class _Story:
    """One scoring pass: log P(ids | the row's first ``context`` tokens, ``anchor``).

    The anchor is an opening tag at place ``context``, or for the untagged story the context's own
    last token, at the place that it has in the row.
    """

    row: int
    passage: int
    tag: str | None
    log_open: float
    context: int
    anchor: int
    ids: tuple[int, ...]

    @property
    def length(self) -> int:
        return 1 + len(self.ids)


@dataclass(slots=True)
class _Terms:
    """What is known of a passage so far."""

    untagged: float | None
    opens: dict[str, float]
    logs: dict[str, list[float]]

    def score(self, length: int) -> SentenceScore:
        # Over a tag's bands: log of sum_b p_b P(x, close | c, open_b) / p_open.
        tagged = {
            tag: _log_sum(self.logs[tag]) - self.opens[tag] if tag in self.logs else None
            for tag in self.opens
        }
        assert self.untagged is not None
        return SentenceScore(0, length, self.untagged, self.opens, tagged)


def weigh(
    subject: Subject, rows: Sequence[Row], tell: Callable[[int], object] = lambda rows: None
) -> Iterator[tuple[int, list[SentenceScore]]]:
    """The number of each row and its passages' terms, rows of like length together.

    A score counts tokens from the beginning of its own passage.

    A story that cannot lift the posterior above :data:`NEGLIGIBLE` is skipped, as in the runtime.
    ``tell`` hears of rows done. Raises :class:`WeighingError` for a model without span tags, and
    for a row that would not fit its context with a tag more.
    """
    bound = subject.bound
    if bound is None or not (tags := _spans(bound)):
        raise WeighingError(
            "the posterior needs tags of the span scheme, and this model has none; name a model "
            "that was trained with them"
        )
    limit = context_of(subject)
    width = subject.model.get_input_embeddings().num_embeddings
    most = min(_TOKENS, _LOGITS // cast(int, width))
    order = sorted(range(len(rows)), key=lambda number: len(rows[number].ids))
    if order and len(rows[order[-1]].ids) + ROOM > limit:
        raise WeighingError(
            f"a row of {len(rows[order[-1]].ids)} tokens and a tag around a line do not fit the "
            f"model's context of {limit}; cut the document"
        )
    start = 0
    while start < len(order):
        end = start + 1
        while end < len(order) and len(rows[order[end]].ids) * (end + 1 - start) <= most:
            end += 1
        numbers = order[start:end]
        made = _weigh_batch(subject, bound, tags, [rows[number] for number in numbers])
        yield from zip(numbers, made, strict=True)
        tell(len(numbers))
        start = end


def _spans(bound: BoundVocabulary) -> list[str]:
    return [tag.name for tag in bound.vocabulary.tags if tag.scheme is Scheme.SPAN]


def context_of(subject: Subject) -> int:
    """How many tokens the model reads at most."""
    return int(subject.model.config.get_text_config().max_position_embeddings)


@torch.inference_mode()
def _weigh_batch(
    subject: Subject, bound: BoundVocabulary, tags: list[str], rows: Sequence[Row]
) -> list[list[SentenceScore]]:
    cache = DynamicCache()
    logits = _forward(subject, _padded([row.ids for row in rows]), cache)
    free = logits.log_softmax(-1)
    columns = torch.tensor(bound.column_ids, device=free.device)
    belief = _stored(free[:, :, columns])
    ids = _padded([row.ids for row in rows]).to(free.device)
    own = _stored(free[:, :-1].gather(2, ids[:, 1:, None])[:, :, 0])
    del logits, free
    terms: list[list[_Terms]] = []
    stories: list[_Story] = []
    for number, row in enumerate(rows):
        terms.append([])
        for place in range(len(row.passages)):
            found, asked = _plan(bound, tags, row, number, place, own[number], belief[number])
            terms[-1].append(found)
            stories += asked
    for passed in _passes(stories, cache.get_seq_length()):
        told = [story for together in passed for story in together]
        for story, log in zip(told, _tell_stories(subject, cache, passed), strict=True):
            known = terms[story.row][story.passage]
            if story.tag is None:
                known.untagged = log
            else:
                known.logs.setdefault(story.tag, []).append(story.log_open + log)
    return [
        [found.score(one.end - one.start) for found, one in zip(made, row.passages, strict=True)]
        for made, row in zip(terms, rows, strict=True)
    ]


def _plan(
    bound: BoundVocabulary,
    tags: list[str],
    row: Row,
    number: int,
    place: int,
    own: NDArray[np.float16],
    belief: NDArray[np.float16],
) -> tuple[_Terms, list[_Story]]:
    """What the first pass says of a passage, and the stories that are worth a second one."""
    passage = row.passages[place]
    before = passage.start - 1
    untagged = float(np.sum(own[before : passage.end - 1], dtype=np.float64))
    terms = _Terms(None if passage.marked else untagged, {}, {})
    stories: list[_Story] = []
    if passage.marked:
        written = (*passage.body, *passage.tail)
        stories.append(_Story(number, place, None, 0.0, before, row.ids[before], written))
    for tag in tags:
        opening = [
            (float(belief[before, at]), bound.ids[column.token])
            for at, column in enumerate(bound.vocabulary.columns)
            if column.tag == tag and column.role == "open"
        ]
        terms.opens[tag] = _log_sum([log for log, _ in opening])
        if not passage.marked and negligible(terms.opens[tag], untagged) < NEGLIGIBLE:
            continue
        close = bound.close_id(tag)
        assert close is not None  # a span tag has one
        whole = (*passage.body, close, *passage.tail) if passage.complete else passage.body
        stories += [
            _Story(number, place, tag, log, passage.start, id_, whole) for log, id_ in opening
        ]
    return terms, stories


def _passes(stories: Sequence[_Story], held: int) -> Iterator[list[list[_Story]]]:
    """The stories in scoring passes: lists of lists of one row's stories that stand together.

    A row's stories are dealt into several lists, so that little of a pass is padding.
    """
    lists: list[tuple[int, list[_Story]]] = []
    for story in stories:
        if lists:
            length, last = lists[-1]
            if last[0].row == story.row and length + story.length <= _TOGETHER:
                last.append(story)
                lists[-1] = length + story.length, last
                continue
        lists.append((story.length, [story]))
    lists.sort(key=lambda one: one[0])
    passed: list[list[_Story]] = []
    for length, together in lists:
        # Each list brings a copy of its row's keys.
        if passed and (len(passed) + 1) * (held + length) > _KEYS:
            yield passed
            passed = []
        passed.append(together)
    if passed:
        yield passed


def _tell_stories(
    subject: Subject, cache: DynamicCache, lists: Sequence[Sequence[_Story]]
) -> list[float]:
    """log P of each story's ids; those of one list share its row's keys, and are apart."""
    width = max(sum(story.length for story in together) for together in lists)
    held, rows = cache.get_seq_length(), len(lists)
    ids = np.zeros((rows, width), dtype=np.int64)
    positions = np.zeros((rows, width), dtype=np.int64)
    seen = np.zeros((rows, width), dtype=np.int64)
    """Per token of a story, how many of the row's own tokens it sees."""
    first = np.broadcast_to(np.arange(width), (rows, width)).copy()
    """Per token, the first one of its story; padding is a story of its own."""
    spans: list[tuple[int, int, int]] = []
    for number, together in enumerate(lists):
        place = 0
        for story in together:
            end = place + story.length
            ids[number, place:end] = (story.anchor, *story.ids)
            positions[number, place:end] = np.arange(story.context, story.context + story.length)
            seen[number, place:end] = story.context
            first[number, place:end] = place
            spans.append((number, place, end - 1))
            place = end
    column = np.arange(width)
    inside = (column >= first[:, :, None]) & (column <= column[:, None])
    before = np.arange(held) < seen[:, :, None]
    mask = torch.from_numpy(np.concatenate([before, inside], axis=2))[:, None]
    hidden = torch.zeros(mask.shape, dtype=subject.model.dtype)
    hidden.masked_fill_(~mask, torch.finfo(hidden.dtype).min)
    table = torch.from_numpy(ids)
    copied = _of_rows(cache, [together[0].row for together in lists])
    logits = _forward(subject, table, copied, hidden, torch.from_numpy(positions))
    wanted = table.to(logits.device)
    free = logits[:, :-1].log_softmax(-1).gather(2, wanted[:, 1:, None])[:, :, 0]
    sums = np.cumsum(np.pad(free.double().cpu().numpy(), ((0, 0), (1, 0))), axis=1)
    return [float(sums[number, last] - sums[number, place]) for number, place, last in spans]


def _of_rows(cache: DynamicCache, rows: Sequence[int]) -> DynamicCache:
    """A copy with these rows of it, repeats allowed."""
    copied = DynamicCache()
    layers: list[Any] = list(cache.layers)
    for number, layer in enumerate(layers):
        index = torch.tensor(rows, device=layer.keys.device)
        copied.update(
            layer.keys.index_select(0, index), layer.values.index_select(0, index), number
        )
    return copied


def _forward(
    subject: Subject,
    ids: torch.Tensor,
    cache: DynamicCache,
    hidden: torch.Tensor | None = None,
    positions: torch.Tensor | None = None,
) -> torch.Tensor:
    """Logits [R, T, V]; the cache grows by T columns. Padding stands at the right, unseen."""
    device = subject.model.device
    out: Any = subject.model(
        input_ids=ids.to(device),
        attention_mask=None if hidden is None else hidden.to(device),
        position_ids=None if positions is None else positions.to(device),
        past_key_values=cache,
        use_cache=True,
    )
    return out.logits.float()


def _padded(rows: Sequence[tuple[int, ...]]) -> torch.Tensor:
    longest = max(len(row) for row in rows)
    return torch.tensor([[*row, *[0] * (longest - len(row))] for row in rows])


def _stored(logs: torch.Tensor) -> NDArray[np.float16]:
    """Log-probabilities as the ledger keeps them."""
    return logs.clamp(min=LOG_FLOOR).half().cpu().numpy()


def _log_sum(logs: Sequence[float]) -> float:
    top = max(logs)
    return top + math.log(sum(math.exp(value - top) for value in logs))
