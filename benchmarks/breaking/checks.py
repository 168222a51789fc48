"""What must hold of a ledger after its writer died, against the outside journal."""

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from secateur.agents.desk.sandbox import calls
from secateur.benchmarks.breaking.journal import Key, Testimony, mark
from secateur.benchmarks.breaking.tally import Tally
from secateur.gates.canonical import canonical_json
from secateur.runtime.ledger import connect, tables
from secateur.runtime.ledger.chain import GENESIS
from secateur.runtime.ledger.events import EventKind
from secateur.runtime.ledger.integrity import verification

__all__ = [
    "ACKNOWLEDGED",
    "ALONE",
    "CHAINS",
    "GOES_ON",
    "UNHURT",
    "WAITS",
    "Event",
    "check_desks",
    "check_effects",
    "check_runs",
    "reading",
]

ACKNOWLEDGED = "what was acknowledged is there"
ONCE = "no event stands there twice, or unasked"
CHAINS = "every chain is contiguous and verifies"
CONTENTS = "what is there is what was told"
INTENDED = "every effect has its durable intent"
NOT_AGAIN = "no tool acts twice on one intent"
ALONE = "the stand-alone verifier says the same"
UNHURT = "another process that writes to the ledger is not hurt by a kill"
WAITS = "a commit waits for the disk (SQLite: synchronous=FULL, PostgreSQL: synchronous_commit)"
GOES_ON = "the ledger opens again and goes on"

_CONTENT = {
    EventKind.RUN_STARTED: "task",
    EventKind.JUDGED: "text",
    EventKind.PLACED: "text",
    EventKind.TOOL_RETURNED: "result",
    EventKind.BACKED_UP: "discarded",
    EventKind.ESCALATED: "reason",
    EventKind.DECIDED: "note",
}
"""The blob of an event whose content the journal vouches for."""

Event = Mapping[Any, Any]


@contextmanager
def reading(url: str) -> Iterator[Connection]:
    """A read-only connection of its own."""
    engine = connect.open_existing(url)
    try:
        with engine.connect() as connection:
            yield connection
    finally:
        engine.dispose()


def check_runs(
    connection: Connection, said: Testimony, runs: Iterable[str], tally: Tally
) -> dict[str, list[Event]]:
    """Check these runs against the journal; their events."""
    found: dict[str, list[Event]] = {}
    for run in runs:
        events = _events(connection, run)
        found[run] = events
        tally.done["events found"] += len(events)
        _check_chain(connection, run, events, tally)
        there = Counter(key_of(event) for event in events)
        owed = said.owed.get(run, Counter())
        lost = owed - there
        tally.hold(ACKNOWLEDGED, not lost, f"run {run} lost {list(lost)[:3]}", owed.total())
        extra = there - said.asked.get(run, Counter())
        tally.hold(ONCE, not extra, f"run {run} has {list(extra)[:3]} too often", there.total())
        _check_contents(connection, run, events, said, tally)
    return found


def _events(connection: Connection, run: str) -> list[Event]:
    table = tables.event
    query = sa.select(table).where(table.c.run_id == run).order_by(table.c.seq)
    return list(connection.execute(query).mappings())


def key_of(event: Event) -> Key:
    """What the journal calls this event."""
    kind, thought, attempt = event["kind"], event["thought_id"], event["attempt"]
    body = json.loads(event["body"])
    about = {
        EventKind.SCORED: "operation",
        EventKind.SELECTED: "reason",
        EventKind.PLACED: "acted",
        EventKind.RESUMED: "reason",
        EventKind.ERASED: "reason",
        EventKind.TOOL_INTENDED: "tool",
        EventKind.TOOL_RETURNED: "tool",
        EventKind.NOTED: "topic",
        EventKind.RUN_FINISHED: "status",
    }.get(kind)
    return kind, thought, attempt, None if about is None else body[about]


def _check_chain(connection: Connection, run: str, events: list[Event], tally: Tally) -> None:
    """Contiguous and linked by our own eyes, and whole by the ledger's."""
    seqs = [event["seq"] for event in events]
    linked = [GENESIS, *(event["hash"] for event in events)]
    tally.hold(
        CHAINS,
        seqs == list(range(len(seqs))) and [e["prev_hash"] for e in events] == linked[:-1],
        f"run {run} has a gap: {seqs}",
    )
    if events:
        bad = verification.verify(connection.engine, run).first_bad
        tally.hold(CHAINS, bad is None, f"run {run}: {bad}")


def _check_contents(
    connection: Connection, run: str, events: list[Event], said: Testimony, tally: Tally
) -> None:
    named: dict[str, Key] = {}
    for event in events:
        if (name := _CONTENT.get(event["kind"])) is not None:
            named[json.loads(event["blobs"])[name]] = key_of(event)
    table = tables.blob.c
    stored: dict[str, bytes] = {}
    digests = list(named)
    for first in range(0, len(digests), 400):
        some = digests[first : first + 400]
        query = sa.select(table.digest, table.bytes).where(table.digest.in_(some))
        stored.update(connection.execute(query).tuples().all())
    for digest, key in named.items():
        told = said.contents.get((run, key))
        if told is None:
            continue
        content = stored.get(digest)
        erasing: Key = (EventKind.ERASED, None, None, digest)
        if content == b"" and erasing in said.asked.get(run, Counter()):
            continue
        tally.hold(
            CONTENTS,
            content is not None
            and mark(content) in told
            and erasing not in said.owed.get(run, Counter()),
            f"run {run}: {key} says something else",
        )


def check_effects(
    events: Mapping[str, list[Event]], effects: Iterable[tuple[str, str]], tally: Tally
) -> None:
    """Each effect, a (run, thought), stands behind one intent, and none happened twice."""
    intended = {
        (run, event["thought_id"])
        for run, found in events.items()
        for event in found
        if event["kind"] == EventKind.TOOL_INTENDED
    }
    for effect, times in Counter(effects).items():
        tally.hold(INTENDED, effect in intended, f"{effect} happened without one")
        tally.hold(NOT_AGAIN, times == 1, f"{effect} happened {times} times")


def check_desks(
    connection: Connection,
    events: Mapping[str, list[Event]],
    desks: Iterable[Path],
    tally: Tally,
) -> None:
    """What the ops desk's folders say was done is covered, call by call, by durable intents."""
    intended: Counter[tuple[str, bytes]] = Counter()
    table = tables.blob.c
    for found in events.values():
        for event in found:
            if event["kind"] == EventKind.TOOL_INTENDED:
                digest = json.loads(event["blobs"])["arguments"]
                content = connection.execute(
                    sa.select(table.bytes).where(table.digest == digest)
                ).scalar_one()
                intended[json.loads(event["body"])["tool"], content] += 1
    done: Counter[tuple[str, bytes]] = Counter()
    for desk in desks:
        journal = desk / "journal.jsonl"
        for line in journal.read_text().splitlines() if journal.exists() else []:
            call = calls(json.loads(line)["line"])
            assert call is not None, line
            done[call.tool, canonical_json(call.arguments)] += 1
    over = done - intended
    tally.hold(INTENDED, not over, f"{list(over)[:3]} happened without one", done.total())
