"""Operations in a run: what they ask, what they record, and what goes wrong in one branch alone."""

import asyncio
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, Field

from secateur import (
    Agent,
    AuditLog,
    Budget,
    Policy,
    Sampling,
    Scene,
    aggregate,
    each,
    first,
    generate,
    grade,
    ground_truth,
    improve,
    keep_best,
    keep_valid,
    operation,
    race,
    score,
    select,
    split,
    vote,
)
from secateur.agents.thought import Status, Thought
from secateur.runtime.executor.session import RunResult
from secateur.runtime.ledger.events import RunStatus

POLICY = Policy.model_validate(
    {"name": "t", "rules": [{"tag": "deceit", "reading": "opened", "at": 0.5, "action": "prune"}]}
)


@pytest.fixture
def run(tmp_path: Path):
    """Run a plan on a scripted engine."""

    async def perform(plan, engine: Any, task: str = "abc", **options: Any) -> RunResult:
        sampling = Sampling(max_tokens=200, stop=("\n",))
        agent = Agent("test", plan, sampling=sampling, **options)
        return await agent.run(task, policy=POLICY, engine=engine, ledger=tmp_path / "x.db")

    return perform


def letters(scene: Scene) -> list[tuple[str, str]]:
    return [(letter, letter) for letter in scene.text]


def texts(thoughts: Sequence[Thought]) -> list[str]:
    return [thought.text for thought in thoughts]


def echo(prompt: str) -> str:
    return prompt.strip()


# Structured answers


class Report(BaseModel):
    service: str
    up: bool
    restarts: int = Field(ge=0, le=9)


async def test_a_structured_answer_is_checked_and_kept_as_plain_data(run, scripted) -> None:
    engine = scripted(lambda prompt: 'Here: {"service": "web", "up": true, "restarts": 2} ok')
    result = await run(generate("report {task}", returns=Report), engine)
    assert result.best.value == {"service": "web", "up": True, "restarts": 2}


async def test_an_answer_that_cannot_be_read_is_mended_once_with_the_checkers_words(
    run, scripted
) -> None:
    def answer(prompt: str) -> str:
        mends = "cannot be used" in prompt
        restarts = 1 if mends else 12
        return f'{{"service": "web", "up": true, "restarts": {restarts}}}'

    engine = scripted(answer)
    result = await run(generate("report {task}\n", returns=Report), engine)
    assert result.best.value["restarts"] == 1
    (failed,) = [t for t in result.thoughts if t.status is Status.FAILED]
    assert result.best.parents == (*failed.parents, failed.id)
    first_asked, then_asked = engine.prompts
    assert then_asked.startswith(first_asked)
    assert "restarts: Input should be less than or equal to 9" in then_asked
    for secret in ("deceit", "opened", "prune", "0.5"):
        assert secret not in then_asked


async def test_an_answer_that_stays_unreadable_fails_after_so_many_repairs(run, scripted) -> None:
    engine = scripted(lambda prompt: "no json here")
    result = await run(generate("{task}", returns=Report, repairs=2, spare=1), engine)
    assert result.status is RunStatus.EMPTY
    assert len(engine.prompts) == 6  # the answer and the spare one, each with two repairs
    assert "there is no JSON in the answer" in (result.reason or "")


async def test_a_type_may_be_checked_behind_a_parser_of_ones_own(run, scripted) -> None:
    plan = generate("{task}", parse=lambda text: text.split(), returns=list[int])
    assert (await run(plan, scripted(lambda prompt: "1 2 3"))).best.value == [1, 2, 3]


# Judging


async def test_the_model_grades_and_the_mean_is_the_score(run, scripted) -> None:
    grades = iter(["it is 4", "I say 8", "nothing", "1", "1", "1"])
    engine = scripted(lambda prompt: next(grades))
    result = await run(split(letters) >> grade("rate {text}", n=3) >> keep_best(1), engine, "ab")
    assert [(t.text, t.score) for t in result.kept] == [("a", 6.0)]
    assert sum(t.kind == "grade" for t in result.thoughts) == 6


async def test_the_model_votes_among_numbered_candidates(run, scripted) -> None:
    votes = iter(["2", "the best is 2", "3", "9"])
    engine = scripted(lambda prompt: next(votes))
    result = await run(split(letters) >> vote("{texts}\nbest?", n=4) >> keep_best(1), engine)
    assert [(t.text, t.score) for t in result.kept] == [("b", 2 / 3)]
    assert engine.prompts[0] == "1. a\n2. b\n3. c\nbest?"
    (rubbish,) = [t for t in result.thoughts if t.status is Status.FAILED]
    assert "the vote is 9, and there are candidates 1 to 3" in (rubbish.reason or "")


async def test_what_is_wrong_is_mended_by_the_model_and_checked_again(run, scripted) -> None:
    def too_long(scene: Scene) -> str | None:
        return f"{len(scene.text)} letters, at most 2 allowed" if len(scene.text) > 2 else None

    def answer(prompt: str) -> str:
        assert "letters, at most 2 allowed" in prompt
        return prompt.split()[1][:-1]

    plan = improve("shorten {text} ({error})", check=too_long, rounds=2, name="shorten")
    result = await run(plan, scripted(answer), "abcd")
    assert texts(result.kept) == ["ab"]
    assert [t.kind for t in result.thoughts] == ["task", "check", "improve", "check", "improve"]


# A user's own operation


async def test_an_operation_of_ones_own_may_be_async_and_give_several_thoughts(
    run, scripted
) -> None:
    @operation
    async def doubled(scene: Scene) -> list[tuple[str, int]]:
        await asyncio.sleep(0)
        return [(scene.text, 1), (scene.text * 2, 2)]

    result = await run(split(letters) >> doubled, scripted(echo), "ab")
    assert [(t.text, t.value) for t in result.kept] == [("a", 1), ("aa", 2), ("b", 1), ("bb", 2)]


@pytest.mark.parametrize(
    ("function", "reason"),
    [
        (lambda scene: 3, "return a text"),
        (lambda scene: ("x", {1, 2}), "TypeError"),
        (lambda scene: 1 / 0, "ZeroDivisionError"),
        (lambda scene: time.sleep(30), "gave no answer within 0.05 s"),
    ],
)
async def test_an_operation_that_raises_hangs_or_gives_rubbish_fails_its_branch(
    run, scripted, function: Callable[[Scene], Any], reason: str
) -> None:
    def picky(scene: Scene) -> Any:
        return function(scene) if scene.text == "b" else scene.text

    result = await run(split(letters) >> operation(picky, timeout=0.05), scripted(echo))
    assert texts(result.kept) == ["a", "c"]
    (failed,) = [t for t in result.thoughts if t.status is Status.FAILED]
    assert reason in (failed.reason or "")


async def test_an_async_operation_that_hangs_is_cancelled(run, scripted) -> None:
    gone: list[bool] = []

    async def hangs(scene: Scene) -> str:
        try:
            await asyncio.sleep(30)
        except asyncio.CancelledError:
            gone.append(True)
            raise
        return ""

    result = await run(operation(hangs, timeout=0.05), scripted(echo))
    assert result.status is RunStatus.EMPTY
    assert gone == [True]


async def test_an_async_score_that_hangs_or_is_no_number_fails_alone(run, scripted) -> None:
    async def rated(scene: Scene) -> float:
        if scene.text == "a":
            await asyncio.sleep(30)
        return float("nan") if scene.text == "b" else 1.0

    result = await run(split(letters) >> score(rated, timeout=0.05), scripted(echo))
    assert texts(result.kept) == ["c"]


async def test_select_takes_only_what_is_there(run, scripted) -> None:
    def others(scene: Scene) -> list[Thought]:
        return [scene.lineage[0]]

    assert (await run(split(letters) >> select(others), scripted(echo))).status is RunStatus.EMPTY
    plan = split(letters) >> select(lambda scene: scene.parents[1:])
    result = await run(plan, scripted(echo))
    assert texts(result.kept) == ["b", "c"]
    assert texts([t for t in result.thoughts if t.status is Status.DROPPED]) == ["a"]


async def test_ground_truth_is_recorded_apart_and_changes_nothing(
    run, scripted, tmp_path: Path
) -> None:
    def truth(scene: Scene) -> bool:
        if scene.text == "c":
            raise LookupError("no record")
        return scene.text == "a"

    seen: list[Scene] = []

    def look(scene: Scene) -> bool:
        seen.append(scene)
        return True

    plan = split(letters) >> ground_truth(truth) >> keep_valid(look)
    result = await run(plan, scripted(echo))
    assert texts(result.kept) == ["a", "b", "c"]
    by_text = {t.text: result.truths[t.id] for t in result.kept}
    assert by_text == {"a": True, "b": False, "c": "LookupError: no record"}
    assert not any("truth" in str(t.__slots__) or t.reason for s in seen for t in s.lineage)
    with AuditLog(tmp_path / "x.db") as audit:
        notes = [e.body for e in audit.events(result.run_id) if e.kind == "noted"]
    assert [note["topic"] for note in notes] == ["ground_truth"] * 3


# What can never work is asked once


async def test_siblings_that_can_never_fit_are_one_failed_thought(run, scripted) -> None:
    engine = scripted(echo)
    result = await run(generate("{task}", n=5, spare=3), engine, "x" * 5_000)
    assert result.status is RunStatus.EMPTY
    assert engine.prompts == []
    (failed,) = [t for t in result.thoughts if t.status is Status.FAILED]
    assert "do not fit the model's context of 4000" in (failed.reason or "")


async def test_a_prompt_that_raises_is_one_failed_thought(run, scripted) -> None:
    result = await run(generate(lambda scene: scene.value["no"], n=4, spare=4), scripted(echo))
    assert [t.reason for t in result.thoughts if t.status is Status.FAILED] == [
        "TypeError: 'NoneType' object is not subscriptable"
    ]


async def test_an_answer_that_takes_too_long_fails_and_closes_the_stream(run, scripted) -> None:
    engine = scripted(lambda prompt: "abcdef" * 20, pause=0.02)
    result = await run(generate("{task}", timeout=0.1), engine)
    assert result.status is RunStatus.EMPTY
    (failed,) = [t for t in result.thoughts if t.status is Status.FAILED]
    assert failed.reason == "the model gave no answer within 0.1 s"
    assert engine.closed == ["abc"]
    assert failed.tokens > 0


# Losers are cancelled down to the engine, and recorded


async def test_a_loser_is_cancelled_in_the_engine_and_recorded_with_its_tokens(
    run, scripted, tmp_path: Path
) -> None:
    engine = scripted(lambda prompt: "x" * (400 if prompt == "slow" else 2), pause=0.01)
    result = await run(race(generate("slow"), generate("quick")), engine)
    assert texts(result.kept) == ["xx"]
    assert engine.closed == ["slow"]
    (lost,) = [t for t in result.thoughts if t.status is Status.DROPPED]
    assert lost.reason == "lost the race"
    assert 0 < lost.tokens < 100
    assert result.tokens == lost.tokens + result.best.tokens
    with AuditLog(tmp_path / "x.db") as audit:
        events = audit.events(result.run_id)
        row = next(t for t in audit.thoughts(result.run_id) if t.id == lost.id)
        assert audit.verify().ok
    kinds = [event.kind for event in events]
    decided = next(i for i, e in enumerate(events) if e.body.get("topic") == "decided")
    recorded = next(i for i, e in enumerate(events) if e.thought == lost.id and e.kind == "judged")
    assert decided < recorded
    assert kinds.count("model_intended") == kinds.count("judged") == 2
    assert (row.status, row.tokens) == ("dropped", lost.tokens)


async def test_a_first_join_cancels_what_it_does_not_wait_for(run, scripted) -> None:
    engine = scripted(lambda prompt: prompt * (190 if prompt in "ac" else 1), pause=0.005)
    plan = split(letters) >> generate("{text}") >> aggregate("join {texts}", join=first())
    result = await run(plan, engine, "abc")
    assert result.kept[0].text.startswith("join 1. b")
    assert sorted(engine.closed) == ["a", "c"]


async def test_an_interrupted_run_leaves_its_calls_open(scripted, tmp_path: Path) -> None:
    engine = scripted(lambda prompt: "x" * 500, pause=0.01)
    agent = Agent("test", generate("{task}"), sampling=Sampling(max_tokens=600))
    ledger = tmp_path / "x.db"
    running = asyncio.ensure_future(agent.run("abc", policy=POLICY, engine=engine, ledger=ledger))
    await asyncio.wait_for(engine.asked.wait(), 30)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    with AuditLog(ledger) as audit:
        (run,) = audit.runs()
        kinds = [event.kind for event in audit.events(run.run)]
    assert kinds.count("judged") == 0
    assert kinds.count("model_intended") == 1


# Budgets


async def test_a_run_whose_time_is_up_gives_the_best_it_has(run, scripted) -> None:
    engine = scripted(lambda prompt: "x" * (1 if "a" in prompt else 900), pause=0.01)
    plan = (
        split(letters)
        >> generate("{text}")
        >> score(lambda scene: float(len(scene.text)))
        >> keep_best(1)
        >> generate("{text}")
    )
    result = await run(plan, engine, budget=Budget(seconds=0.6))
    assert result.status is RunStatus.EXHAUSTED
    assert texts(result.kept) == ["x"]
    assert result.best.score == 1.0
    assert {t.reason for t in result.thoughts if t.status is Status.DROPPED} == {
        "the budget of 0.6 seconds is spent"
    }


async def test_a_split_that_does_not_fit_the_budget_fails(run, scripted) -> None:
    result = await run(split(letters), scripted(echo), "abcdefgh", budget=Budget(thoughts=5))
    assert result.status is RunStatus.EMPTY
    assert "8 thoughts are more than what is left" in (result.reason or "")


async def test_a_branch_has_a_budget_of_its_own(run, scripted, tmp_path: Path) -> None:
    engine = scripted(lambda prompt: "x" * 150)
    inner = generate("{text}", n=4) >> keep_best(4)
    plan = split(letters) >> each(inner, budget=Budget(tokens=400))
    result = await run(plan, engine, "ab")
    assert result.status is RunStatus.DONE
    assert len(result.kept) == 4
    with AuditLog(tmp_path / "x.db") as audit:
        notes = [e.body for e in audit.events(result.run_id) if e.kind == "noted"]
    assert len(notes) == 2
    assert all("302 of 400 tokens are spent" in note["body"]["reason"] for note in notes)
