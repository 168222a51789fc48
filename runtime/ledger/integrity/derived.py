"""The tables that are made from the events: made anew from a whole chain, and compared."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import orjson

from .. import standing, tables
from ..chain import from_text
from ..derive import CHANGING, Row, changes, decision_row, tag_score_rows, thought_row, told
from ..events import EventKind
from ..search.index import OVERFLOW, number_range
from ..text import text_of
from .damage import DamageError, DamageKind, cut_off

__all__ = ["Derivation", "Spoken", "check_derived", "check_passages", "read_body"]

_WORDLESS: Final = b'"text":""}'
"""How a prompt ends that was asked without a word."""
_REMEDY: Final = "run `secateur db rebuild`"
_RECORDING: Final = frozenset({EventKind.JUDGED.value, EventKind.PLACED.value})
_TELLING: Final = _RECORDING | {kind.value for kind in CHANGING}
_READ: Final = _TELLING | {kind.value for kind in standing.TELLING}
_KINDS: Final = frozenset(kind.value for kind in EventKind)
_THOUGHT: Final = {name: place for place, name in enumerate(tables.thought.c.keys())}
_DECISION: Final = {name: place for place, name in enumerate(tables.decision.c.keys())}


class Derivation:
    """The derived rows of one run, made by taking its events in order."""

    def __init__(self, agent: str) -> None:
        self.agent = agent
        self.thoughts: dict[str, Row] = {}
        """By id."""
        self.scores: dict[tuple[str, str], Row] = {}
        """By thought and tag."""
        self.decisions: dict[int, Row] = {}
        """By event."""
        self._recorded_by: dict[int, str] = {}

    def take(
        self,
        columns: tuple,
        body: Mapping[str, Any],
        named: Mapping[str, str],
        contents: Mapping[str, bytes],
    ) -> None:
        """Apply one event, its columns in the order of :class:`.Link`, its body read.

        ``named`` are the digests of its blobs by name, ``contents`` their bytes by digest, empty
        for those that were erased. Raises ``KeyError``, ``TypeError`` or ``ValueError`` for an
        event that cannot be read.
        """
        kind = columns[2]
        if kind not in _TELLING:
            return
        run, seq, _, at, _, actor, thought, attempt, _, latency, _, _, _, _ = columns
        event = {
            "run_id": run,
            "seq": seq,
            "kind": kind,
            "at": at,
            "actor": actor,
            "thought_id": thought,
            "attempt": attempt,
            "latency_s": latency,
        }
        words = {n: text_of(contents[named[n]]) for n in ("reason", "note") if n in named}
        body = told(body, words)
        if kind in _RECORDING:
            self._record(event, body, named, contents)
            return
        if kind == EventKind.DECIDED:
            self.decisions[seq] = decision_row(event, body)
        for change in changes(event, body):
            if change.table == "decision":
                decision = self.decisions.get(change.seq or 0)
                if decision is not None:
                    changed = _changed(decision, change.columns, _DECISION)
                    self.decisions[change.seq or 0] = changed
                continue
            id = self._recorded_by.get(change.seq, "") if change.seq is not None else change.thought
            row = self.thoughts.get(id or "")
            if row is not None:
                self.thoughts[id or ""] = _changed(row, change.columns, _THOUGHT)

    def _record(
        self,
        event: Mapping[str, Any],
        body: Mapping[str, Any],
        named: Mapping[str, str],
        contents: Mapping[str, bytes],
    ) -> None:
        # No JSON value is empty, so an empty one was erased.
        value = (text_of(contents[named["value"]]) or None) if "value" in named else None
        text = text_of(contents[named["text"]])
        id = event["thought_id"]
        evidence = named.get("evidence")
        self.thoughts[id] = thought_row(event, body, self.agent, text, value, evidence)
        self._recorded_by[event["seq"]] = id
        for row in tag_score_rows(event, body):
            self.scores[id, row[2]] = row


class Spoken:
    """What of one run belongs into the full-text index, made by taking its events in order."""

    def __init__(self) -> None:
        self.thoughts: dict[str, tuple[int, str]] = {}
        """Those of which words are left: the event that recorded each, and its time."""
        self.last = -1
        """The last event that recorded a thought."""
        self._asked: set[str] = set()

    def take(self, columns: tuple, named: Mapping[str, str], contents: Mapping[str, bytes]) -> None:
        """Apply one event, as :meth:`Derivation.take` does."""
        kind, id = columns[2], columns[6]
        if kind == EventKind.MODEL_INTENDED:
            prompt = contents[named["prompt"]]
            if prompt and not prompt.endswith(_WORDLESS):
                self._asked.add(id)
        elif kind in _RECORDING:
            self.last = columns[1]
            if contents[named["text"]] or id in self._asked:
                self.thoughts[id] = columns[1], columns[3]


def read_body(kind: str, text: str) -> Mapping[str, Any] | None:
    """An event's body, where something follows from it; None for the other kinds.

    Raises ``ValueError`` for what is no event.
    """
    if kind not in _READ:
        if kind not in _KINDS:
            raise ValueError(f"{kind!r} is no kind of event")
        return None
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:  # a lone surrogate, which only Python's own reader takes
        return from_text(text)


def _changed(row: Row, columns: Mapping[str, Any], places: Mapping[str, int]) -> Row:
    cells = list(row)
    for name, value in columns.items():
        cells[places[name]] = value
    return tuple(cells)


def check_derived(
    made: Derivation,
    thoughts: Sequence[tuple],
    scores: Sequence[tuple],
    decisions: Sequence[tuple],
    last: int,
) -> None:
    """One run's rows, in their tables' columns, against those made from its whole chain.

    Raises :class:`DamageError`. A row that only an event after ``last`` could have made shows that
    the chain was cut.
    """
    _thoughts(made, thoughts, last)
    _scores(made, scores)
    _decisions(made, decisions, last)


def _thoughts(made: Derivation, rows: Sequence[tuple], last: int) -> None:
    id_at, seq_at = _THOUGHT["id"], _THOUGHT["seq"]
    if {row[id_at]: row for row in rows} == made.thoughts:
        return
    left = dict(made.thoughts)
    for row in sorted(rows, key=lambda row: str(row[seq_at]).zfill(12)):
        expected = left.pop(row[id_at], None)
        if expected is None:
            if isinstance(row[seq_at], int) and row[seq_at] > last:
                raise cut_off(last, f"thought {row[id_at]} was recorded by event {row[seq_at]}")
            raise DamageError(
                None,
                DamageKind.CHANGED,
                f"thought {row[id_at]} stands in no event: it was put in; {_REMEDY}",
            )
        if row != expected:
            wrong = next(n for n, at in _THOUGHT.items() if row[at] != expected[at])
            raise DamageError(
                expected[seq_at],
                DamageKind.CHANGED,
                f"thought {row[id_at]}: {wrong} is not what its events say; {_REMEDY}",
            )
    id, expected = next(iter(left.items()))
    raise DamageError(
        expected[seq_at],
        DamageKind.MISSING,
        f"thought {id} is not in the thought table; {_REMEDY}",
    )


def _scores(made: Derivation, rows: Sequence[tuple]) -> None:
    found = {(row[1], row[2]): row for row in rows}
    if found == made.scores:
        return
    odd = [key for key in made.scores | found if found.get(key) != made.scores.get(key)]
    thought, tag = min(odd, key=str)
    judged = made.thoughts.get(thought)
    kind = DamageKind.CHANGED if (thought, tag) in found else DamageKind.MISSING
    raise DamageError(
        None if judged is None else judged[_THOUGHT["seq"]],
        kind,
        f"the scores of {tag} for thought {thought} are {kind}; {_REMEDY}",
    )


def _decisions(made: Derivation, rows: Sequence[tuple], last: int) -> None:
    left = dict(made.decisions)
    for row in sorted(rows, key=str):
        seq = row[1]
        expected = left.pop(seq, None)
        if expected is None and isinstance(seq, int) and seq > last:
            raise cut_off(last, f"a decision was recorded by event {seq}")
        if expected is None or expected != row:
            raise DamageError(
                seq,
                DamageKind.CHANGED,
                f"the decision of event {seq} is not what the event says; {_REMEDY}",
            )
    for seq in left:
        raise DamageError(
            seq,
            DamageKind.MISSING,
            f"the decision of event {seq} is not in the decision table; {_REMEDY}",
        )


def check_passages(
    made: Spoken, passages: Sequence[tuple], marks: Sequence[tuple], ended: bool, last: int
) -> None:
    """One run's place in the full-text index against its whole chain: which thoughts it has, and
    how far it has come. Raises :class:`DamageError`. The words themselves are not compared."""
    if not marks:
        raise DamageError(
            None, DamageKind.MISSING, f"its mark in the full-text index is missing; {_REMEDY}"
        )
    ((_, upto, settled),) = marks
    if isinstance(upto, int) and upto > last:
        raise cut_off(last, f"the full-text index has read event {upto}")
    wrong = None
    expected = {id: told for id, told in made.thoughts.items() if told[0] <= upto}
    found = {row[2]: row[0] for row in passages}
    if settled and not (ended and made.last <= upto):
        wrong = "its mark in the full-text index says that nothing is left to read"
    elif len(found) < len(passages):
        wrong = "a thought stands twice in the full-text index"
    elif odd := found.keys() ^ expected.keys():
        id = min(odd, key=str)
        wrong = f"thought {id} is {'' if id in found else 'not '}in the full-text index"
    else:
        for id, (_, at) in expected.items():
            low, high = number_range(at)
            if not low <= found[id] <= high + OVERFLOW:
                wrong = f"thought {id} stands at another time in the full-text index"
                break
    if wrong is not None:
        raise DamageError(
            None, DamageKind.CHANGED, f"{wrong}, which is not what its events say; {_REMEDY}"
        )
