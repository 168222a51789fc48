"""``secateur audit replay`` and ``diff``: verdicts made again, and runs side by side."""

import sys
from collections.abc import Iterator, Sequence
from typing import Annotated

import typer
from rich.progress import track

from ..gates.policy import Policy
from ..gates.verdict import Verdict
from ..runtime.ledger.reading.answers import ThoughtRow
from ..runtime.ledger.reading.diff import Diff, Differing
from ..runtime.ledger.reading.replay import Replay
from ..runtime.pictures.looks import shortened
from ..runtime.screen import Console, Words
from .terminal import (
    DbOption,
    JsonOption,
    RunArgument,
    one_line,
    open_ledger,
    print_json,
    print_table,
    table,
)

__all__ = ["app"]

app = typer.Typer()
"""Commands that stand under ``secateur audit``."""


@app.command()
def replay(
    run: Annotated[
        str | None, typer.Argument(help="A run's id, or the start of it; else --all.")
    ] = None,
    all_: Annotated[bool, typer.Option("--all", help="Every run of the ledger.")] = False,
    policy: Annotated[
        str | None,
        typer.Option(help="A policy file or a shipped policy; if not given, each run's own."),
    ] = None,
    processes: Annotated[
        int, typer.Option(min=1, help="Processes that judge at once, with --all.")
    ] = 1,
    db: DbOption = None,
    json_: JsonOption = False,
) -> None:
    """Judge stored evidence again and list the verdicts that turn. No model is asked.

    Example: secateur audit replay 1qebdd97 --policy strict
    """
    if (run is None) == (not all_):
        raise typer.BadParameter("name one run, or give --all")
    by = None if policy is None else Policy.load(policy)
    with open_ledger(db) as audit:
        if run is not None:
            found = [audit.replay(run, by)]
        else:
            found = list(_watched(audit.replays(by, processes), len(audit.run_ids())))
    print(one_line(_summary(found)), file=sys.stderr if json_ else sys.stdout)
    flips = [flip for each in found for flip in each]
    if json_:
        print_json([flip.as_json() for flip in flips])
    else:
        shown = table("thought", "run", "before", "after", "text")
        for flip in flips:
            shown.add_row(
                flip.thought[:8],
                flip.run,
                flip.before.action,
                flip.after.action,
                shortened(flip.text, 70),
            )
        print_table(shown, "no verdict turns")
    unread = [each for each in found if each.unread is not None]
    for each in unread:
        print(f"run {each.run} was not judged again: {each.unread}", file=sys.stderr)
    if unread:
        raise typer.Exit(1)


@app.command()
def diff(
    left: RunArgument, right: RunArgument, db: DbOption = None, json_: JsonOption = False
) -> None:
    """Two runs side by side: what is the same in both graphs, what differs, what only one has.

    Example: secateur audit diff 1qebdd97 1qebdf03
    """
    with open_ledger(db) as audit:
        found = audit.diff(left, right)
    if json_:
        print_json(found.as_json())
        return
    out = Console()
    for side, run, style in (
        ("left", found.left, "bold red"),
        ("right", found.right, "bold green"),
    ):
        out.print(Words.assemble((f"{side:<7}", style), f"{run.run}: {one_line(run.agent)}"))
    for name, (one, two) in found.runs.items():
        out.print(Words.assemble((f"{name}: ", "bold"), f"{_short(one)} -> {_short(two)}"))
    for line in found.policies:
        out.print(Words(f"policy {line}", "red" if line.startswith("-") else "green"))
    out.print(Words(_tally(found), "bold"))
    for each in found.differing:
        out.print(Words(one_line(each.place), "bold"))
        for side, row, style in (("left ", each.left, "red"), ("right", each.right, "green")):
            said = "not there" if row is None else _thought(row, each)
            out.print(Words.assemble((f"  {side}  ", style), said))


def _watched(replays: Iterator[Replay], runs: int) -> Iterator[Replay]:
    return iter(
        track(
            replays,
            "judging again",
            total=runs,
            console=Console(stderr=True),
            transient=True,
            disable=not sys.stderr.isatty(),
        )
    )


def _summary(replays: Sequence[Replay]) -> str:
    flips = [flip for each in replays for flip in each]
    stricter = sum(flip.tightens for flip in flips)
    looser = sum(flip.loosens for flip in flips)
    judged = sum(each.judged for each in replays)
    erased = sum(each.erased for each in replays)
    said = f"{judged} verdicts made again, {len(flips)} turn: {stricter} stricter, {looser} looser"
    if len(flips) > stricter + looser:
        said += f", {len(flips) - stricter - looser} with the same action"
    said += f"; {erased} without evidence, which was erased" if erased else ""
    unfit = [each.unfit for each in replays if each.unfit is not None]
    return said + (f"; {len(unfit)} runs left out, the first because {unfit[0]}" if unfit else "")


def _tally(found: Diff) -> str:
    left = sum(each.right is None for each in found.differing)
    right = sum(each.left is None for each in found.differing)
    both = len(found.differing) - left - right
    return f"{found.same} the same, {both} different, {left} only left, {right} only right"


def _thought(row: ThoughtRow, each: Differing) -> str:
    cause = row.judgement.cause if isinstance(row.judgement, Verdict) else None
    why = "" if cause is None else f" ({cause.tag} {cause.reading} {cause.score:.3f})"
    what = f" [{', '.join(each.what)}]" if each.what and row is each.right else ""
    return f"{row.id[:8]} {row.status}{why}: {shortened(row.text or row.reason or '', 80)}{what}"


def _short(value: object) -> str:
    return "none" if value is None else shortened(str(value), 60)
