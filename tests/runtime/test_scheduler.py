"""The ready queue: what starts when, what a budget stops, and what a failure does not."""

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from secateur.agents.budget import Budget
from secateur.agents.plans.composition import Plan
from secateur.agents.plans.machines import Work
from secateur.agents.plans.operations import Ask, KeepBest, Split
from secateur.agents.plans.words import aggregate as join
from secateur.agents.plans.words import each, generate, keep_best, pairwise, split
from secateur.agents.prompt import Sampling
from secateur.agents.thought import Scene, Status, Thought, thought_id
from secateur.runtime.executor.scheduler import Grown, Halt, grow
from secateur.runtime.executor.spending import Spending

ROOT = Thought("0" * 16, "task", "task", text="abcd")
Perform = Callable[[Work], Awaitable[Sequence[Thought]]]


def letters(scene: Scene) -> list[tuple[str, str]]:
    return [(letter, letter) for letter in scene.text]


def made(work: Work, *, status: Status = Status.KEPT, tokens: int = 0) -> list[Thought]:
    """What comes of a piece of work here: its name around its parents' texts."""
    parents = tuple(parent.id for parent in work.parents)
    name = work.operation.name
    match work.operation:
        case KeepBest(n=n):
            return list(work.parents[:n])
        case Split(by=by):
            texts = [text for text, _ in by(Scene("", work.parents, work.parents))]
        case _:
            texts = [f"{name}({','.join(parent.text for parent in work.parents)})"]
    thought = Thought("", name, work.operation.kind, parents, status=status, tokens=tokens)
    return [
        replace(
            thought,
            id=thought_id(work.step, parents, index=work.index + place),
            text=text,
            path=work.path if len(texts) == 1 else work.path.below(place),
        )
        for place, text in enumerate(texts)
    ]


def spending(**budget: float) -> Spending:
    return Spending(Budget(**budget), Sampling(max_tokens=10))  # pyright: ignore[reportArgumentType]


async def grown(plan: Plan, perform: Perform, spent: Spending | None = None) -> Grown:
    return await grow(plan, ROOT, perform, spent or spending(), regrow=False)


async def at_once(work: Work) -> Sequence[Thought]:
    return made(work)


# Dispatch


async def test_a_slow_branch_holds_nobody_else_up() -> None:
    plan = split(letters) >> generate("", name="a") >> generate("", name="b")
    ended: list[str] = []
    others_are_through = asyncio.Event()

    async def perform(work: Work) -> Sequence[Thought]:
        if work.parents[0].text == "a":
            await asyncio.wait_for(others_are_through.wait(), 5)
        thoughts = made(work)
        ended.extend(thought.text for thought in thoughts)
        if {"b(a(b))", "b(a(c))", "b(a(d))"} <= set(ended):
            others_are_through.set()
        return thoughts

    assert len((await grown(plan, perform)).kept) == 4


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 10**6), width=st.integers(1, 64))
def test_the_same_graph_grows_whatever_the_timing(seed: int, width: int) -> None:
    plan = (
        split(letters)
        >> each(generate("", n=3, name="g") >> keep_best(1))
        >> pairwise(join("", n=2, name="m") >> keep_best(1))
    )
    rng = random.Random(seed)

    async def perform(work: Work) -> Sequence[Thought]:
        for _ in range(rng.randrange(6)):
            await asyncio.sleep(0)
        return made(work)

    shuffled = asyncio.run(grown(plan, perform, spending(in_flight=width)))
    assert shuffled == asyncio.run(grown(plan, at_once))
    assert [t.text for t in shuffled.kept] == ["m(m(g(a),g(b)),m(g(c),g(d)))"]


async def test_a_failed_branch_is_a_result_and_no_exception_in_its_siblings() -> None:
    async def perform(work: Work) -> Sequence[Thought]:
        fails = isinstance(work.operation, Ask) and work.parents[0].text == "b"
        return made(work, status=Status.FAILED if fails else Status.KEPT)

    result = await grown(split(letters) >> generate("", name="g"), perform)
    assert [t.text for t in result.kept] == ["g(a)", "g(c)", "g(d)"]
    assert result.ended is None


# Budgets


async def test_no_more_is_in_flight_than_the_budget_allows() -> None:
    now, most = 0, 0

    async def perform(work: Work) -> Sequence[Thought]:
        nonlocal now, most
        now += 1
        most = max(most, now)
        await asyncio.sleep(0.001)
        now -= 1
        return made(work)

    result = await grown(generate("", n=12), perform, spending(in_flight=3))
    assert (most, len(result.kept)) == (3, 12)


async def test_the_token_budget_is_reserved_before_work_starts() -> None:
    spent = spending(tokens=35)
    most = 0

    async def perform(work: Work) -> Sequence[Thought]:
        nonlocal most
        most = max(most, spent.in_flight)
        await asyncio.sleep(0)
        thoughts = made(work, tokens=10)
        for thought in thoughts:
            spent.spend(thought)
        return thoughts

    result = await grown(generate("", n=8), perform, spent)
    assert spent.tokens == 30
    assert most == 3
    assert result.ended is not None
    assert result.ended.startswith("30 of 35 tokens are spent, and the next step may take")
    assert (len(result.kept), result.left) == (3, 5)


async def test_tokens_that_were_reserved_and_not_used_are_free_again() -> None:
    spent = spending(tokens=35)

    async def perform(work: Work) -> Sequence[Thought]:
        thoughts = made(work, tokens=2)
        for thought in thoughts:
            spent.spend(thought)
        return thoughts

    result = await grown(generate("", n=8), perform, spent)
    assert (len(result.kept), result.ended) == (8, None)


async def test_the_thought_budget_ends_a_run() -> None:
    spent = spending(thoughts=4)

    async def perform(work: Work) -> Sequence[Thought]:
        thoughts = made(work)
        for thought in thoughts:
            spent.spend(thought)
        return thoughts

    result = await grown(generate("", n=3) >> generate("", n=3), perform, spent)
    assert spent.thoughts == 4
    assert result.ended == "4 of 4 thoughts are made: raise the budget"


async def test_the_time_budget_cancels_what_is_under_way() -> None:
    cancelled = 0

    async def perform(work: Work) -> Sequence[Thought]:
        nonlocal cancelled
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            cancelled += 1
            raise
        return made(work)

    result = await grown(generate("", n=5), perform, spending(seconds=0.05))
    assert result.ended == "the budget of 0.05 seconds is spent"
    assert (cancelled, result.left) == (5, 5)


# Stopping


async def test_a_halt_stops_the_whole_run_and_leaves_nothing_running() -> None:
    cancelled: list[int] = []

    async def perform(work: Work) -> Sequence[Thought]:
        if work.index == 2:
            raise Halt(made(work)[0])
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            cancelled.append(work.index)
            raise
        return made(work)

    with pytest.raises(Halt):
        await grown(generate("", n=4), perform)
    assert sorted(cancelled) == [0, 1, 3]


async def test_an_error_that_is_no_result_reaches_the_caller_with_nothing_left_running() -> None:
    before = asyncio.all_tasks()

    async def perform(work: Work) -> Sequence[Thought]:
        if work.index == 1:
            raise OSError("the disk is full")
        await asyncio.sleep(60)
        return made(work)

    with pytest.raises(OSError, match="the disk is full"):
        await grown(generate("", n=3), perform)
    assert asyncio.all_tasks() == before


async def test_cancelling_a_run_cancels_its_work() -> None:
    started, cancelled = asyncio.Event(), asyncio.Event()

    async def perform(work: Work) -> Sequence[Thought]:
        started.set()
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            cancelled.set()
            raise
        return made(work)

    run = asyncio.ensure_future(grown(generate(""), perform))
    await started.wait()
    run.cancel()
    with pytest.raises(asyncio.CancelledError):
        await run
    assert cancelled.is_set()
