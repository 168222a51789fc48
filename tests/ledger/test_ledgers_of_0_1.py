"""Ledgers that version 0.1 wrote open, verify, replay and go on, on both databases.

``of_0_1/record.py`` made them: runs that are done, wait for a person, were decided on, and were
killed in a thought and in a tool, with what version 0.1 itself made of them in the end.
"""

import gzip
import importlib.util
import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from secateur import AuditLog, Ledger, LocalEngine
from secateur.runtime.executor.session import RunResult
from secateur.runtime.review.decisions import decide

HERE = Path(__file__).parent / "of_0_1"
TOLD = json.loads((HERE / "told.json").read_text())


@dataclass(frozen=True)
class Old:
    """A copy of a ledger of version 0.1."""

    url: str
    kind: str
    sandbox: Path

    def run(self, name: str) -> str:
        """The id of a run, by what became of it."""
        return TOLD["runs"][self.kind][name]

    async def resume(self, name: str, engine: LocalEngine, agents: ModuleType) -> RunResult:
        """Go on with a run, with the agent that it is of."""
        agent = agents.RESUMED.get(name, agents.stamper)
        sandbox = self.sandbox / name
        return await agent.resume(self.run(name), engine=engine, ledger=self.url, sandbox=sandbox)


@pytest.fixture(params=["sqlite", "postgresql"])
def old(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Old]:
    """Each test gets a copy of its own."""
    if request.param == "sqlite":
        path = tmp_path / "ledger.db"
        with gzip.open(HERE / "sqlite.db.gz") as packed, path.open("wb") as plain:
            shutil.copyfileobj(packed, plain)
        yield Old(str(path), request.param, tmp_path / "sandbox")
        return
    server = request.getfixturevalue("postgres")
    name = server.database()
    dump = gzip.decompress((HERE / "postgresql.sql.gz").read_bytes()).decode()
    server.execute(dump, database=name)
    yield Old(server.url(name), request.param, tmp_path / "sandbox")
    server.drop(name)


@pytest.fixture(scope="module")
def agents() -> ModuleType:
    """The agents of those runs, as a user's file would bring them."""
    spec = importlib.util.spec_from_file_location("agents_of_0_1", HERE / "agents.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
async def small() -> Any:
    """The model of those runs."""
    engine = LocalEngine.load(HERE / "model")
    yield engine
    await engine.aclose()


def test_it_verifies(old: Old):
    with AuditLog(old.url) as audit:
        found = audit.verify()
    assert found.ok, found
    assert found.runs == len(TOLD["runs"][old.kind])


def test_every_verdict_is_given_again_from_its_evidence(old: Old, secateur):
    for name in TOLD["runs"][old.kind]:
        code, out, err = secateur("audit", "replay", old.run(name), "--db", old.url, "--json")
        assert (code, json.loads(out)) == (0, []), (name, err)


def test_every_thought_can_be_explained(old: Old, secateur):
    with AuditLog(old.url) as audit:
        thoughts = [
            (run.run, thought.id) for run in audit.runs() for thought in audit.thoughts(run.run)
        ]
    for run, thought in thoughts:
        words = ("audit", "why", thought, "--run", run, "--db", old.url, "--json")
        code, _out, err = secateur(*words)
        assert code == 0, err


@pytest.mark.parametrize("name", TOLD["resumed"])
async def test_a_run_ends_as_version_0_1_would_have_ended_it(
    old: Old, name: str, small: LocalEngine, agents: ModuleType
):
    done = await old.resume(name, small, agents)
    told = TOLD["resumed"][name]
    thoughts = sorted([t.id, t.status.value, t.text] for t in done.thoughts)
    assert (done.status.value, done.answer, thoughts) == (
        told["status"],
        told["answer"],
        told["thoughts"],
    )
    with AuditLog(old.url) as audit:
        assert audit.verify().ok


async def test_what_waited_for_a_person_is_decided_and_done(
    old: Old, small: LocalEngine, agents: ModuleType
):
    with AuditLog(old.url) as audit:
        waits = [one.thought for one in audit.waiting() if one.run == old.run("waiting")]
    assert len(waits) == 1
    async with Ledger.open(old.url) as ledger:
        await decide(
            ledger, waits[0], run=old.run("waiting"), approve=True, by="ada", reason="I looked"
        )
    done = await old.resume("waiting", small, agents)
    assert (done.status.value, done.answer) == ("done", "stamped")
    with AuditLog(old.url) as audit:
        assert audit.verify().ok
