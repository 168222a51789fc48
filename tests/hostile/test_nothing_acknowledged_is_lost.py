"""A SQLite ledger keeps its locks, its log and its privacy, whoever opens it beside whom."""

import asyncio
import json
import os
import signal
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from shutil import which

import pytest

from secateur import Agent, Policy, generate
from secateur.runtime.ledger import connect
from secateur.runtime.ledger.errors import LedgerError
from secateur.runtime.ledger.integrity import verifier
from secateur.runtime.ledger.ledger import Ledger
from secateur.runtime.ledger.reading.audit import AuditLog

LOCKS = Path("/proc/locks")

CROWD = """
import asyncio, sys
from secateur.gates.evidence import Evidence
from secateur.gates.policy import Policy
from secateur.gates.vocabulary import BoundVocabulary, Tag, Vocabulary
from secateur.runtime.engines.protocol import EngineInfo
from secateur.runtime.ledger.events import RunStart
from secateur.runtime.ledger.ledger import Ledger, new_run_id

tag = Tag(name="deceit", open="<|deceit|>", close="<|/deceit|>")
words = BoundVocabulary(Vocabulary(name="v", tags=(tag,)), {tag.open: 1, tag.close: 2})
info = EngineInfo(engine="e", model="m", model_digest="a" * 64, tokenizer_digest="b" * 64,
                  vocabulary=words, context_length=128)

async def visit(stay):
    async with Ledger.open(sys.argv[1]) as ledger:
        run = new_run_id()
        log = await ledger.start(RunStart(run=run, agent="a", task="t", context=None, seed=1,
            policy=Policy.load("prune"), engine=info, options={}))
        for number in range(1, stay + 1):
            await log.intend_tool(f"t{number}", "append", {"line": number})
            print(f"{run} {number}", flush=True)

async def visits(stay):
    while True:
        await visit(stay)

async def main():
    await asyncio.gather(visits(1), visits(3), visits(7))

asyncio.run(main())
"""
"""A process with three runs at once, each with a ledger of its own, that come and go."""


def locks(path: Path) -> list[str]:
    """What this process has locked of a file, as the kernel says."""
    found = path.stat()
    device = f"{os.major(found.st_dev):02x}:{os.minor(found.st_dev):02x}"
    return [
        line.partition(": ")[2]
        for line in LOCKS.read_text().splitlines()
        if f" {os.getpid()} {device}:{found.st_ino} " in line
    ]


@pytest.fixture
def held(tmp_path: Path) -> Iterator[Path]:
    """A ledger that this process has open, with its lock."""
    if not LOCKS.exists():
        pytest.skip("no /proc/locks here")
    path = tmp_path / "held.db"
    engine = connect.open_or_create(path)
    with engine.connect():
        assert locks(path)
        yield path
        assert locks(path), "the lock is gone"
    engine.dispose()


def audited(path: Path) -> None:
    with AuditLog(path) as audit:
        audit.runs()
        audit.verify()
        audit.to_jsonl(path.with_name("out.jsonl"), complete=True)


ELSE = {
    "open it again": lambda path: connect.open_or_create(path).dispose(),
    "open it to read": lambda path: connect.open_existing(path).dispose(),
    "ask its revision": lambda path: connect.revision(path),
    "upgrade it": lambda path: connect.upgrade(path),
    "audit and export it": audited,
    "verify it alone": lambda path: verifier.open_ledger(path).close(),
}


@pytest.mark.parametrize("what", ELSE)
def test_what_else_a_process_does_with_a_ledger_leaves_its_locks(held: Path, what: str) -> None:
    before = locks(held)
    ELSE[what](held)
    assert locks(held) == before


@pytest.mark.parametrize(
    "words",
    [
        ("audit", "runs"),
        ("audit", "verify"),
        ("audit", "export", "--all", "--complete", "--out", "all.jsonl"),
        ("audit", "sql", "SELECT 1"),
        ("audit", "search", "word"),
        ("audit", "checkpoint", "--key", "key", "--out", "checkpoint.json"),
        ("db", "current"),
        ("db", "upgrade"),
        ("db", "rebuild"),
    ],
    ids=" ".join,
)
def test_no_command_takes_away_the_locks(
    held: Path, secateur, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...]
) -> None:
    monkeypatch.chdir(held.parent)
    before = locks(held)
    code, _, err = secateur(*words, "--db", held)
    assert code == 0, err
    assert locks(held) == before


@pytest.mark.parametrize(
    "words",
    [
        ("audit", "export", "--all", "--out", "{}"),
        ("audit", "export", "--all", "--format", "parquet", "--out", "{}"),
        ("audit", "checkpoint", "--key", "key", "--out", "{}"),
        ("audit", "checkpoint", "--key", "{}"),
        ("audit", "tree", "none", "--svg", "{}"),
        ("audit", "tree", "none", "--mermaid", "{}-wal"),
    ],
    ids=" ".join,
)
def test_no_command_writes_over_the_ledger(
    held: Path, secateur, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...]
) -> None:
    monkeypatch.chdir(held.parent)
    code, _, err = secateur(*(word.format(held) for word in words), "--db", held)
    assert code != 0
    assert "is the ledger itself" in err
    assert len(err.strip().splitlines()) == 1
    with AuditLog(held) as audit:
        assert audit.runs() == []


def test_runs_beside_each_other_and_beside_a_process_that_leaves_lose_nothing(
    scripted, tmp_path: Path
) -> None:
    path = tmp_path / "x.db"
    leaving = (
        "import sys; from secateur.runtime.ledger import connect; "
        "connect.open_or_create(sys.argv[1]).dispose()"
    )

    async def answer() -> str:
        # While this run is open, another of the process was, and a process comes and leaves.
        await asyncio.to_thread(
            subprocess.run, [sys.executable, "-c", leaving, str(path)], check=True
        )
        return "done"

    policy = Policy.from_yaml(
        "name: p\nrules: [{tag: deceit, reading: opened, at: 0.5, action: prune}]"
    )
    agent = Agent("beside", plan=generate("{task}"), policy=policy)

    async def both() -> list[str]:
        slow = asyncio.create_task(
            agent.run("slow", engine=scripted(lambda _: answer()), ledger=path)
        )
        quick = await agent.run("quick", engine=scripted(lambda _: "done"), ledger=path)
        return [quick.run_id, (await slow).run_id]

    runs = asyncio.run(both())
    with AuditLog(path) as audit:
        assert {row.run: row.status for row in audit.runs()} == dict.fromkeys(runs, "done")
        assert audit.verify().ok


def test_crowds_of_processes_that_are_killed_lose_nothing(tmp_path: Path) -> None:
    path = tmp_path / "crowded.db"
    acknowledged: dict[str, int] = {}
    killed = 0
    for _ in range(3):
        crowd = [
            subprocess.Popen(
                [sys.executable, "-c", CROWD, str(path)], stdout=subprocess.PIPE, text=True
            )
            for _ in range(3)
        ]
        for lines, child in enumerate(crowd, 1):
            assert child.stdout is not None
            for _ in range(12 * lines):
                line = child.stdout.readline()
                assert line, "a process ended by itself"
                run, seq = line.split()
                acknowledged[run] = int(seq)
            child.send_signal(signal.SIGKILL)
            for line in child.stdout.read().splitlines(keepends=True):
                if line.endswith("\n"):
                    run, seq = line.split()
                    acknowledged[run] = int(seq)
            child.wait()
            killed += 1
    with closing(sqlite3.connect(path)) as connection:
        found = dict(connection.execute("SELECT run_id, max(seq) FROM event GROUP BY run_id"))
    lost = {run: seq for run, seq in acknowledged.items() if found.get(run, -1) < seq}
    assert killed == 9
    assert lost == {}
    with AuditLog(path) as audit:
        assert audit.verify().ok


@pytest.fixture(params=[0o022, 0o000, 0o077], ids="{:03o}".format)
def umask(request: pytest.FixtureRequest) -> Iterator[int]:
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def mode(path: Path) -> str:
    return f"{stat.S_IMODE(path.stat().st_mode):o}"


def test_a_new_ledger_and_what_is_beside_it_is_its_owners_alone(umask: int, tmp_path) -> None:
    path = tmp_path / "ä new%20one.db"
    engine = connect.open_or_create(path)
    with engine.connect():
        modes = {each.name: mode(each) for each in tmp_path.iterdir()}
    engine.dispose()
    assert modes == {path.name: "600", f"{path.name}-wal": "600", f"{path.name}-shm": "600"}


def test_a_new_ledger_is_nobody_elses_for_a_moment(tmp_path: Path) -> None:
    """Seen by the kernel's own record of every call that makes or changes a file."""
    if which("strace") is None:
        pytest.skip("strace is not installed")
    path = tmp_path / "x.db"
    script = (
        "import os, sys; from secateur.runtime.ledger import connect; os.umask(0); "
        "connect.open_or_create(sys.argv[1])"
    )
    watch = ["strace", "-f", "-e", "trace=open,openat,creat,mknod,mknodat"]
    done = subprocess.run(
        [*watch, sys.executable, "-c", script, str(path)], capture_output=True, text=True
    )
    made = [line for line in done.stderr.splitlines() if str(path) in line and "O_CREAT" in line]
    assert any(f'{path}"' in line for line in made)
    assert any(f'{path}-wal"' in line for line in made)
    assert all(line.count(", 0600)") == 1 for line in made), made


def test_the_mode_of_a_ledger_that_is_there_is_left_alone(umask: int, tmp_path: Path) -> None:
    for given in (0o640, 0o644, 0o660):
        path = tmp_path / f"{given:o}.db"
        path.touch()
        path.chmod(given)
        engine = connect.open_or_create(path)
        with engine.connect():
            beside = [path, Path(f"{path}-wal"), Path(f"{path}-shm")]
            assert [mode(each) for each in beside] == [f"{given:o}"] * 3
        engine.dispose()


def test_an_export_is_its_owners_alone_and_one_that_is_there_keeps_its_mode(
    umask: int, tmp_path: Path
) -> None:
    path = tmp_path / "x.db"
    connect.open_or_create(path).dispose()
    out, steps = tmp_path / "out.jsonl", tmp_path / "steps.parquet"
    with AuditLog(path) as audit:
        audit.to_jsonl(out)
        assert mode(out) == "600"
        out.chmod(0o640)
        audit.to_jsonl(out)
        assert mode(out) == "640"
        pytest.importorskip("pyarrow")
        audit.to_parquet(steps)
        assert mode(steps) == "600"


def test_a_sandbox_and_a_signing_key_are_their_owners_alone(
    umask: int, secateur: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    connect.open_or_create(tmp_path / "x.db").dispose()
    code, _, err = secateur("audit", "checkpoint", "--key", "a.key", "--db", "x.db")
    assert code == 0, err
    assert mode(tmp_path / "a.key") == "600"
    code, out, err = secateur(
        "run", "opsdesk", "restart web and confirm it is up", "--db", "x.db", "--json"
    )
    assert code == 0, err
    assert mode(tmp_path / "sandbox" / json.loads(out)["run"]) == "700"


@pytest.mark.parametrize("name", ["a\0b.db", "x" * 300, "fifo"])
def test_a_place_that_cannot_be_a_ledger_is_refused_in_one_line(tmp_path: Path, name: str) -> None:
    if name == "fifo":
        os.mkfifo(tmp_path / name)
    for open_it in (Ledger.open, AuditLog):
        with pytest.raises(LedgerError) as error:
            open_it(f"{tmp_path}/{name}")
        assert len(str(error.value).splitlines()) == 1
