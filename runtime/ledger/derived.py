"""The tables that are made from the events, against what the events say."""

from collections.abc import Sequence
from typing import Final

from . import tables
from .damage import DamageError, DamageKind, cut_off
from .derive import Derivation

__all__ = ["check_derived"]

_REMEDY: Final = "run `secateur db rebuild`"


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
    names = tables.thought.c.keys()
    id_at, seq_at = names.index("id"), names.index("seq")
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
        if row != tuple(expected.values()):
            wrong = next(n for n, v in zip(names, row, strict=True) if v != expected[n])
            raise DamageError(
                expected["seq"],
                DamageKind.CHANGED,
                f"thought {row[id_at]}: {wrong} is not what its events say; {_REMEDY}",
            )
    for id, expected in left.items():
        raise DamageError(
            expected["seq"],
            DamageKind.MISSING,
            f"thought {id} is not in the thought table; {_REMEDY}",
        )


def _scores(made: Derivation, rows: Sequence[tuple]) -> None:
    expected = made.scores
    if len(rows) == len(expected) and all(
        (want := expected.get((row[1], row[2]))) is not None and tuple(want.values()) == row
        for row in rows
    ):
        return
    found = {(row[1], row[2]): row for row in rows}
    wanted = {key: tuple(row.values()) for key, row in expected.items()}
    odd = [key for key in wanted | found if found.get(key) != wanted.get(key)]
    thought, tag = min(odd, key=str) if odd else ("?", "?")
    seq = made.thoughts.get(thought, {}).get("seq")
    kind = DamageKind.CHANGED if (thought, tag) in found else DamageKind.MISSING
    raise DamageError(seq, kind, f"the scores of {tag} for thought {thought} are {kind}; {_REMEDY}")


def _decisions(made: Derivation, rows: Sequence[tuple], last: int) -> None:
    left = dict(made.decisions)
    for row in sorted(rows, key=str):
        seq = row[1]
        expected = left.pop(seq, None)
        if expected is None and isinstance(seq, int) and seq > last:
            raise cut_off(last, f"a decision was recorded by event {seq}")
        if expected is None or tuple(expected.values()) != row:
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
