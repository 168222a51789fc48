"""``secateur audit verify`` and its kin: whether the ledger is as it was written."""

import asyncio
import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib import resources
from pathlib import Path
from typing import Annotated, Any

import typer

from ..runtime.ledger import connect, erasing
from ..runtime.ledger.errors import LedgerError
from ..runtime.ledger.integrity.checkpoints import Checkpoint, make_checkpoint, read_checkpoint
from ..runtime.ledger.integrity.signing import SigningKey, default_key, public_key
from ..runtime.ledger.reading.audit import AuditLog
from ..runtime.screen import Console
from ..runtime.settings import Settings
from .terminal import one_line

__all__ = ["app"]

app = typer.Typer()
"""Commands that stand under ``secateur audit``."""

DbOption = Annotated[
    str | None,
    typer.Option("--db", help="The ledger: a path or a database URL. Else SECATEUR_DB."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.command()
def verify(
    run: Annotated[
        str | None, typer.Argument(help="One run (the start of its id); all if not given.")
    ] = None,
    checkpoint: Annotated[
        Path | None,
        typer.Option(help="A checkpoint that was kept elsewhere: it must still hold."),
    ] = None,
    key: Annotated[
        str | None,
        typer.Option(help="The public key that checkpoints must be signed with, or its file."),
    ] = None,
    processes: Annotated[
        int | None, typer.Option(min=1, help="Side by side; one for each core if not given.")
    ] = None,
    db: DbOption = None,
    json_: JsonOption = False,
) -> None:
    """Recompute every hash, blob and derived row; exit code 1 when something was changed.

    Example: secateur audit verify --checkpoint checkpoint-12.json --key auditor.pub
    """
    kept = None if checkpoint is None else read_checkpoint(checkpoint)
    trusted = None if key is None else public_key(key)
    with AuditLog(db or Settings().db) as audit, _progress("verifying") as progress:
        found = audit.verify(
            run,
            checkpoint=kept,
            key=trusted,
            processes=processes or (os.cpu_count() or 1),
            progress=progress,
        )
    if json_:
        answer: dict[str, Any] = {"ok": found.ok, "events": found.events, "runs": found.runs}
        if kept is not None:
            answer["checkpoint"] = {"number": kept.number, "at": kept.at, "key": kept.key}
        if found.first_bad is not None:
            answer["first_bad"] = found.first_bad.as_json()
            answer["damages"] = [damage.as_json() for damage in found.damages]
        _print_json(answer)
    else:
        for damage in found.damages:
            print(f"damaged: {one_line(damage)}")
        if found.ok:
            told = "is as it was" if found.events == 1 else "are as they were"
            events, runs = _some(found.events, "event"), _some(found.runs, "run")
            print(f"fine: {events} of {runs} {told} written")
        if kept is not None:
            asked = "the key that was asked for" if trusted else "nobody asked for a key: --key"
            print(f"{kept.name} is signed with {kept.key} ({asked}), {_verified(kept)} when made")
    if not found.ok:
        raise typer.Exit(1)


@app.command()
def checkpoint(
    key: Annotated[
        Path | None,
        typer.Option(help="The private key that signs; made on first use, for you alone to read."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Write it to this file, to be kept elsewhere.")
    ] = None,
    heads: Annotated[
        bool,
        typer.Option(
            "--heads", help="Name each run's head in it: larger, and says more after a loss."
        ),
    ] = False,
    outside: Annotated[
        bool,
        typer.Option(
            "--outside",
            help="Do not record it in the ledger, which need only be read; implies --heads.",
        ),
    ] = False,
    unverified: Annotated[
        bool,
        typer.Option(
            "--unverified", help="Sign without verifying what is new; the checkpoint says so."
        ),
    ] = False,
    list_: Annotated[
        bool, typer.Option("--list", help="Make none; list those that the ledger holds.")
    ] = False,
    prove: Annotated[
        str | None,
        typer.Option(metavar="RUN", help="Make none; prove that a run is under the newest."),
    ] = None,
    number: Annotated[
        int | None, typer.Option(min=1, help="With --prove or --out: this one, make none.")
    ] = None,
    db: DbOption = None,
    json_: JsonOption = False,
) -> None:
    """Verify what is new, and sign the heads of all runs, so that nobody can cut off or rewrite
    what is there now.

    Keep what it writes where whoever can write to the ledger cannot.

    Example: secateur audit checkpoint --out checkpoint.json
    """
    url = db or Settings().db
    if out is not None:
        connect.keep_off(out, connect.address(url))
    if list_:
        _list_checkpoints(url, json_)
        return
    if prove is not None:
        with AuditLog(url) as audit:
            proof = audit.checkpoint(number).prove(audit.run(prove).run)
        _deliver(proof.as_json(), out, f"run {proof.head.run}: event {proof.head.seq} is in it")
        return
    if number is not None:
        with AuditLog(url) as audit:
            made = audit.checkpoint(number)
    else:
        made = _make(url, key, outside, unverified)
    counts = f"{_some(made.runs, 'run')}, {_some(made.events, 'event')}"
    told = f"{made.name}: {counts}, {_verified(made)}, root {made.root}"
    _deliver(made.as_json(heads=heads or outside), out, told)


@app.command()
def erase(
    name: Annotated[str, typer.Argument(help="A run or a thought: its id, or the start of it.")],
    by: Annotated[str, typer.Option(help="Who erases; it is recorded.")],
    reason: Annotated[str, typer.Option(help="Why; it is recorded.")],
    what: Annotated[
        str | None,
        typer.Option(help=f"Only these, with commas between: {', '.join(erasing.WHAT)}."),
    ] = None,
    run: Annotated[
        str | None, typer.Option(help="The thought in this run alone, where several have it.")
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    sweep: Annotated[
        bool,
        typer.Option(help="Write the database anew, so that no free page still holds the bytes."),
    ] = True,
    db: DbOption = None,
    json_: JsonOption = False,
) -> None:
    """Erase what was said, for privacy: the bytes go, the chain stays whole and says so.

    A prompt may quote the thoughts before it, so a whole run is the safer choice: with it goes the
    folder in which its tools acted. Names stay, and so do copies made elsewhere.

    Example: secateur audit erase 1qebdd97 --by "A. Reviewer" --reason "asked for on 3 May"
    """
    url = db or Settings().db
    wanted = erasing.WHAT if what is None else [word.strip() for word in what.split(",")]
    engine = connect.open_existing(url, read_only=False)
    try:
        with engine.connect() as connection:
            found = erasing.find(connection, name, wanted, run)
        left = [each for each in found if not each.empty]
        for each in left:
            still = "" if each.finished else "; the run is not finished: if it still goes, it stops"
            print(f"{one_line(each)}{still}", file=sys.stderr)
        if left and not (yes or _agreed()):
            raise LedgerError("nothing was erased (--yes erases without asking)")
        folders = [asyncio.run(erasing.erase(url, e, by=by, reason=reason)) for e in left]
        swept = erasing.sweep(engine) if sweep else None
    finally:
        engine.dispose()
    blobs = sum(len(each.blobs) for each in left)
    if json_:
        told = None if swept is None else {"complete": swept.complete, "remark": swept.remark}
        runs = [each.run for each in left]
        kept = [folder for folder in folders if folder is not None]
        _print_json({"blobs": blobs, "runs": runs, "folders": kept, "swept": told})
    else:
        erased = f"erased {_some(blobs, 'blob')} of {_some(len(left), 'run')}"
        print(erased if left else "nothing is left to erase")
        for folder in filter(None, folders):
            print(f"but texts may be left: {one_line(folder)}")
        if swept is not None:
            said = one_line(swept.remark)
            print(said if swept.complete else f"but copies may be left: {said}")
    if any(folders) or (swept is not None and not swept.complete):
        raise typer.Exit(1)


def _agreed() -> bool:
    try:
        return typer.confirm("Erase this for good?", err=True)
    except typer.Abort:  # nobody there to answer
        return False


@app.command()
def verifier() -> None:
    """Print a verifier that needs no Secateur: one Python file, the standard library alone.

    Example: secateur audit verifier > verify_ledger.py
    """
    print(
        resources.files("secateur.runtime.ledger.integrity").joinpath("verifier.py").read_text(),
        end="",
    )


def _make(url: str, path: Path | None, outside: bool, unverified: bool) -> Checkpoint:
    engine = connect.open_existing(url, read_only=outside)
    try:
        place = path or default_key()
        connect.keep_off(place, connect.address(url))
        if place.exists():
            signing = SigningKey.open(place)
        else:
            signing = SigningKey.generate(place)
            print(
                f"made a key at {place} (mode 600): keep a copy elsewhere, and give {place}.pub "
                "to whoever verifies",
                file=sys.stderr,
            )
        return make_checkpoint(engine, signing, outside=outside, unverified=unverified)
    finally:
        engine.dispose()


def _list_checkpoints(url: str, json_: bool) -> None:
    with AuditLog(url) as audit:
        found = audit.checkpoints()
    if json_:
        _print_json([each.as_json()["body"] | {"signature": each.signature} for each in found])
        return
    for each in found:
        print(
            f"{each.number}  {each.at[:19]}Z  {_some(each.runs, 'run')}  "
            f"{_some(each.events, 'event')}  {_verified(each)}  root {each.root[:16]}  "
            f"key {each.key[:16]}"
        )
    if not found:
        print("no checkpoints yet: `secateur audit checkpoint --out FILE` makes one")


def _deliver(value: Mapping[str, Any], out: Path | None, told: str) -> None:
    """To a file, with a line about it; else the JSON itself."""
    if out is None:
        _print_json(value)
        return
    try:
        out.write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")
    except OSError as error:
        raise typer.BadParameter(f"{out} cannot be written: {error.strerror}") from None
    print(f"{told}; written to {out}")


@contextmanager
def _progress(what: str) -> Iterator[Callable[[int, int], object]]:
    """A bar on stderr, where somebody watches."""
    if not sys.stderr.isatty():
        yield lambda done, events: None
        return
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn(what),
        BarColumn(),
        TextColumn("{task.completed:,.0f} of {task.total:,.0f} events"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=0)
        yield lambda done, events: bar.update(task, completed=done, total=events)


def _verified(made: Checkpoint) -> str:
    """Whether what was new was verified before it was signed."""
    return "verified" if made.verified else "not verified"


def _some(number: int, thing: str) -> str:
    """``1 run``, ``2 runs``."""
    return f"{number} {thing}" + ("" if number == 1 else "s")


def _print_json(value: Any) -> None:
    print(json.dumps(value, indent=2, ensure_ascii=False))
