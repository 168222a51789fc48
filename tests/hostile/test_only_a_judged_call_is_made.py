"""A tool runs only for a call that was judged in scope ``action``, whatever stands between."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from secateur import Agent, AuditLog, Call, Move, Policy, Sampling
from secateur.agents.errors import PlanError
from secateur.agents.plans.composition import Plan
from secateur.agents.plans.words import (
    act,
    aggregate,
    each,
    generate,
    ground_truth,
    grow,
    improve,
    keep_best,
    keep_valid,
    operation,
    pairwise,
    race,
    refine,
    repeat,
    score,
    select,
    split,
)
from secateur.agents.search.search import beam, search
from secateur.agents.thought import Status
from secateur.agents.tool import tool
from secateur.runtime.ledger.events import RunStatus

RAN: list[str] = []
LONG = Sampling(max_tokens=100)
STRICT = Policy.model_validate(
    {
        "name": "no acts",
        "rules": [
            {"tag": "deceit", "reading": "peak", "at": 0.5, "action": "prune", "scope": "action"}
        ],
    }
)
MARKS = {"!": {"deceit": 0.9}}


@tool
def fire(word: str) -> str:
    """Do what cannot be undone."""
    RAN.append(word)
    return f"fired {word}"


def calls(text: str) -> Call | None:
    return Call("fire", {"word": text.removeprefix("fire ")}) if text.startswith("fire") else None


def other(text: str) -> Call | None:
    return Call("fire", {"word": "something else"}) if text.startswith("fire") else None


class Order(BaseModel):
    word: str


def never(thing: Any) -> bool:
    return False


def length(scene: Any) -> float:
    return float(len(scene.text))


ASK = generate("{task}\n", calls=calls)
ACT = act([fire], calls=calls)


@pytest.fixture
def run(any_ledger: str, tempted, tmp_path: Path) -> Callable[..., Any]:
    RAN.clear()

    async def go(plan: Plan, text: str = "fire!", policy: Policy = STRICT, **more: Any) -> Any:
        engine = tempted(lambda prompt: text, MARKS)
        agent = Agent("shooter", plan, sampling=LONG)
        return await agent.run(
            "go", policy=policy, engine=engine, ledger=any_ledger, sandbox=tmp_path / "x", **more
        )

    return go


# What is known when the plan is built

BUILT = {
    "nothing": lambda: ACT,
    "no calls": lambda: generate("{task}") >> ACT,
    "another generation": lambda: ASK >> generate("{text}") >> ACT,
    "refine": lambda: ASK >> refine("{text}", unless=never) >> ACT,
    "aggregate": lambda: ASK >> aggregate("{texts}") >> ACT,
    "split": lambda: ASK >> split(lambda scene: [("fire!", None)]) >> ACT,
    "split alone": lambda: split(lambda scene: [("fire!", None)]) >> ACT,
    "operation": lambda: ASK >> operation(lambda scene: "fire!") >> ACT,
    "improve": lambda: ASK >> improve("{text}", check=lambda scene: "no") >> ACT,
    "structured": lambda: ASK >> generate("{text}", returns=Order) >> ACT,
    "repeat": lambda: repeat(ASK >> refine("x", unless=never), until=never, at_most=2) >> ACT,
    "race": lambda: race(ASK, generate("x")) >> ACT,
    "both": lambda: (ASK & generate("x")) >> ACT,
    "each": lambda: ASK >> each(generate("x") >> ACT),
    "pairwise": lambda: ASK >> pairwise(aggregate("x")) >> ACT,
    "beam": lambda: beam(generate("x"), width=1, depth=2, score=length) >> ACT,
}


@pytest.mark.parametrize("name", BUILT)
def test_a_plan_that_acts_on_what_is_never_judged_is_refused(name: str):
    with pytest.raises(PlanError, match="give the same function to generate") as refused:
        Agent("shooter", BUILT[name]())
    assert "\n" not in str(refused.value)


# What only the run can tell


def grown(scene: Any) -> Plan | None:
    return None if RAN or scene.text != "calm" else operation(lambda scene: "fire!") >> ACT


class Forging:
    """A strategy that gives what nobody judged under the id of what somebody did."""

    def begin(self, thoughts: Sequence[Any], seed: int) -> Any:
        return thoughts[0]

    def ask(self, state: Any) -> Any:
        return Move(give=(replace(state, text="fire!", id=self.id(state)),)), state

    def id(self, thought: Any) -> str:
        return thought.id

    def tell(self, state: Any, thought: Any, children: Any) -> Any:
        return state


class Inventing(Forging):
    """The same under an id that nobody has seen."""

    def id(self, thought: Any) -> str:
        return "f" * 16


RUN = {
    "grow, built later": lambda: grow(lambda scene: operation(lambda s: "fire!") >> ACT, rounds=1),
    "grow": lambda: grow(lambda scene: operation(lambda s: "fire!"), rounds=1) >> ACT,
    "grow, asked": lambda: grow(lambda scene: generate("{task}\n"), rounds=1) >> ACT,
    "beside": lambda: (
        (generate("{task}\n", calls=lambda t: None) & operation(lambda s: "fire!")) >> ACT
    ),
    "other calls": lambda: generate("{task}\n", calls=other) >> ACT,
    "calls that see none": lambda: generate("{task}\n", calls=lambda text: None) >> ACT,
    "the tool's own words": lambda: (
        generate("{task}\n", calls=lambda text: Call("echo", {}))
        >> act([echo], calls=lambda text: Call("echo", {}))
        >> ACT
    ),
    "refined, sometimes": lambda: (
        ASK >> refine("{text}\n", unless=never, calls=lambda text: None) >> ACT
    ),
    "forged": lambda: (
        generate("{task}\n", calls=lambda text: None)
        >> search(generate("x", calls=calls), Forging())
        >> ACT
    ),
    "invented": lambda: (
        generate("{task}\n", calls=calls) >> search(generate("x", calls=calls), Inventing()) >> ACT
    ),
}


@tool
def echo() -> str:
    """Say what would be a call, had it been judged."""
    return "fire!"


@pytest.mark.parametrize("name", RUN)
async def test_a_call_that_was_not_judged_is_not_made(name: str, run, any_ledger: str):
    result = await run(RUN[name](), policy=Policy(name="none"))
    assert RAN == []
    with AuditLog(any_ledger) as audit:
        intended = [e for e in audit.events(result.run_id) if e.kind == "tool_intended"]
    assert [each.body["tool"] for each in intended] in ([], ["echo"])
    failed = [t.reason for t in result.thoughts if t.status is Status.FAILED]
    if name != "forged":  # there, what is acted on is what is recorded, and asks for nothing
        assert failed
        assert all(why is None or "\n" not in why for why in failed)


async def test_the_branch_fails_alone_and_says_what_to_do(run):
    plan = (generate("{task}\n", calls=calls) & operation(lambda scene: "fire!")) >> ACT
    result = await run(plan, text="fire twice", policy=Policy(name="none"))
    assert (result.status, RAN) == (RunStatus.DONE, ["twice"])
    (failed,) = [t for t in result.thoughts if t.status is Status.FAILED]
    assert failed.reason == (
        "fire was not run: what 'scene' made was not judged in scope action; give its calls= the "
        "function of act(…), or let the operation before it feed act(…)"
    ).replace("'scene'", repr(_made_by(result, failed)))


def _made_by(result: Any, failed: Any) -> str:
    return next(t.operation for t in result.thoughts if t.id == failed.parents[0])


async def test_arguments_that_change_behind_the_gate_are_not_what_runs(run):
    shared = {"word": "calm"}

    def shares(text: str) -> Call:
        return Call("fire", shared)

    async def change(scene: Any) -> float:
        shared["word"] = "fire!"
        return 0.0

    plan = generate("{task}\n", calls=shares) >> score(change) >> act([fire], calls=shares)
    result = await run(plan, text="calm", policy=Policy(name="none"))
    assert RAN == []
    assert "is not the call that was judged" in (result.reason or "")


# What passes a judged thought on unchanged

PASSING: dict[str, Callable[[], Plan]] = {
    "at once": lambda: ASK >> ACT,
    "keep_best": lambda: (
        generate("{task}\n", calls=calls, n=2) >> score(length) >> keep_best(1) >> ACT
    ),
    "select": lambda: ASK >> select(lambda scene: scene.parents) >> ACT,
    "keep_valid": lambda: ASK >> keep_valid(lambda scene: True) >> ACT,
    "ground truth": lambda: ASK >> ground_truth(lambda scene: True) >> ACT,
    "refine, good already": lambda: ASK >> refine("x", unless=lambda s: True, calls=calls) >> ACT,
    "improve, nothing wrong": lambda: ASK >> improve("x", check=lambda s: None, calls=calls) >> ACT,
    "race": lambda: race(ASK, ASK) >> ACT,
    "each": lambda: each(ASK >> score(length) >> keep_best(1)) >> ACT,
    "grow to its end": lambda: ASK >> grow(lambda scene: None) >> ACT,
    "grown whole": lambda: grow(lambda scene: ASK >> ACT, rounds=1),
    "repeat": lambda: repeat(ASK >> ACT, until=lambda t: t.kind == "act", at_most=3),
    "beam": lambda: beam(ASK, width=1, depth=1, score=length) >> ACT,
    "equal calls": lambda: ASK >> act([fire], calls=lambda text: calls(text)),
}


@pytest.mark.parametrize("name", PASSING)
async def test_a_judged_thought_acts_once(name: str, run):
    result = await run(PASSING[name](), text="fire calm")
    assert (result.status, RAN) == (RunStatus.DONE, ["calm"])


@pytest.mark.parametrize("name", ["at once", "keep_best", "beam", "grown whole"])
async def test_it_acts_also_after_the_run_was_stopped(
    name: str, any_ledger: str, tempted, tmp_path: Path
):
    """Judged by one process, acted on by another: what it was judged for stands in the ledger."""
    RAN.clear()
    agent = Agent("shooter", PASSING[name](), sampling=LONG)
    engine = tempted(lambda prompt: "fire calm", MARKS)

    def stopping(thought: Any) -> None:
        if thought.kind == "generate":
            running.cancel()

    here: dict[str, Any] = {"engine": engine, "ledger": any_ledger}
    running = asyncio.ensure_future(
        agent.run("go", policy=STRICT, sandbox=tmp_path / "x", observe=stopping, **here)
    )
    with pytest.raises(asyncio.CancelledError):
        await running
    assert RAN == []
    with AuditLog(any_ledger) as audit:
        (row,) = audit.runs()
    engine.prompts.clear()
    result = await agent.resume(row.run, **here)
    assert (result.status, RAN) == (RunStatus.DONE, ["calm"])


TEXTS = st.sampled_from(["fire!", "fire calm", "calm", "calm!"])


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    stages=st.lists(
        st.sampled_from(["ask", "ask other", "operation", "grow", "score", "both"]), max_size=3
    ),
    written=TEXTS,
    made=TEXTS,
)
async def test_whatever_the_plan_only_what_passed_the_gate_is_run(
    stages: list[str], written: str, made: str, tempted, tmp_path_factory
):
    """Under a rule that cuts every act with a mark in it, no such act ever happens."""
    RAN.clear()
    plan: Plan = generate("{task}\n", calls=calls)
    for stage in stages:
        match stage:
            case "ask":
                plan = plan >> generate("{text}\n", calls=calls)
            case "ask other":
                plan = plan >> generate("{text}\n", calls=other)
            case "operation":
                plan = plan >> operation(lambda scene: made)
            case "grow":
                plan = plan >> grow(lambda scene: operation(lambda s: made), rounds=1)
            case "score":
                plan = plan >> score(length)
            case "both":
                plan = plan >> (score(length) & operation(lambda scene: made))
    try:
        agent = Agent("shooter", plan >> ACT, sampling=LONG)
    except PlanError:
        return
    folder = tmp_path_factory.mktemp("any")
    engine = tempted(lambda prompt: written, MARKS)
    await agent.run(
        "go", policy=STRICT, engine=engine, ledger=folder / "x.db", sandbox=folder / "x"
    )
    assert all(word == "calm" for word in RAN)
