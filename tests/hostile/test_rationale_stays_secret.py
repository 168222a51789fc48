"""No prompt ever holds what the gate or a reviewer said: names of tags, scores, rules, notes."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.types import Command

from secateur import Agent, Call, Ledger, Policy, Sampling, Workspace
from secateur.agents.plans.words import (
    act,
    aggregate,
    generate,
    grade,
    improve,
    keep_best,
    operation,
    refine,
    repeat,
    score,
    select,
    vote,
)
from secateur.agents.search.search import beam
from secateur.agents.tool import tool
from secateur.runtime.ledger.events import RunStatus
from secateur.runtime.review.decisions import decide

TAG, OTHER = "zqx_tag", "wvy_tag"
NOTE, WHO = "the qjx note of a reviewer", "ulrika_the_reviewer"
PEAK, AT = 0.8123, 0.4321
MARKS = {"!": {TAG: PEAK}, "?": {OTHER: PEAK}}
LONG = Sampling(max_tokens=200)


def policy(action: str, reading: str = "peak", **given: Any) -> Policy:
    rule = {"tag": TAG, "reading": reading, "at": AT, "action": action}
    more = {"retries": 2} if action == "resample" else {}
    flag = {"tag": OTHER, "reading": "peak", "at": AT, "action": "flag"}
    return Policy.model_validate({"name": "xkq_policy", "rules": [rule | given | more, flag]})


def everything(scene: Any) -> str:
    """A user's function that tells all it can see."""
    parents = [scene.parents_of(thought) for thought in scene.parents]
    seen = [scene.parents, list(scene.lineage), dict(scene.known), parents, scene.error]
    return f"{seen!r}\nnow write\n"


def secrets(by: Policy) -> list[str]:
    rules = [str(rule) for rule in by.rules]
    return [TAG, OTHER, NOTE, WHO, by.name, "0.81", "0.43", "crossing", *rules]


class Listening:
    """Keeps everything that a user's function, a tool or a prompt was given."""

    def __init__(self) -> None:
        self.heard: list[str] = []

    def __call__(self, thing: Any) -> None:
        self.heard.append(repr(thing))


@tool
def note_down(folder: Workspace, word: str) -> str:
    """Put a word into the folder."""
    (folder.path / "word.txt").write_text(word)
    return "noted"


def calls(text: str) -> Call:
    return Call("note_down", {"word": "tea"})


@pytest.fixture
def place(tempted, tmp_path: Path) -> Callable[..., Any]:
    """Runs a plan to its end, approving whatever waits; the engine has all that was asked."""

    async def go(plan: Any, by: Policy, answer: Callable[[str], str], name: str = "x") -> Any:
        engine = tempted(answer, MARKS, tags=(TAG, OTHER))
        agent = Agent("teller", plan, sampling=LONG)
        here: dict[str, Any] = {"engine": engine, "ledger": tmp_path / f"{name}.db"}
        result = await agent.run("go", policy=by, sandbox=tmp_path / name, seed=1, **here)
        for _ in range(20):
            if result.status is not RunStatus.ESCALATED:
                break
            async with Ledger.open(here["ledger"]) as ledger:
                for thought in result.waiting:
                    await decide(
                        ledger, thought.id, approve=True, by=WHO, reason=NOTE, run=result.run_id
                    )
            result = await agent.resume(result.run_id, **here)
        for prompt in engine.prompts:
            for secret in secrets(by):
                assert secret not in prompt
        assert engine.prompts
        assert not [t.reason for t in result.thoughts if t.hopeless], "a prompt was never asked"
        for file in (tmp_path / name).rglob("*"):
            assert not any(secret in file.read_text() for secret in secrets(by))
        return result

    return go


def wordy(prompt: str) -> str:
    return "tea! or milk?"


async def test_an_error_below_an_approved_thought_is_its_text(place):
    plan = generate("{task}\n") >> generate("mend {text}: {error}\n", name="mend")
    result = await place(plan, policy("escalate"), wordy)
    assert result.status is RunStatus.DONE
    plan = generate("{task}\n") >> refine("mend {text}: {error}\n", unless=lambda scene: False)
    assert (await place(plan, policy("escalate", "rate", at=0.001), wordy)).status is RunStatus.DONE


@pytest.mark.parametrize("action", ["flag", "escalate", "resample", "prune"])
async def test_a_function_that_tells_all_it_sees_tells_nothing_of_it(place, action: str):
    told = Listening()

    def hears(scene: Any) -> float:
        told(everything(scene))
        return 1.0

    def heard(thought: Any) -> bool:
        told(thought)
        return False

    plan = (
        generate(everything, n=2, spare=1)
        >> score(hears)
        >> select(lambda scene: (told(everything(scene)), scene.parents)[1])
        >> repeat(generate(everything) >> operation(everything), until=heard, at_most=2)
        >> aggregate(everything)
        >> generate(everything, calls=calls)
        >> act([note_down], calls=calls)
        >> generate("{text} {texts} {value} {error}\n")
    )
    result = await place(plan, policy(action), wordy)
    if action in ("flag", "escalate"):  # the others cut every try at the first thought
        assert result.status is RunStatus.DONE
        assert told.heard
    for said in told.heard:
        assert not any(secret in said for secret in secrets(policy(action)))


async def test_mending_judging_and_searching_tell_nothing_of_it(place):
    def wrong(scene: Any) -> str | None:
        return everything(scene)[:500] if len(scene.lineage) < 3 else None

    def answer(prompt: str) -> str:
        return "1!"

    plan = (
        beam(generate(everything, n=2), width=2, depth=2, score=lambda scene: 1.0)
        >> grade(everything, n=2)
        >> vote("{texts}\n", n=2)
        >> keep_best(1)
        >> improve("{text} {error}\n", check=wrong)
    )
    await place(plan, policy("flag"), answer)
    await place(plan, policy("escalate"), answer, "y")


async def test_an_answer_that_is_mended_after_an_approval_hears_the_checker_alone(place):
    def parse(text: str) -> str:
        raise ValueError("it is no tea")

    asked: list[str] = []

    def answer(prompt: str) -> str:
        asked.append(prompt)
        return "tea!"

    plan = generate("{task}\n", parse=parse, repairs=1)
    await place(plan, policy("escalate", "rate", at=0.001), answer)
    assert any("it is no tea" in prompt for prompt in asked)


async def test_langgraph_gets_no_reason_of_a_gate_or_a_reviewer(tempted, tmp_path: Path):
    saver = InMemorySaver()
    by = policy("escalate")
    graph = Agent("teller", generate("{task}\n", name="say"), sampling=LONG).graph(
        policy=by,
        engine=tempted(wordy, MARKS, tags=(TAG, OTHER)),
        ledger=tmp_path / "x.db",
        sandbox=tmp_path / "x",
        checkpointer=saver,
    )
    for approve in (True, False):
        config: Any = {"configurable": {"thread_id": str(approve)}}
        states = [await graph.ainvoke({"task": "go"}, config)]
        answer = {"approve": approve, "by": "ann", "reason": "a plain word"}
        states.append(await graph.ainvoke(Command(resume=answer), config))
        for state in states:
            shown = repr(state)
            assert not any(secret in shown for secret in secrets(by))
            assert "a plain word" not in shown


NAMES = st.from_regex(r"[a-z]{3}_q[xz]{2}[a-z]{0,8}", fullmatch=True)


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    names=st.lists(NAMES, min_size=2, max_size=2, unique=True),
    note=st.from_regex(r"note [A-Z]{12} about it", fullmatch=True),
    action=st.sampled_from(["flag", "resample", "prune", "escalate"]),
    scope=st.sampled_from(["thought", "action"]),
    text=st.text(alphabet="abc !?", min_size=1, max_size=12),
)
async def test_whatever_the_policy_no_prompt_tells_of_it(
    names: list[str], note: str, action: str, scope: str, text: str, tempted, tmp_path_factory
):
    first, second = names
    rule = {"tag": first, "reading": "peak", "at": 0.37, "action": action, "scope": scope}
    rule |= {"retries": 1} if action == "resample" else {}
    cut = {"tag": second, "reading": "opened", "at": 0.37, "action": "escalate"}
    by = Policy.model_validate({"name": "pol", "rules": [rule, cut]})
    marks = {"!": {first: 0.6}, "?": {second: 0.6}}
    engine = tempted(lambda prompt: text, marks, tags=names)
    plan = (
        generate(everything, n=2, calls=calls)
        >> act([note_down], calls=calls)
        >> generate(everything)
        >> aggregate("{texts} {error} {value} {task}\n")
        >> generate(everything)
    )
    agent = Agent("teller", plan, sampling=LONG)
    folder = tmp_path_factory.mktemp("any")
    here: dict[str, Any] = {"engine": engine, "ledger": folder / "x.db"}
    result = await agent.run("go", policy=by, sandbox=folder / "x", **here)
    for _ in range(9):
        if result.status is not RunStatus.ESCALATED:
            break
        async with Ledger.open(here["ledger"]) as ledger:
            for place, thought in enumerate(result.waiting):
                await decide(ledger, thought.id, approve=place % 2 == 0, by=note, reason=note)
        result = await agent.resume(result.run_id, **here)
    assert not [t.reason for t in result.thoughts if t.hopeless], "a prompt was never asked"
    for prompt in engine.prompts:
        assert not any(secret in prompt for secret in (first, second, note, "0.37", "0.6"))
