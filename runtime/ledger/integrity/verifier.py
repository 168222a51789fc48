#!/usr/bin/env python3
"""Verify a Secateur ledger without Secateur: Python 3.10 or newer, standard library, this one file.

    python -I verify_ledger.py LEDGER [--run RUN] [--checkpoint FILE] [--proof FILE] [--key KEY]

LEDGER is a SQLite file, or the lines that `secateur audit export --format jsonl --complete` wrote
(of a ledger in PostgreSQL, say): one JSON object for each row, with "table" and the columns, bytes
in base64. Nothing is changed. Exit code 0: everything is as it was written; 1: something is not;
2: wrong usage. What each finding proves stands in docs/ledger.md; in short:

- every event carries the SHA-256 of its other columns as canonical JSON, and the hash of the event
  before it, so a chain cannot be changed, reordered or thinned out inside without being made anew;
- an event names its blobs by SHA-256(salt + bytes); bytes may be missing only where an `erased`
  event of the same run says so;
- what an event says must be allowed by those before it: a person decides once, on a thought that a
  verdict escalated or on a call without an end; no tool is called below what was cut;
- triggers and views of a SQLite file are those that the ledger's migrations make;
- a checkpoint signs (Ed25519) the Merkle root (RFC 6962) over the last event of every run. One that
  was kept elsewhere shows whether tails were cut off or chains made anew since.

The tables that are derived from the events (thought, tag_score, …) are no evidence and not read.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import json
import re
import sqlite3
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn, TextIO

EVENT = (
    "run_id", "seq", "kind", "at", "monotonic_ns", "actor", "thought_id", "attempt", "digests",
    "latency_s", "blobs", "body", "prev_hash", "hash",
)  # fmt: skip
TABLES = {
    "policy": ("digest", "name", "body"),
    "blob": ("digest", "salt", "bytes"),
    "run": (
        "id", "agent", "task", "context", "seed", "policy", "engine", "model", "digests",
        "started_at",
    ),
    "event": EVENT,
    "erasure": ("digest", "run_id", "seq", "at"),
    "checkpoint": (
        "number", "at", "runs", "events", "root", "previous", "key", "signature", "body", "heads",
    ),
}  # fmt: skip
ZEROS = "0" * 64
REVISION = "0003"
"""Of the tables whose definitions follow, each as SHA-256 (32 digits) of its text."""
# fmt: off
SCHEMA = {
    "index ix_decision_thought_id": "7974bde1da752f4ae34a8e52c5b3f4ae",
    "index ix_event_finished": "bad1a77eaf0b4e37b79c54f70eb2c57c",
    "index ix_event_resumed": "ff3a8c4c90b1b35736531edd38217934",
    "index ix_event_run_id_thought_id": "57cb8325db77a8978b4dab42e04273f3",
    "index ix_passage_mark_open": "58fd78d16d18e86645056673f3e20242",
    "index ix_passage_run_id": "530c523ebb073ea8ce38287914d85820",
    "index ix_run_started_at": "42952627bdd19c88a4c44bd16961058b",
    "index ix_tag_score_cut": "97381980e02ec033c0ead71d34afb6a1",
    "index ix_thought_at": "f94dee2b4fc956cda58a27253f4355af",
    "index ix_thought_id": "d215873dff6666b92cfe47b60776a776",
    "index ix_thought_merge": "3bbfaad2d6c3541b9bea24b76500fe68",
    "index ix_thought_place": "c17f4e9aa0d9a4c111c09ae55c232a74",
    "index ix_thought_pruned": "c43dc54483892c3ed5f6b82bc062a93e",
    "index ix_thought_pruned_agent": "7b16e9b8788b36d531d9d32a71c1d725",
    "index ix_thought_pruned_run_id": "f45adf45ae634d64459d83ebaa858344",
    "index ix_thought_pruned_tag": "3d354fcd8b8a649e8757e192fa4a3ff7",
    "table alembic_version": "acb8e241d35a0f4a75cf231e657226be",
    "table blob": "6c298c217e46928bf195520993c001d9",
    "table checkpoint": "8fa2db59c9f93bc413f32d2431d31a27",
    "table decision": "37d5f52b97141072e7ccf94ed71e50f3",
    "table erasure": "02741fe6a3542626c0db2953eb81b0fd",
    "table event": "bb8cda8f90b40d6b42376af686d427a6",
    "table passage": "c94c731aeba64bcc88236762f98d0a6c",
    "table passage_mark": "1dcf922c539b751bce6bd6bbbfd141b6",
    "table passage_words": "32f7f3694c02ef8136e8084c94cc501b",
    "table policy": "f1edcc781eb0960beead418b2e660670",
    "table run": "7687c0c4f0be5f26075ba782e02c16b8",
    "table tag_score": "127c151650b2c7da6ffe954225dbf485",
    "table thought": "4dcf0c4c4b878acd52f5a3532754fbc7",
    "trigger blob_no_delete on blob": "a3d2ad4141a172bb2ba906b94dd67401",
    "trigger blob_no_replace on blob": "fbf9fab92ec25f83bafe72342a46b5f1",
    "trigger blob_no_update on blob": "c40750eb33eed0b35d4c1aabdf4287f5",
    "trigger checkpoint_no_delete on checkpoint": "97e5a12eea34b6cf844630dacad2a22e",
    "trigger checkpoint_no_replace on checkpoint": "b5e84966bb6bce2944607213d4f0a963",
    "trigger checkpoint_no_update on checkpoint": "2e55d91093184ac146794bd958d01fd7",
    "trigger erasure_no_delete on erasure": "ecef3d72a1f5e4e30446eb67888c1631",
    "trigger erasure_no_replace on erasure": "e5c2202b12b077ec22ed4337fda4df07",
    "trigger erasure_no_update on erasure": "e10e0b4d152d7a6056b393984aa529bd",
    "trigger event_no_delete on event": "dad6df82b084866e9d68cc8d80fa6e96",
    "trigger event_no_replace on event": "f6b77d6600970e809750afd6c75e4e4e",
    "trigger event_no_update on event": "4f83124960064b511adb1b0e4ea2e2b7",
    "trigger event_reopens_passages on event": "882ac79c76bf9512baec79c7cf85bc07",
    "trigger policy_no_delete on policy": "3df268668d0ca9dc523e2766f944fcbe",
    "trigger policy_no_replace on policy": "764e8c0b6ab864b2a60c8b8ac59234c0",
    "trigger policy_no_update on policy": "5033a3dc74945c1a7ed14e5c3b048b9d",
    "trigger run_begins_passages on run": "bed38927936f1f3b47b250cffaec78fc",
    "trigger run_no_delete on run": "156115128f2a959c85028e820a0f2db9",
    "trigger run_no_replace on run": "0d75e5f53a24bc3974310a56250e9af5",
    "trigger run_no_update on run": "046e31f6f19e6b1e97bdd53ffd29cb98",
    "view pruned_branch": "8312dec3b41c4f186c000935920cd990",
    "view run_summary": "3616dbf0462439ed3343ffacc59f2b25",
    "view step": "148de7229d0325c159b1b3077dc6b3b5",
    "view why_pruned": "e0e8b246d43a0d742083966d301cb00a",
}
# fmt: on

Row = dict[str, Any]
Point = tuple[int, int, int, int]
Marks = dict[str, dict[int, list]]
"""What checkpoints say: run, seq, and for each who says it, with the hash."""


class Wrong(Exception):  # noqa: N818
    """Something is not as it was written."""


# --- canonical JSON, digests, the Merkle tree ---------------------------------------------------


def canonical(value: object) -> bytes:
    """Sorted keys, no spaces, pure ASCII, no NaN and no infinity."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return text.encode("ascii")


def shown(value: object) -> object:
    """What event 0 says, as a column holds it: U+FFFD for NUL, `?` for a lone surrogate."""
    if not isinstance(value, str):
        return value
    pairs = value.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "surrogatepass")
    return pairs.encode("utf-8", "replace").decode().replace("\0", "\ufffd")


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def event_hash(event: Row) -> str:
    """Over the canonical JSON of the object of every column but `hash`."""
    return sha256(canonical({name: event[name] for name in EVENT if name != "hash"}))


def blob_digest(salt: bytes, content: bytes) -> str:
    return sha256(salt + content)


def merkle_root(leaves: list[bytes]) -> bytes:
    """RFC 6962, section 2.1: recursive, as the standard states it."""
    if not leaves:
        return hashlib.sha256(b"").digest()
    if len(leaves) == 1:
        return hashlib.sha256(b"\x00" + leaves[0]).digest()
    half = 1
    while half * 2 < len(leaves):
        half *= 2
    left, right = merkle_root(leaves[:half]), merkle_root(leaves[half:])
    return hashlib.sha256(b"\x01" + left + right).digest()


def root_from_path(leaf: bytes, index: int, size: int, path: list[bytes]) -> bytes | None:
    """The root that an audit path leads to, recursively; None where its length is wrong."""

    def climb(index: int, size: int, path: list[bytes]) -> bytes | None:
        if size == 1:
            return hashlib.sha256(b"\x00" + leaf).digest() if not path else None
        if not path:
            return None
        half = 1
        while half * 2 < size:
            half *= 2
        last = path[-1]
        if index < half:
            below = climb(index, half, path[:-1])
            pair = None if below is None else below + last
        else:
            below = climb(index - half, size - half, path[:-1])
            pair = None if below is None else last + below
        return None if pair is None else hashlib.sha256(b"\x01" + pair).digest()

    return climb(index, size, path) if 0 <= index < size else None


# --- Ed25519, RFC 8032, section 5.1 -------------------------------------------------------------

P = 2**255 - 19
ORDER = 2**252 + 27742317777372353535851937790883648493
D = -121665 * pow(121666, P - 2, P) % P
ROOT = pow(2, (P - 1) // 4, P)


def recover_x(y: int, sign: int) -> int | None:
    if y >= P:
        return None
    square = (y * y - 1) * pow(D * y * y + 1, P - 2, P) % P
    if square == 0:
        return None if sign else 0
    x = pow(square, (P + 3) // 8, P)
    if (x * x - square) % P:
        x = x * ROOT % P
    if (x * x - square) % P:
        return None
    return P - x if x & 1 != sign else x


def add(a: Point, b: Point) -> Point:
    """Points in extended coordinates (X : Y : Z : T)."""
    e = (a[1] - a[0]) * (b[1] - b[0]) % P
    f = (a[1] + a[0]) * (b[1] + b[0]) % P
    g = 2 * a[3] * b[3] * D % P
    h = 2 * a[2] * b[2] % P
    x, y, z, t = f - e, h - g, h + g, f + e
    return x * y % P, t * z % P, y * z % P, x * t % P


def times(scalar: int, point: Point) -> Point:
    total = (0, 1, 1, 0)
    while scalar:
        if scalar & 1:
            total = add(total, point)
        point = add(point, point)
        scalar >>= 1
    return total


def same(a: Point, b: Point) -> bool:
    return (a[0] * b[2] - b[0] * a[2]) % P == 0 and (a[1] * b[2] - b[1] * a[2]) % P == 0


def point_of(data: bytes) -> Point | None:
    y = int.from_bytes(data, "little")
    sign, y = y >> 255, y & ((1 << 255) - 1)
    x = recover_x(y, sign)
    return None if x is None else (x, y, 1, x * y % P)


BASE = point_of((4 * pow(5, P - 2, P) % P).to_bytes(32, "little"))


def signed(public: bytes, message: bytes, signature: bytes) -> bool:
    """Whether `signature` (64 bytes) of `message` was made with the key of `public` (32 bytes)."""
    if len(public) != 32 or len(signature) != 64:
        return False
    key, commitment = point_of(public), point_of(signature[:32])
    scalar = int.from_bytes(signature[32:], "little")
    if key is None or commitment is None or BASE is None or scalar >= ORDER:
        return False
    challenge = hashlib.sha512(signature[:32] + public + message).digest()
    challenge = int.from_bytes(challenge, "little") % ORDER
    return same(times(scalar, BASE), add(commitment, times(challenge, key)))


# --- reading ------------------------------------------------------------------------------------


def refuse(message: str) -> NoReturn:
    """What was asked cannot be done."""
    say(f"error: {message}", sys.stderr)
    sys.exit(2)


def say(text: str, stream: TextIO | None = None) -> None:
    """One line; what acts on a screen, or hides on it, is spelt, for a ledger may hold anything."""
    shown = (c if c.isascii() and c.isprintable() else ascii(c)[1:-1] for c in text)
    print("".join(shown), file=stream)


def lenient(raw: bytes) -> str:
    return raw.decode("utf-8", "surrogateescape")


def open_ledger(path: Path) -> sqlite3.Connection:
    """A connection that reads: the file itself, or a temporary database made from the lines."""
    place = path.absolute().as_uri()
    for mode in ("mode=ro", "mode=ro&immutable=1"):  # the second: on a disk of no writing
        # Not opened by anything else before: closing it would take away the locks of a program
        # that verifies a ledger while it writes to it.
        db = sqlite3.connect(f"{place}?{mode}", uri=True)
        db.text_factory = lenient
        try:
            there = {name for (name,) in db.execute("SELECT name FROM sqlite_master")}
            break
        except sqlite3.OperationalError:
            continue
        except sqlite3.DatabaseError:  # no SQLite file
            return from_lines(path)
    else:
        refuse(f"{path} cannot be read")
    if not there:  # an empty file
        return from_lines(path)
    if "event" not in there:
        refuse(f"{path} is a database, but no ledger")
    for table in set(TABLES) - there:  # a ledger from before checkpoints and erasures
        db.execute(f"CREATE TEMP TABLE {table} ({', '.join(TABLES[table])})")
    return db


def from_lines(path: Path) -> sqlite3.Connection:
    db = sqlite3.connect("")
    db.text_factory = lenient
    for table, columns in TABLES.items():
        db.execute(f"CREATE TABLE {table} ({', '.join(columns)})")
    heading = False
    with path.open(encoding="utf-8-sig") as lines:
        for number, line in enumerate(lines, 1):
            try:
                row = json.loads(line)
                columns = TABLES.get(row.get("table"))
                if number == 1:
                    heading = row.get("export") == "secateur" and row.get("complete") is True
                if columns is None:  # the heading, or a table that is derived
                    continue
                values = [row[name] for name in columns]
                if row["table"] == "blob":
                    values[1:] = [base64.b64decode(text, validate=True) for text in values[1:]]
            except (ValueError, KeyError, AttributeError, TypeError) as error:
                refuse(f"{path}, line {number}, is no row of a ledger: {error!r}")
            marks = ", ".join("?" * len(values))
            db.execute(f"INSERT INTO {row['table']} VALUES ({marks})", values)
    if not heading:
        refuse(f"{path} is no complete export: it begins with no heading that says so")
    index = {"event": "run_id, seq", "blob": "digest", "erasure": "run_id", "run": "id"}
    for table, columns in index.items():
        db.execute(f"CREATE INDEX {table}_by ON {table} ({columns})")
    return db


def rows(
    db: sqlite3.Connection, table: str, rest: str = "", parameters: tuple = ()
) -> Iterator[Row]:
    columns = TABLES[table]
    for row in db.execute(f"SELECT {', '.join(columns)} FROM {table} {rest}", parameters):
        yield dict(zip(columns, row, strict=True))


# --- triggers and views -------------------------------------------------------------------------


def plain(definition: str) -> str:
    """Without blanks and quotes that mean nothing."""
    text = " ".join(definition.replace('"', "").split())
    return re.sub(r"\s*([(),])\s*", r"\1", text)


def check_schema(db: sqlite3.Connection) -> list[str]:
    """What is wrong with tables, indexes, triggers and views; of lines there is nothing to say."""
    names = {name for (name,) in db.execute("SELECT name FROM main.sqlite_master")}
    if "alembic_version" not in names:
        return []
    revision = db.execute("SELECT version_num FROM alembic_version").fetchone()
    if revision != (REVISION,):
        return [f"triggers and views cannot be compared: this verifier knows revision {REVISION}"]
    there = {}
    for kind, name, table, sql in db.execute(
        "SELECT type, name, tbl_name, sql FROM main.sqlite_master WHERE sql IS NOT NULL"
    ):
        there[f"{kind} {name}" + (f" on {table}" if kind == "trigger" else "")] = sql
    wrong = []
    for thing, digest in SCHEMA.items():
        if thing not in there:
            wrong.append(f"the {thing} is missing")
        elif sha256(plain(there[thing]).encode("utf-8", "replace"))[:32] != digest:
            wrong.append(f"the {thing} was changed")
    added = [thing for thing in there if thing.startswith("trigger ") and thing not in SCHEMA]
    return wrong + [f"the {thing} was put in" for thing in added]


# --- one run ------------------------------------------------------------------------------------


def check_run(db: sqlite3.Connection, run: str, marks: dict[int, list]) -> int:
    """Follow a run's chain to its end; how many events there are. Raises Wrong."""
    row = next(rows(db, "run", "WHERE id = ?", (run,)), None)
    if row is None:
        raise Wrong("the run's row is missing")
    erasures = {each["digest"]: each for each in rows(db, "erasure", "WHERE run_id = ?", (run,))}
    expected, head, bound, start, gone = 0, ZEROS, "", {}, {}
    fates = Fates()
    for event in rows(db, "event", "WHERE run_id = ? ORDER BY seq", (run,)):
        seq = event["seq"]
        if seq != expected:
            raise Wrong(f"event {expected} is missing")
        try:
            hash = event_hash(event)
        except (TypeError, ValueError):
            hash = None
        if hash != event["hash"]:
            raise Wrong(f"event {seq} was changed: its hash is not that of its columns")
        if event["prev_hash"] != head:
            raise Wrong(f"event {seq} does not follow the event before it")
        for source, marked in marks.get(seq, ()):
            if marked != hash:
                raise Wrong(f"event {seq} is not the one that {source} signed")
        body, blobs = json.loads(event["body"]), json.loads(event["blobs"])
        if seq == 0:
            start = check_start(db, row, event, body, blobs)
            bound = sha256(canonical(start))
        elif event["kind"] == "resumed":
            for name in ("policy", "model", "tokenizer", "vocabulary"):
                if body["digests"][name] != start[name]:
                    raise Wrong(f"event {seq} resumes the run under another {name}")
            bound = sha256(canonical(body["digests"]))
        if event["digests"] != bound:
            raise Wrong(f"event {seq} is bound to other digests than its run")
        contents = {
            name: check_blob(db, seq, name, digest, erasures, gone)
            for name, digest in blobs.items()
        }
        if event["kind"] == "erased":
            check_erased(event, body, erasures, gone)
        fates.take(event, body, contents.get("arguments", b""))
        expected, head = seq + 1, hash
    if expected == 0:
        raise Wrong("all of its events are missing")
    for seq in sorted(marks):
        if seq >= expected:
            raise Wrong(f"events after {expected - 1} were cut off: {marks[seq][0][0]} has more")
    for seq, name in gone.values():
        raise Wrong(f"the bytes of the {name} of event {seq} are gone, and no event erased them")
    for each in erasures.values():
        raise Wrong(f"an erasure names event {each['seq']}, which erased no such blob")
    return expected


class Fates:
    """What became of a run's thoughts, event by event: who waits, what was cut, what is open."""

    def __init__(self) -> None:
        self.recorded: dict[str, int] = {}
        self.asks: set[str] = set()  # thoughts whose verdict asks for a person
        self.waits: dict[str, str] = {}  # thought: what a person decides on, "verdict" or "tool"
        # thought: its intent, the tool, and the digest of tool and arguments (or None)
        self.calls: dict[str, tuple[int, str, str | None]] = {}
        self.judged: dict[str, str] = {}  # the digest of the call that a thought was judged for
        self.open: set[str] = set()  # calls without an end
        self.decided: set[str] = set()
        self.barred: set[str] = set()  # cut, refused or waiting, and all below
        self.freed: dict[str, int] = {}  # approved, by which event

    def take(self, event: Row, body: Row, arguments: bytes = b"") -> None:
        """Raises Wrong for what the events before do not allow."""
        kind, seq, id = event["kind"], event["seq"], event["thought_id"]
        if kind in ("decided", "erased"):
            actor = event["actor"]
            if not actor.startswith("person:") or not actor[len("person:") :].strip():
                raise Wrong(f"event {seq} says that {actor!r} {kind}, which names no person")
        if kind in ("judged", "placed"):
            self.record(event, body)
        elif kind == "selected":
            for dropped in body["dropped"]:
                self.waits.pop(dropped, None)
        elif kind == "tool_intended":
            tool = body["tool"]
            spelt = b"[" + canonical(tool) + b"," + arguments + b"]"
            self.calls[id] = (seq, tool, sha256(spelt) if arguments else None)
            self.open.add(id)
        elif kind == "tool_returned":
            if id not in self.calls or self.calls[id][1] != body["tool"]:
                raise Wrong(f"event {seq} is the end of a call that nothing intended")
            self.open.discard(id)
        elif kind == "escalated":
            if id in self.asks and id not in self.decided:
                self.waits[id] = "verdict"
                self.barred.add(id)
            elif id not in self.waits and id not in self.open and id not in self.decided:
                raise Wrong(f"event {seq} escalates thought {id}, which no verdict escalated")
        elif kind == "decided":
            self.decide(seq, id, body)

    def record(self, event: Row, body: Row) -> None:
        seq, id, status, verdict = event["seq"], event["thought_id"], body["status"], None
        if id in self.recorded:
            raise Wrong(f"event {seq} records thought {id} again: event {self.recorded[id]} did")
        self.recorded[id] = seq
        if body["judgement"] is not None:
            verdict = body["judgement"]["action"]
        if status == "kept" and verdict not in (None, "allow", "flag"):
            raise Wrong(f"event {seq} keeps thought {id}, whose verdict is {verdict}")
        if "call" in body:
            self.judged[id] = body["call"]["digest"]
        if event["kind"] == "judged" and verdict == "escalate":
            self.asks.add(id)
        if status == "escalated":
            if id in self.asks:
                self.waits[id] = "verdict"
            elif event["kind"] == "placed" and id in self.open:
                self.waits[id] = "tool"
            elif id not in self.decided:
                raise Wrong(f"event {seq} lets thought {id} wait, which nothing escalated")
        if event["kind"] == "placed" and id in self.calls:
            intent, tool, call = self.calls[id]
            if body["acted"] != tool:
                raise Wrong(f"event {seq} says that another tool was called than event {intent}")
            for parent in body["parents"]:
                if parent in self.barred or self.freed.get(parent, -1) > intent:
                    raise Wrong(
                        f"event {intent} calls {tool} below thought {parent}, which was cut or "
                        "waited for a person"
                    )
                if call is not None and self.judged.get(parent, call) != call:
                    raise Wrong(
                        f"event {intent} calls {tool} otherwise than {parent} was judged for"
                    )
        if id in self.decided:
            return
        if status in ("pruned", "escalated") or not self.barred.isdisjoint(body["parents"]):
            self.barred.add(id)

    def decide(self, seq: int, id: str, body: Row) -> None:
        if id in self.decided:
            raise Wrong(f"event {seq} decides on thought {id}, on which a person decided already")
        about = body["about"]
        if not (id in self.open if about == "tool" else self.waits.get(id) == about):
            raise Wrong(f"event {seq} decides on thought {id}, which did not wait for a person")
        if about == "verdict" and body.get("call") not in (None, self.judged.get(id)):
            raise Wrong(f"event {seq} decides on another call than thought {id} was judged for")
        self.decided.add(id)
        self.waits.pop(id, None)
        self.open.discard(id)
        if body["approve"] and body["outcome"] != "not done":
            self.barred.discard(id)
            self.freed[id] = seq
        else:
            self.barred.add(id)


def check_start(db: sqlite3.Connection, row: Row, event: Row, body: Row, blobs: Row) -> Row:
    """Event 0 against the run's row and its policy; the digests that the run is bound to."""
    if event["kind"] != "run_started":
        raise Wrong("event 0 does not start the run")
    said = {"id": event["run_id"], "task": blobs.get("task"), "started_at": event["at"]}
    for name in ("agent", "context", "seed", "policy", "engine", "model"):
        said[name] = body[name]
    said["digests"] = canonical(body["digests"]).decode()
    for name in TABLES["run"]:
        if row[name] != shown(said[name]):
            raise Wrong(f"the run's row was changed: {name} differs from event 0")
    policy = next(rows(db, "policy", "WHERE digest = ?", (row["policy"],)), None)
    if policy is None:
        raise Wrong(f"policy {row['policy'][:12]} is missing")
    if sha256(policy["body"].encode()) != row["policy"]:
        raise Wrong(f"policy {row['policy'][:12]} was changed")
    if shown(json.loads(policy["body"])["name"]) != policy["name"]:
        raise Wrong(f"policy {row['policy'][:12]} has another name")
    return body["digests"]


def check_blob(
    db: sqlite3.Connection, seq: int, name: str, digest: str, erasures: Row, gone: Row
) -> bytes:
    """The bytes; empty where they were erased."""
    blob = next(rows(db, "blob", "WHERE digest = ?", (digest,)), None)
    if blob is None:
        raise Wrong(f"the {name} of event {seq} is missing")
    try:
        if blob_digest(blob["salt"], blob["bytes"]) == digest:
            return blob["bytes"]
    except TypeError:
        pass  # not bytes
    if blob["salt"] or blob["bytes"]:
        raise Wrong(f"the {name} of event {seq} was changed")
    if digest not in erasures:
        raise Wrong(f"the bytes of the {name} of event {seq} are gone, and no erasure says why")
    gone[digest] = (seq, name)
    return b""


def check_erased(event: Row, body: Row, erasures: Row, gone: Row) -> None:
    for digest, said in body["blobs"].items():
        what = f"the {said['name']} of event {said['seq']}"
        row = erasures.pop(digest, None)
        if row is None or (row["seq"], row["at"]) != (event["seq"], event["at"]):
            raise Wrong(f"event {event['seq']} erased {what}, and its erasure row does not say so")
        if gone.pop(digest, None) != (said["seq"], said["name"]):
            raise Wrong(f"event {event['seq']} erased {what}, but its bytes are there")


# --- checkpoints --------------------------------------------------------------------------------

BODY = ("number", "at", "runs", "events", "root", "previous", "key")


def check_signed(body: Row, signature: str, name: str) -> None:
    """`body` is the signed object. Raises Wrong."""
    try:
        key, sign = bytes.fromhex(body["key"]), bytes.fromhex(signature)
    except (ValueError, TypeError, KeyError):
        raise Wrong(f"{name} cannot be read") from None
    # bytes.fromhex passes over blanks and capitals; what was stored has neither.
    if (key.hex(), sign.hex()) != (body["key"], signature):
        raise Wrong(f"{name} is written in another way")
    if set(body) - {"verified"} != set(BODY) or not signed(key, canonical(body), sign):
        raise Wrong(f"{name}: its signature does not match")


def check_heads(body: Row, heads: list, name: str) -> None:
    """The leaves against the root that was signed. Raises Wrong."""
    if heads != sorted(heads) or len({run for run, _, _ in heads}) != body["runs"]:
        raise Wrong(f"{name}: its heads are not those of {body['runs']} runs")
    if sum(seq + 1 for _, seq, _ in heads) != body["events"]:
        raise Wrong(f"{name}: its heads are not those of {body['events']} events")
    if merkle_root([canonical(head) for head in heads]).hex() != body["root"]:
        raise Wrong(f"{name}: its heads do not make its root")


def check_checkpoints(db: sqlite3.Connection, key: str | None, marks: Marks) -> None:
    """The ledger's own: each follows the one before, is signed, and has its tree."""
    expected, previous = 1, ZEROS
    for row in rows(db, "checkpoint", "ORDER BY number"):
        name = f"checkpoint {row['number']}"
        if row["number"] != expected:
            raise Wrong(f"checkpoint {expected} is missing")
        body = {column: row[column] for column in BODY}
        if "verified" in (said := json.loads(row["body"])):  # absent in those of version 0.1
            body["verified"] = said["verified"]
        if canonical(body).decode() != row["body"]:
            raise Wrong(f"{name}: its columns are not what was signed")
        if body["previous"] != previous:
            raise Wrong(f"{name} does not follow the one before")
        check_signed(body, row["signature"], name)
        check_key(body, key, name)
        heads = json.loads(row["heads"])
        check_heads(body, heads, name)
        if canonical(heads).decode() != row["heads"]:
            raise Wrong(f"{name}: its heads are written in another way")
        add_marks(marks, heads, name)
        expected, previous = expected + 1, sha256(row["body"].encode())


def check_key(body: Row, key: str | None, name: str) -> None:
    if key is not None and body["key"] != key:
        raise Wrong(f"{name} is signed with another key, {body['key']}")


def check_kept(db: sqlite3.Connection, kept: Row, key: str | None, marks: Marks) -> None:
    """A checkpoint that was kept elsewhere: still in the ledger, and signed."""
    body, name = kept["body"], f"the kept checkpoint {kept['body']['number']}"
    check_signed(body, kept["signature"], name)
    check_key(body, key, name)
    heads = kept.get("heads")
    row = next(rows(db, "checkpoint", "WHERE number = ?", (body["number"],)), None)
    if heads is None and row is not None:
        heads = json.loads(row["heads"])
    if heads is not None:
        check_heads(body, heads, name)
        add_marks(marks, heads, name)
    if body["number"] == 0:  # made outside, never recorded
        if heads is None:
            raise Wrong(f"{name} names no heads, and the ledger never held it")
        return
    if row is None:
        raise Wrong(f"{name} is not in the ledger any more")
    if row["body"] != canonical(body).decode():
        raise Wrong(f"{name} is not the one that the ledger holds")


def add_marks(marks: Marks, heads: list, source: str) -> None:
    for run, seq, hash in heads:
        marks.setdefault(run, {}).setdefault(seq, []).append((source, hash))


def check_proof(proof: Row, key: str | None) -> list:
    """That one run's head is under a checkpoint's root. Raises Wrong."""
    body = proof["checkpoint"]["body"]
    name = f"the proof under checkpoint {body['number']}"
    check_signed(body, proof["checkpoint"]["signature"], name)
    check_key(body, key, name)
    path = [bytes.fromhex(step) for step in proof["path"]]
    found = root_from_path(canonical(proof["head"]), proof["index"], body["runs"], path)
    if found is None or found.hex() != body["root"]:
        raise Wrong(f"{name} does not lead to its root")
    return proof["head"]


# --- all of it ----------------------------------------------------------------------------------


def verify(
    db: sqlite3.Connection,
    run: str | None = None,
    kept: Row | None = None,
    proof: Row | None = None,
    key: str | None = None,
) -> tuple[int, int, list[tuple[str | None, str]]]:
    """What was read, and all that is wrong: (events, runs, [(run or None, reason)])."""
    events = 0
    wrong: list[tuple[str | None, str]] = []
    marks: Marks = {}
    checks = [lambda: check_checkpoints(db, key, marks)]
    if kept is not None:
        checks.append(lambda: check_kept(db, kept, key, marks))
    if proof is not None:
        checks.append(lambda: add_marks(marks, [check_proof(proof, key)], "the proof"))
    for check in checks:
        try:
            check()
        except Wrong as bad:
            wrong.append((None, str(bad)))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            wrong.append((None, f"a checkpoint cannot be read: {error!r}"))
    wrong += [(None, fault) for fault in check_schema(db)]
    there = {id for (id,) in db.execute("SELECT id FROM run UNION SELECT run_id FROM event")}
    wanted = [run] if run is not None else sorted(there | set(marks))
    for each in wanted:
        try:
            if each not in there:
                source = next(iter(marks[each].values()))[0][0] if each in marks else None
                raise Wrong("the run is missing" + (f": {source} has it" if source else ""))
            events += check_run(db, each, marks.get(each, {}))
        except Wrong as bad:
            wrong.append((each, str(bad)))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            wrong.append((each, f"it cannot be read: {error!r}"))
    return events, len(wanted), wrong


def read_json(path: str, what: str) -> Row:
    try:
        found = json.loads(Path(path).read_text(encoding="utf-8-sig"))
        if not isinstance(found, dict) or not str(found.get("format")).startswith("secateur-"):
            raise ValueError("another format")
    except (OSError, ValueError) as error:
        refuse(f"{path} is no {what}: {error}")
    return found


def some(number: int, thing: str) -> str:
    return f"{number} {thing}" + ("" if number == 1 else "s")


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Verify a Secateur ledger, without Secateur.")
    parser.add_argument("ledger", type=Path, help="a SQLite file, or an export in JSON lines")
    parser.add_argument("--run", help="only this run")
    parser.add_argument("--checkpoint", help="a checkpoint that was kept elsewhere")
    parser.add_argument("--proof", help="a proof that a run is under a checkpoint")
    parser.add_argument("--key", help="the public key that checkpoints must be signed with")
    given = parser.parse_args(arguments)
    key = given.key
    if key is not None and Path(key).is_file():
        key = Path(key).read_text(encoding="utf-8-sig")
    kept = read_json(given.checkpoint, "checkpoint") if given.checkpoint else None
    proof = read_json(given.proof, "proof") if given.proof else None
    if not given.ledger.is_file():
        refuse(f"there is no file {given.ledger}")
    db = open_ledger(given.ledger)
    key = None if key is None else key.strip().lower()
    events, runs, wrong = verify(db, given.run, kept, proof, key)
    for run, reason in wrong:
        say(f"damaged: {'' if run is None else f'run {run}: '}{reason}")
    if not wrong:
        told = "is as it was" if events == 1 else "are as they were"
        print(f"fine: {some(events, 'event')} of {some(runs, 'run')} {told} written")
    for name, said in (("checkpoint", kept), ("proof", proof and proof["checkpoint"])):
        if said is not None:
            how = "" if said["body"].get("verified") else ", without verifying what was new"
            say(f"the {name} of {said['body']['at']} is signed with {said['body']['key']}{how}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
