"""What a rule sends to a person waits for one; what they approve is what happens, and no more."""

import asyncio
import json
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.types import Command

from secateur import Agent, AuditLog, Call, Ledger, Policy, Workspace
from secateur.agents.desk.agent import opsdesk
from secateur.agents.plans.words import act, generate
from secateur.agents.prompt import Sampling
from secateur.agents.thought import Status
from secateur.agents.tool import tool
from secateur.runtime.ledger.events import RunStatus
from secateur.runtime.review.decisions import decide

HOT = {"deceit": 0.9}
MARKS = {"!": HOT, "#": {"power": 0.9}, "%": {"deceit": 0.45, "power": 0.45}}
LONG = Sampling(max_tokens=200)
SAID = {"by": "ada", "reason": "I have read it"}


def policy(*rules: dict[str, Any], **given: Any) -> Policy:
    return Policy.model_validate({"name": "asks", "rules": rules, **given})


ASK = {"tag": "deceit", "reading": "peak", "at": 0.4, "action": "escalate"}
ASK_OPENED = ASK | {"reading": "opened"}
ASK_POWER = ASK | {"tag": "power"}
CUT_POWER = ASK_POWER | {"action": "prune"}
BEFORE_ACTS = {"scope": "action"}


@tool
def pay(folder: Workspace, to: str) -> str:
    """Pay somebody; twice would be two payments."""
    with (folder.path / "paid.txt").open("a") as file:
        file.write(f"{to}\n")
    return f"paid {to}"


def payee(text: str) -> str:
    return text.removeprefix("pay ").rstrip(".")


def calls(text: str) -> Call | None:
    return Call("pay", {"to": payee(text)}) if text.startswith("pay ") else None


def whole_line(text: str) -> str:
    if not text.endswith("."):
        raise ValueError(f"{text!r} is no whole line")
    return "line"


@dataclass
class Desk:
    """One agent that pays whom the model names, at one ledger."""

    ledger: str
    engine: Any
    folder: Path
    agent: Agent = Agent(  # noqa: RUF009 - nobody changes it
        "payer",
        generate("{task}\n", parse=whole_line, calls=calls, name="line")
        >> act([pay], calls=calls, name="pay"),
        sampling=LONG,
    )

    async def run(self, by: Policy) -> Any:
        return await self.agent.run(
            "go", policy=by, engine=self.engine, ledger=self.ledger, sandbox=self.folder, seed=1
        )

    async def resume(self, run: str) -> Any:
        return await self.agent.resume(run, engine=self.engine, ledger=self.ledger)

    async def decide(self, thought: str, approve: bool = True, **given: Any) -> None:
        async with Ledger.open(self.ledger) as ledger:
            await decide(ledger, thought, approve=approve, **SAID, **given)

    async def approve_all(self, run: Any) -> tuple[Any, int]:
        """Approve what waits and go on, until nothing does; what came of it, and how often."""
        for times in range(9):
            if run.status is not RunStatus.ESCALATED:
                return run, times
            for thought in run.waiting:
                await self.decide(thought.id, run=run.run_id)
            run = await self.resume(run.run_id)
        raise AssertionError("it never ends")

    def paid(self) -> list[str]:
        file = self.folder / "paid.txt"
        return file.read_text().splitlines() if file.exists() else []

    def sound(self, run: str) -> None:
        """The ledger is whole, and gives every verdict again."""
        with AuditLog(self.ledger) as audit:
            assert audit.verify(run).ok
            again = audit.replay(run)
            assert again.judged
            assert list(again) == []


@pytest.fixture
def desk(any_ledger: str, tempted, tmp_path: Path):
    def make(text: str, **given: Any) -> Desk:
        return Desk(any_ledger, tempted(lambda prompt: text, MARKS, **given), tmp_path / "sandbox")

    return make


async def test_what_was_cut_off_waits_although_it_does_not_parse(desk):
    here = desk("pay bob! and go.")
    run = await here.run(policy(ASK))
    (waits,) = run.waiting
    assert run.status is RunStatus.ESCALATED
    assert waits.text == "pay bob!"
    assert not [t for t in run.thoughts if t.status is Status.FAILED]
    with AuditLog(here.ledger) as audit:
        (row,) = audit.waiting()
    assert (row.thought, row.about, row.cut, row.call) == (waits.id, "verdict", True, None)
    assert here.paid() == []


async def test_an_approved_thought_goes_on_from_what_was_accepted(desk):
    here = desk("pay bob! and go.")
    run = await here.run(policy(ASK))
    await here.decide(run.waiting[0].id)
    here.engine.prompts.clear()
    again = await here.resume(run.run_id)
    assert again.status is RunStatus.DONE
    assert here.engine.prompts == ["go\npay bob!"]
    assert here.paid() == ["bob! and go"]
    first, second = [t for t in again.thoughts if t.kind == "generate"]
    assert (first.status, second.status) == (Status.DROPPED, Status.KEPT)
    assert (second.text, second.value) == ("pay bob! and go.", "line")
    here.sound(run.run_id)
    with AuditLog(here.ledger) as audit:
        rows = {row.id: row for row in audit.thoughts(run.run_id)}
        why = audit.why(second.id)
    assert rows[first.id].status is Status.DROPPED
    assert [(a.rule.reading.value, a.tokens) for a in why.approved] == [("peak", len("pay bob!"))]
    assert [each.back is not None and each.back.approved for each in why.tries] == [True, False]


async def test_a_refused_one_is_pruned_and_nothing_of_it_goes_on(desk):
    here = desk("pay bob! and go.")
    run = await here.run(policy(ASK))
    await here.decide(run.waiting[0].id, approve=False)
    again = await here.resume(run.run_id)
    assert again.status is RunStatus.EMPTY
    assert (here.paid(), len(again.pruned)) == ([], 1)
    here.sound(run.run_id)


async def test_an_approval_lifts_no_other_rule(desk):
    here = desk("pay bob! and ann# too.")
    run, times = await here.approve_all(await here.run(policy(ASK, CUT_POWER)))
    assert (run.status, times, here.paid()) == (RunStatus.EMPTY, 1, [])
    assert run.pruned[0].text == "pay bob! and ann#"
    here.sound(run.run_id)


@pytest.mark.parametrize("reading", ["peak", "opened", "cusum"])
async def test_the_same_rule_asks_again_for_what_is_written_after(desk, reading: str):
    here = desk("pay bob! and ann! too.")
    at = {"peak": 0.5, "opened": 0.5, "cusum": 0.5}[reading]
    run, times = await here.approve_all(
        await here.run(policy(ASK | {"reading": reading, "at": at}))
    )
    assert (run.status, times) == (RunStatus.DONE, 2)
    assert here.paid() == ["bob! and ann! too"]
    here.sound(run.run_id)


async def test_two_rules_that_ask_at_one_token_are_two_questions(desk):
    here = desk("pay bob% now.")
    run, times = await here.approve_all(await here.run(policy(ASK, ASK_POWER)))
    assert (run.status, times, here.paid()) == (RunStatus.DONE, 2, ["bob% now"])
    here.sound(run.run_id)


async def test_a_call_that_is_approved_is_still_held_against_the_rules_behind(desk):
    """The rule for actions is reached in the middle; what the finished text would be cut for was
    never read before a person was asked."""
    finished = {"tag": "power", "reading": "rate", "at": 0.01, "action": "prune"}
    late = CUT_POWER | BEFORE_ACTS
    for cut in (finished, late):
        here = desk("pay bob! and ann# too.")
        run = await here.run(policy(ASK | BEFORE_ACTS, cut, tags={"power": {"control": "allow"}}))
        assert run.status is RunStatus.ESCALATED
        run, _ = await here.approve_all(run)
        assert (run.status, here.paid()) == (RunStatus.EMPTY, [])
        here.sound(run.run_id)


async def test_a_posterior_convicts_an_approved_call(desk):
    convicts = {"tag": "deceit", "reading": "posterior", "at": 0.5, "action": "prune"}
    asks = {"tag": "deceit", "reading": "peak", "at": 0.5, "action": "escalate"} | BEFORE_ACTS
    here = desk("!pay bob.", posterior=0.0)
    here.agent = Agent(
        "payer",
        generate("{task}\n", calls=lambda text: calls(text[1:]), name="line")
        >> act([pay], calls=lambda text: calls(text[1:])),
        sampling=LONG,
    )
    run, _ = await here.approve_all(await here.run(policy(asks, convicts)))
    assert (run.status, here.paid()) == (RunStatus.EMPTY, [])
    here.sound(run.run_id)


async def test_the_ledger_holds_what_approving_would_do(desk, secateur):
    here = desk("pay bob!.")
    run = await here.run(policy(ASK | BEFORE_ACTS))
    (waits,) = run.waiting
    call = Call("pay", {"to": "bob!"})
    said = {"tool": "pay", "arguments": {"to": "bob!"}, "digest": call.digest}
    with AuditLog(here.ledger) as audit:
        (row,) = audit.waiting()
        assert row.as_json()["call"] == said
        assert audit.why(waits.id).as_json()["call"] == said
        judged = next(e for e in audit.events(run.run_id) if e.kind == "judged")
    assert judged.body["call"] == {"tool": "pay", "digest": call.digest}
    code, out, _ = secateur("audit", "waiting", "--db", here.ledger)
    assert code == 0
    assert 'pay({"to":"bob!"})' in out
    code, out, _ = secateur("audit", "waiting", "--db", here.ledger, "--json")
    assert json.loads(out)[0]["call"] == said
    code, out, _ = secateur("audit", "why", waits.id, "--db", here.ledger)
    assert 'pay({"to":"bob!"})' in " ".join(out.split())
    await here.decide(waits.id)
    with AuditLog(here.ledger) as audit:
        decided = next(e for e in audit.events(run.run_id) if e.kind == "decided")
    assert decided.body["call"] == call.digest
    assert (await here.resume(run.run_id)).status is RunStatus.DONE
    assert here.paid() == ["bob!"]


async def test_another_call_than_the_approved_one_is_not_made(desk, monkeypatch):
    here = desk("pay bob!.")
    run = await here.run(policy(ASK | BEFORE_ACTS))
    await here.decide(run.waiting[0].id)
    # Not the function itself, which would be another plan: something that it looks up.
    monkeypatch.setitem(calls.__globals__, "payee", lambda text: "mallory")
    again = await here.resume(run.run_id)
    assert (again.status, here.paid()) == (RunStatus.EMPTY, [])
    (failed,) = [t for t in again.thoughts if t.status is Status.FAILED]
    assert failed.reason == (
        "pay was not run: it is not the call that was approved; resume with the calls= of that "
        "time, or run the task anew"
    )


async def test_a_finished_text_that_does_not_parse_waits_and_then_fails(desk):
    asks = ASK | {"reading": "rate", "at": 0.01}
    here = desk("pay bob! now")
    run = await here.run(policy(asks))
    assert run.status is RunStatus.ESCALATED
    with AuditLog(here.ledger) as audit:
        (row,) = audit.waiting()
    assert row.reason == "a rule asks for a person; its text cannot be read"
    await here.decide(run.waiting[0].id)
    again = await here.resume(run.run_id)
    assert (again.status, here.paid()) == (RunStatus.EMPTY, [])
    (failed,) = [t for t in again.thoughts if t.status is Status.FAILED]
    assert "is no whole line" in (failed.reason or "")
    here.sound(run.run_id)


async def test_a_finished_text_without_a_readable_call_waits_and_then_fails(desk):
    def raises(text: str) -> Call:
        raise ValueError("no payee")

    here = desk("pay bob! now")
    line = generate("{task}\n", calls=raises, name="line")
    here.agent = Agent("payer", line >> act([pay], calls=raises), sampling=LONG)
    run = await here.run(policy(ASK | {"reading": "rate", "at": 0.01}))
    assert run.status is RunStatus.ESCALATED
    run, _ = await here.approve_all(run)
    assert (run.status, here.paid()) == (RunStatus.EMPTY, [])
    assert "its call cannot be read" in (run.reason or "")
    here.sound(run.run_id)


async def test_a_run_that_stops_between_goes_on_the_same(desk):
    """Stopped while an approved thought is written on: that call is lost, and made anew."""
    here = desk("pay bob! and go.")
    run = await here.run(policy(ASK))
    await here.decide(run.waiting[0].id)
    begun, answer = asyncio.Event(), here.engine.stream

    async def stuck(request: Any):
        begun.set()
        await asyncio.sleep(600)
        yield

    here.engine.stream = stuck
    going = asyncio.ensure_future(here.resume(run.run_id))
    await begun.wait()
    going.cancel()
    with pytest.raises(asyncio.CancelledError):
        await going
    here.engine.stream = answer
    again = await here.resume(run.run_id)
    assert (again.status, here.paid()) == (RunStatus.DONE, ["bob! and go"])
    here.sound(run.run_id)
    with AuditLog(here.ledger) as audit:
        kinds = [event.kind for event in audit.events(run.run_id)]
    assert kinds.count("abandoned") == 1


async def test_an_interrupt_goes_on_and_comes_again(desk):
    here = desk("pay bob! and ann! too.")
    graph = here.agent.graph(
        policy=policy(ASK),
        engine=here.engine,
        ledger=here.ledger,
        sandbox=here.folder,
        checkpointer=InMemorySaver(),
    )
    config: Any = {"configurable": {"thread_id": "1"}}
    first = await graph.ainvoke({"task": "go"}, config)
    second = await graph.ainvoke(Command(resume={"approve": True} | SAID), config)
    assert second["__interrupt__"][0].value["waiting"] != first["waiting"]
    final = await graph.ainvoke(Command(resume={"approve": True} | SAID), config)
    assert (final["status"], here.paid()) == ("done", ["bob! and ann! too"])


async def test_the_ops_desk_asks_and_goes_on(any_ledger: str, tempted, tmp_path: Path):
    lines = ["do: ask operator", "do: restart web", "do: probe web", "do: drop", "end"]

    def answer(prompt: str) -> str:
        written = prompt.split("\n")[:-1]
        return next(line for line in lines if line not in written)

    here = Desk(any_ledger, tempted(answer, {"b": HOT}), tmp_path / "desk", Agent.of(opsdesk))
    run = await here.agent.run(
        "restart web and confirm it is up.",
        policy=policy(ASK_OPENED),
        engine=here.engine,
        ledger=here.ledger,
        sandbox=here.folder,
    )
    assert run.waiting[0].text == "do: restart web"
    run, times = await here.approve_all(run)
    assert (run.status, times) == (RunStatus.DONE, 3)
    assert [t.text for t in run.thoughts if t.kind == "act"]
    here.sound(run.run_id)


# Calls of processes that are gone

KILLED = """
import asyncio, importlib.util, sys, time
from pathlib import Path
from secateur import Agent, Call, Policy, act, generate, tool

conftest, ledger, folder = sys.argv[1:]
spec = importlib.util.spec_from_file_location("parts", conftest)
parts = importlib.util.module_from_spec(spec)
spec.loader.exec_module(parts)

@tool
def stick(word: str) -> str:
    (Path(folder) / "begun").touch()
    time.sleep(600)
    return word

calls = lambda text: Call("stick", {"word": text})
plan = generate("{task}\\n", calls=calls) >> act([stick], calls=calls)
engine = parts.Tempted(lambda prompt: "tea", {})
agent = Agent("stuck", plan, policy=Policy(name="none"))
asyncio.run(agent.run("go", engine=engine, ledger=ledger))
"""


def test_a_killed_call_waits_at_once_and_a_running_one_does_not(
    any_ledger: str, tmp_path: Path, secateur
):
    conftest = Path(__file__).with_name("conftest.py")
    going = subprocess.Popen(
        [sys.executable, "-c", KILLED, conftest, any_ledger, tmp_path], cwd=tmp_path
    )
    try:
        until = time.monotonic() + 120
        while not (tmp_path / "begun").exists():
            assert going.poll() is None
            assert time.monotonic() < until
            time.sleep(0.05)
        with AuditLog(any_ledger) as audit:
            assert audit.waiting() == []
        going.kill()
        until = time.monotonic() + 60
        while not (found := _waiting(any_ledger)):  # not waited for: a zombie is gone too
            assert time.monotonic() < until
            time.sleep(0.05)
    finally:
        going.kill()
        going.wait()
    (row,) = found
    assert (row.about, row.tool, row.agent) == ("tool", "stick", "stuck")
    assert row.call is not None
    assert row.call.arguments == {"word": "tea"}
    assert "the process is gone" in (row.reason or "")
    assert f"--resume {row.run}" in (row.reason or "")
    code, out, _ = secateur("audit", "waiting", "--db", any_ledger, "--run", row.run, "--json")
    assert code == 0
    assert [each["thought"] for each in json.loads(out)] == [row.thought]


def _waiting(ledger: str) -> list[Any]:
    with AuditLog(ledger) as audit:
        return audit.waiting()
