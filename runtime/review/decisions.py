"""What a person decides on a thought that waits."""

from typing import get_args

from sqlalchemy.engine import Connection

from ...gates.errors import SecateurError
from ..ledger.events import ToolOutcome
from ..ledger.ledger import Ledger
from ..ledger.reading.fetch import run_id
from ..ledger.reading.waiting import Waiting, waiting
from ..ledger.standing import read_chain

__all__ = ["DecisionError", "check_decision", "decide"]


class DecisionError(SecateurError):
    """A decision on what does not wait for one, or one that leaves out what must be said."""


async def decide(
    ledger: Ledger,
    thought: str,
    *,
    approve: bool,
    by: str,
    reason: str,
    outcome: ToolOutcome | None = None,
    run: str | None = None,
) -> Waiting:
    """Write down what a person decided on a thought that waits, named by its id or its start.

    The run goes on when it is resumed: below an approved thought, and without a refused one.
    Raises :class:`DecisionError` where the thought does not wait, the run still goes on, or
    something is left unsaid.
    """
    found = await ledger.ask(
        lambda connection: check_decision(
            connection, thought, approve=approve, by=by, reason=reason, outcome=outcome, run=run
        )
    )
    log = await ledger.reopen(found.run)
    await log.decide(
        found.thought,
        approve=approve,
        by=by,
        reason=reason,
        about=found.about,
        outcome=outcome,
        rule=found.rule,
        call=None if found.call is None else found.call.digest,
    )
    return found


def check_decision(
    connection: Connection,
    thought: str,
    *,
    approve: bool,
    by: str,
    reason: str,
    outcome: ToolOutcome | None = None,
    run: str | None = None,
) -> Waiting:
    """What :func:`decide` would decide on. Raises :class:`DecisionError` where it would refuse."""
    found = _named(connection, thought, run)
    if not by.strip() or not by.isprintable():
        raise DecisionError("say who decides: a name of printable characters, on one line")
    if not reason.strip():
        raise DecisionError("a decision needs a reason: say in one line why")
    if found.about == "verdict" and outcome is not None:
        raise DecisionError(
            f"thought {found.thought} waits for its verdict: an outcome belongs to a tool call "
            "whose end is unknown"
        )
    if outcome not in (None, *get_args(ToolOutcome)):
        raise DecisionError(f"outcome {outcome!r}: a call was 'done' or 'not done'")
    if found.about == "tool" and approve and outcome is None:
        raise DecisionError(
            f"nobody knows whether {found.tool} was run: look, and say --outcome done or --outcome "
            '"not done"'
        )
    if not read_chain(connection, found.run).standing.ended:
        raise DecisionError(
            f"run {found.run} has not ended: it still goes on, or was killed; then resume it first "
            f"with `secateur run --resume {found.run}`"
        )
    return found


def _named(connection: Connection, start: str, run: str | None) -> Waiting:
    start = start.strip().lower()
    every = waiting(connection, None if run is None else run_id(connection, run))
    found = [w for w in every if w.thought == start] or [
        w for w in every if start and w.thought.startswith(start)
    ]
    if not found:
        raise DecisionError(
            f"no thought that waits starts with {start!r}: `secateur audit waiting` lists them"
        )
    if len(found) > 1:
        names = ", ".join(f"{w.thought} of run {w.run}" for w in found[:3])
        raise DecisionError(f"several thoughts start with {start!r} ({names}): write more")
    return found[0]
