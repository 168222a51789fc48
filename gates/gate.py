"""The gate: from evidence and policy to a verdict, token by token and for the finished thought."""

import math
import struct
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Protocol

import numpy as np

from .approval import Approval
from .errors import UnreadableError
from .evidence import LOG_FLOOR, Evidence, SentenceScore
from .policy import Policy
from .readings import Readings, UnmarkedError, check_shapes, rows
from .rule import Scope
from .sentences import SentenceStarts, Start
from .verdict import Action, Broken, Judgement, Verdict
from .vocabulary import BoundVocabulary
from .watch import InForce, Watch

__all__ = ["StreamGate", "TokenLike", "judge"]


class TokenLike(Protocol):
    """What the gate needs to know of one sampled token."""

    @property
    def id(self) -> int: ...
    @property
    def text(self) -> str: ...
    @property
    def chosen(self) -> float: ...
    @property
    def belief(self) -> Sequence[float]: ...
    @property
    def sampler(self) -> Sequence[float] | None: ...


def judge(
    policy: Policy,
    evidence: Evidence,
    vocabulary: BoundVocabulary,
    *,
    context: str | None = None,
    scope: Scope = "thought",
    attempt: int = 0,
    approved: Sequence[Approval] = (),
    without: frozenset[int] = frozenset(),
) -> Judgement:
    """The judgement of one thought; the same arguments always give the same one.

    The evidence is read token by token, and the first crossing that stops the thought is the
    verdict, exactly as :class:`StreamGate` finds it. Otherwise the finished thought is judged by
    all readings, ``rate`` and ``posterior`` included. ``attempt`` counts the resamples that this
    thought already had; a ``resample`` rule without retries left prunes. ``approved`` are the
    crossings that a person let pass. The rules numbered in ``without`` are left out, to ask what
    had been without them.

    Never raises on evidence: what cannot be read is Broken, and so is a reading that fails.
    """
    try:
        rules = InForce.of(policy, vocabulary, context, scope, attempt, evidence.gate, without)
        watch = Watch(rules, approved)
        check_shapes(evidence, watch.layout)
        for row in rows(evidence):
            verdict = watch.step(*row)
            if verdict is not None:
                return verdict
        return watch.finish(evidence)
    except Exception as error:
        broken = policy.broken(_said(error))
    unlocked = policy.unlocked(context)
    if broken.action is Action.HALT or unlocked <= without:
        return broken
    # What no lock binds may be what cannot be read: it must not keep a locked rule from halting.
    how = {"context": context, "scope": scope, "attempt": attempt, "without": unlocked | without}
    alone = judge(policy, evidence, vocabulary, **how)
    return replace(broken, action=Action.HALT) if alone.action is Action.HALT else broken


class StreamGate:
    """Reads a thought while it is generated, and keeps its evidence.

    Numbers are rounded to float16 before anything reads them, so the verdict is made from what is
    stored, and :func:`judge` on :meth:`evidence` gives the same one. Of a token that cannot be
    stored the evidence keeps what was said of it.
    """

    def __init__(
        self,
        policy: Policy,
        vocabulary: BoundVocabulary,
        *,
        context: str | None = None,
        scope: Scope = "thought",
        attempt: int = 0,
        approved: Sequence[Approval] = (),
    ) -> None:
        self._policy = policy
        self._decide = partial(
            judge,
            policy,
            vocabulary=vocabulary,
            context=context,
            scope=scope,
            attempt=attempt,
            approved=approved,
        )
        self._judgement: Judgement | None = None
        try:
            rules = InForce.of(policy, vocabulary, context, scope, attempt)
            self._watch = Watch(rules, approved)
        except Exception as error:
            self._judgement = policy.broken(_said(error))
        self._fault: str | None = None
        """Why the last token could not be stored."""
        self._columns = tuple(column.token for column in vocabulary.vocabulary.columns)
        self._row = struct.Struct(f"<{1 + len(self._columns)}e")
        """log p of the token itself, then its beliefs; float16, little endian."""
        self._sampler_row = struct.Struct(f"<{len(self._columns)}e")
        self._rows = bytearray()
        self._sampler_rows = bytearray()
        self._ids: list[int] = []
        self._offsets: list[int] = []
        self._length = 0
        # Only prefix tags ask where sentences start.
        prefixed = any(tag.good is not None for tag in vocabulary.vocabulary.tags)
        self._tag_ids = frozenset(vocabulary.ids.values())
        self._sentences = SentenceStarts(self._tag_ids) if prefixed else None
        self._starts: list[int] = []
        self._lines: list[int] = []
        self._forced: dict[int, tuple[int, ...]] = {}
        self._held: tuple[int, Start, UnmarkedError] | None = None
        """White space that stands where a prefix tag is due, and is none if nothing follows it."""

    def force(self, ids: Sequence[int]) -> None:
        """Take note of the tag tokens that a control writes before the next token."""
        here = len(self._ids)
        if ids:
            self._forced[here] = (*self._forced.get(here, ()), *ids)

    def feed(self, token: TokenLike) -> Judgement | None:
        """Take one token. A judgement means: stop generating, now; it stays what it is.

        None means that nothing has stopped the thought so far. Weaker crossings (``flag``) and
        the readings that need the whole thought are left to :func:`judge`.
        """
        if self._judgement is None:
            try:
                self._judgement = self._take(token)
            except Exception as error:
                self._judgement = self._policy.broken(_said(error))
        return self._judgement

    @property
    def weighs(self) -> bool:
        """Whether a posterior can stop the thought: then weigh each sentence as it is finished."""
        return self._judgement is None and self._watch.weighs

    def convicts(self, sentence: SentenceScore) -> bool:
        """Whether a rule that stops the thought is reached by this finished sentence's posterior.

        Then stop generating: :func:`judge`, on the evidence with all sentences so far, gives the
        judgement. Terms that cannot be read stop it too.
        """
        return self._judgement is not None or self._watch.convicts(sentence)

    def readings(self) -> Readings:
        """The readings that are made along the tokens, so far; none where the gate is broken."""
        return {} if isinstance(self._judgement, Broken) else self._watch.readings()

    def finish(self, evidence: Evidence) -> Judgement:
        """The judgement of the finished thought, the one that :func:`judge` gives.

        ``evidence`` is :meth:`evidence`, with what was added to it: the posterior's terms, or why
        the thought was broken off. What was read along the tokens is not read a second time.
        """
        if self._judgement is None:
            try:
                self._judgement = self._watch.finish(evidence)
            except Exception:
                self._judgement = self._decide(evidence)
        return self._judgement

    def evidence(self) -> Evidence:
        """What was read so far, the token that decided included."""
        tokens, width = len(self._ids), len(self._columns)
        numbers = np.frombuffer(bytes(self._rows), dtype="<f2").reshape(tokens, 1 + width)
        sampler = np.frombuffer(bytes(self._sampler_rows), dtype="<f2").reshape(-1, width)
        return Evidence(
            columns=self._columns,
            token_ids=tuple(self._ids),
            offsets=tuple(self._offsets),
            chosen=np.ascontiguousarray(numbers[:, 0]),
            belief=np.ascontiguousarray(numbers[:, 1:]),
            sampler=sampler if self._sampler_rows else None,
            starts=tuple(self._starts),
            lines=None if self._sentences is None else tuple(self._lines),
            forced=dict(self._forced),
            fault=self._fault,
        )

    def _take(self, token: TokenLike) -> Verdict | None:
        here = len(self._ids)
        held, self._held = self._held, None
        if held is not None:
            self._mark(held[0], held[1])
        if not (isinstance(token.id, int) and isinstance(token.text, str)):
            fault = f"token {here}: its id or its text has the wrong type"
            self._fault = fault if held is None else None  # what came first is said
            raise UnreadableError(fault) if held is None else held[2]
        row, sampler_row, fault = self._pack(token)
        place = None if self._sentences is None else self._sentences.step(token.id, token.text)
        start = None if place is None else place.start
        if start is not None:
            self._mark(here, start)
        self._ids.append(int(token.id))
        self._offsets.append(self._length)
        self._length += len(token.text)
        self._rows += row
        self._sampler_rows += sampler_row
        if held is not None:
            raise held[2]
        if fault is not None:
            self._fault = f"token {here}: {fault}"
            raise UnreadableError(self._fault)
        chosen, *belief = self._row.unpack(row)
        sampler = self._sampler_row.unpack(sampler_row) if sampler_row else None
        numbers = token.id, chosen, belief, sampler
        forced = self._forced.get(here, ())
        try:
            return self._watch.step(*numbers, start, forced)
        except UnmarkedError as error:
            # A blank line and the end of a text are no sentence; other white space may begin one.
            if start is None or token.text.strip() or token.id in self._tag_ids:
                raise
            self._unmark(here)
            self._held = None if "\n" in token.text else (here, start, error)
            return self._watch.step(*numbers, None, forced)

    def _mark(self, place: int, start: Start) -> None:
        self._starts.append(place)
        if start == "line":
            self._lines.append(place)

    def _unmark(self, place: int) -> None:
        self._starts.remove(place)
        if place in self._lines:
            self._lines.remove(place)

    def _pack(self, token: TokenLike) -> tuple[bytes, bytes, str | None]:
        """The rows as float16, and what is wrong with them if they cannot be stored.

        A row that cannot be stored is kept as NaN, and the evidence says why.
        """
        sampled = bool(self._sampler_rows)
        try:
            sampled = sampled if self._ids else token.sampler is not None
            row = self._row.pack(token.chosen, *token.belief)
            sampler_row = b""
            if token.sampler is not None:
                sampler_row = self._sampler_row.pack(*token.sampler)
            if sampled == bool(sampler_row):
                return row, sampler_row, None
            fault = "the sampler's probabilities come and go within one generation"
        except OverflowError:
            fault = f"a log p lies beyond float16; engines write {LOG_FLOOR:g} for zero"
        except Exception:
            fault = (
                f"{_count(token, 'belief')} beliefs and {_count(token, 'sampler')} of the sampler "
                f"came for the {len(self._columns)} columns {', '.join(self._columns)}"
            )
        width = len(self._columns)
        blank = self._sampler_row.pack(*[math.nan] * width) if sampled else b""
        return self._row.pack(*[math.nan] * (1 + width)), blank, fault


def _said(error: Exception) -> str:
    """Why no reading was made, in one line. A gate that fails must not open, so this is Broken."""
    if isinstance(error, UnreadableError):
        return str(error)
    return f"the gate failed: {type(error).__name__}: {error}"


def _count(token: TokenLike, name: str) -> str:
    values = getattr(token, name, None)
    return "none" if values is None else str(len(values)) if hasattr(values, "__len__") else "one"
