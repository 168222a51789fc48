"""``secateur audit``: ask the ledger what ran, what was cut, and why."""

import json
import re
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

import typer
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ...gates.policy import Policy
from ..ledger.audit import AuditLog
from ..ledger.rows import RunRow
from ..settings import Settings
from .tree import shortened
from .why import print_why

__all__ = ["app"]

app = typer.Typer(help="Ask the ledger what ran, what was cut, and why.", no_args_is_help=True)

RunArgument = Annotated[str, typer.Argument(help="A run's id, or the start of it.")]
DbOption = Annotated[
    str | None,
    typer.Option("--db", help="The ledger: a path or a database URL. Else SECATEUR_DB."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]

_SHRINKS = ("text", "task")
_SHORTEST = 8
"""Columns a text or task keeps on a narrow terminal."""
_UNLIMITED = 10_000

_SPAN = re.compile(r"^(\d+)([mhdw])$")
_UNITS = {"m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


def _since(text: str) -> datetime:
    """``7d``, ``12h``, ``30m``, ``2w`` back from now, or an ISO date or time (UTC if not said)."""
    if match := _SPAN.match(text.strip()):
        return datetime.now(UTC) - timedelta(**{_UNITS[match[2]]: int(match[1])})
    try:
        moment = datetime.fromisoformat(text.strip())
    except ValueError:
        raise typer.BadParameter(
            f"{text!r} is no time: write 30m, 12h, 7d, 2w, or a date such as 2026-05-01"
        ) from None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


@app.command()
def runs(
    limit: Annotated[int, typer.Option(min=1, help="How many, newest first.")] = 50,
    db: DbOption = None,
    json_: JsonOption = False,
) -> None:
    """All runs, newest first.

    Example: secateur audit runs
    """
    with _open(db) as audit:
        found = audit.runs(limit)
    if json_:
        _print_json([run.as_json() for run in found])
        return
    table = _table(
        "run", "started", "agent", "policy", "status", "thoughts", "cut", "tokens", "task"
    )
    for run in found:
        table.add_row(
            run.run,
            _moment(run.started_at),
            run.agent,
            run.policy,
            run.status,
            str(run.thoughts),
            str(run.pruned),
            str(run.tokens),
            shortened(run.task, 50),
        )
    _print_table(table, "no runs yet: try `secateur run opsdesk`")


@app.command()
def show(run: RunArgument, db: DbOption = None, json_: JsonOption = False) -> None:
    """One run: what it was bound to, and each of its events.

    Example: secateur audit show 1qebdd97
    """
    with _open(db) as audit:
        found, events, thoughts = audit.run(run), audit.events(run), audit.thoughts(run)
    if json_:
        _print_json(
            found.as_json()
            | {
                "graph": [thought.as_json() for thought in thoughts],
                "events": [event.as_json() for event in events],
            }
        )
        return
    console = _console()
    for name, value in _facts(found).items():
        console.print(Text.assemble((f"{name:>10}  ", "bold"), value))
    table = _table("seq", "at", "kind", "actor", "thought", "hash")
    for event in events:
        table.add_row(
            str(event.seq),
            _moment(event.at),
            event.kind,
            event.actor,
            event.thought or "",
            event.hash[:12],
        )
    _print_table(table, "no events")


@app.command()
def pruned(
    tag: Annotated[str | None, typer.Option(help="Cut for this tag.")] = None,
    since: Annotated[
        datetime | None,
        typer.Option(parser=_since, metavar="TIME", help="Cut since then: 30m, 12h, 7d, a date."),
    ] = None,
    min_: Annotated[
        float | None, typer.Option("--min", min=0, help="The reading was at least this.")
    ] = None,
    agent: Annotated[str | None, typer.Option(help="Of this agent.")] = None,
    run: Annotated[str | None, typer.Option(help="Of this run (the start of its id).")] = None,
    limit: Annotated[int, typer.Option(min=1, help="How many, newest first.")] = 50,
    db: DbOption = None,
    json_: JsonOption = False,
) -> None:
    """Branches that were cut, newest first.

    Example: secateur audit pruned --tag deceit --since 7d --min 0.8
    """
    with _open(db) as audit:
        found = audit.pruned(
            tag=tag, since=since, min_score=min_, agent=agent, run=run, limit=limit
        )
    if json_:
        _print_json([row.as_json() for row in found])
        return
    table = _table("thought", "run", "agent", "at", "tag", "reading", "score", "from", "text")
    for row in found:
        table.add_row(
            row.thought[:8],
            row.run,
            row.agent,
            _moment(row.at),
            row.tag or "",
            row.reading or "",
            "" if row.score is None else f"{row.score:.3f}",
            "" if row.threshold is None else f"{row.threshold:g}",
            shortened(row.text or row.reason or "", 60),
        )
    _print_table(table, "nothing was cut, or nothing that fits")


@app.command()
def why(
    thought: Annotated[str, typer.Argument(help="A thought's id, or the start of it.")],
    run: Annotated[
        str | None, typer.Option(help="The run, where several have the thought.")
    ] = None,
    db: DbOption = None,
    json_: JsonOption = False,
) -> None:
    """Why a thought was cut: rule, reading, tokens, and what would have let it pass.

    Example: secateur audit why 3f9a1c
    """
    with _open(db) as audit:
        found = audit.why(thought, run)
    if json_:
        _print_json(found.as_json())
        return
    print_why(found, _console())


@app.command()
def replay(
    run: RunArgument,
    policy: Annotated[
        str | None,
        typer.Option(help="A policy file or a shipped policy; if not given, the run's own."),
    ] = None,
    db: DbOption = None,
    json_: JsonOption = False,
) -> None:
    """Judge a run's stored evidence again and list the verdicts that turn. No model is asked.

    Example: secateur audit replay 1qebdd97 --policy strict
    """
    by = None if policy is None else Policy.load(policy)
    with _open(db) as audit:
        found = audit.replay(run, by)
    if json_:
        _print_json([flip.as_json() for flip in found])
        return
    table = _table("thought", "before", "after", "text")
    for flip in found:
        table.add_row(
            flip.thought[:8], flip.before.action, flip.after.action, shortened(flip.text, 70)
        )
    _print_table(table, "no verdict turns")


def _open(db: str | None) -> AuditLog:
    return AuditLog(db or Settings().db)


def _facts(run: RunRow) -> Mapping[str, str]:
    digests = ", ".join(f"{name} {digest[:12]}" for name, digest in run.digests.items())
    return {
        "run": run.run,
        "agent": run.agent,
        "task": run.task,
        "context": run.context or "none",
        "status": run.status,
        "result": run.result or "none",
        "started": run.started_at,
        "finished": run.finished_at or "not yet",
        "seed": str(run.seed),
        "policy": run.policy,
        "model": f"{run.model} ({run.engine})",
        "digests": digests,
        "thoughts": f"{run.thoughts}, {run.pruned} cut, {run.tokens} tokens",
    }


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0))
    numbers = ("thoughts", "cut", "tokens", "score", "from", "seq")
    for column in columns:
        table.add_column(
            column,
            justify="right" if column in numbers else "left",
            no_wrap=True,
            overflow="ellipsis",
        )
    return table


def _print_table(table: Table, otherwise: str) -> None:
    """On a terminal only a text or task is shortened; a table that is wider still, wraps."""
    if not table.row_count:
        print(otherwise)
        return
    console = _console()
    for column in table.columns:
        column.width = max(cell_len(str(cell)) for cell in (column.header, *column.cells))
    wide = sum((column.width or 0) + 1 for column in table.columns)
    for column in table.columns:
        if column.header in _SHRINKS and column.width and wide > console.width:
            narrow = min(column.width, max(_SHORTEST, column.width - (wide - console.width)))
            wide -= column.width - narrow
            column.width = narrow
    console.width = max(console.width, wide)
    # Cells hold what models wrote: nothing in them is markup.
    console.print(table, crop=False)


def _console() -> Console:
    """Standard output: as wide as the terminal, or without a limit where there is none."""
    width = None if sys.stdout.isatty() else _UNLIMITED
    return Console(width=width, markup=False, highlight=False)


def _moment(iso: str) -> str:
    return iso[5:16].replace("T", " ") if sys.stdout.isatty() else iso[:19].replace("T", " ")


def _print_json(value: Mapping[str, Any] | Sequence[Any]) -> None:
    print(json.dumps(value, indent=2, ensure_ascii=False))
