"""Joins that hurry, races, and budgets of branches: who goes on, and what is cancelled."""

import asyncio
import random
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from secateur.agents.budget import Budget
from secateur.agents.plans.composition import Plan
from secateur.agents.plans.joins import first
from secateur.agents.plans.machines import Work
from secateur.agents.plans.operations import Choose, Expand, Fail, KeepBest, Score, Split
from secateur.agents.plans.words import (
    aggregate,
    each,
    generate,
    grow,
    keep_best,
    pairwise,
    race,
    repeat,
    score,
    split,
)
from secateur.agents.prompt import Sampling
from secateur.agents.search.search import beam, best_first, smc
from secateur.agents.thought import Scene, Status, Thought, thought_id
from secateur.runtime.executor.scheduler import Grown
from secateur.runtime.executor.scheduler import grow as run_plan
from secateur.runtime.executor.spending import Spending

ROOT = Thought("0" * 16, "task", "task", text="abcd")


def letters(scene: Scene) -> list[tuple[str, str]]:
    return [(letter, letter) for letter in scene.text]


@dataclass
class Stage:
    """Does the work when the test says so, and notes what the scheduler writes down."""

    settled: dict[str, tuple[str, ...]] = field(default_factory=dict)
    old: set[str] = field(default_factory=set)
    """Texts whose work is recorded."""
    tokens: int = 0
    gates: dict[str, asyncio.Event] = field(default_factory=dict)
    started: list[str] = field(default_factory=list)
    cancelled: dict[str, str] = field(default_factory=dict)
    dropped: dict[str, str] = field(default_factory=dict)
    noted: dict[str, str] = field(default_factory=dict)

    def hold(self, *texts: str) -> None:
        self.gates |= {text: asyncio.Event() for text in texts}

    def knows(self, work: Work) -> bool:
        return _text(work) in self.old

    async def settle(self, about: str, chosen: Sequence[str], why: str) -> None:
        self.noted[about] = why
        if chosen:
            self.settled[about] = tuple(chosen)

    async def drop(self, thoughts: Sequence[Thought], why: str) -> None:
        self.dropped |= {thought.text: why for thought in thoughts}

    async def perform(self, work: Work) -> Sequence[Thought]:
        match work.operation:
            case Choose(name=why, about=about, dropped=dropped):
                if about is not None:
                    await self.settle(about, [t.id for t in work.parents], why)
                await self.drop(dropped(), why)
                return work.parents
            case KeepBest(n=n):
                return work.parents[:n]
            case Score(by=by):
                value = by(Scene("", work.parents, ()))
                return [replace(work.parents[0], score=value)]  # pyright: ignore
            case Expand(by=by):
                by(Scene("", work.parents, ()))
                return work.parents
            case Fail(reason=why):
                return [self._made(work, 0, why, Status.FAILED)]
            case Split(by=by):
                parts = by(Scene("", work.parents, ()))
                return [
                    replace(self._made(work, i, text), path=work.path.below(i), tokens=0)
                    for i, (text, _) in enumerate(parts)
                ]
            case _:
                return [await self._think(work)]

    async def _think(self, work: Work) -> Thought:
        text = _text(work)
        self.started.append(text)
        try:
            if text in self.gates:
                await asyncio.wait_for(self.gates[text].wait(), 10)
            else:
                await asyncio.sleep(0)
        except asyncio.CancelledError as stop:
            self.cancelled[text] = str(stop.args[0]) if stop.args else ""
            raise
        return self._made(work, work.index, text)

    def _made(self, work: Work, index: int, text: str, status: Status = Status.KEPT) -> Thought:
        parents = tuple(parent.id for parent in work.parents)
        return Thought(
            thought_id(work.step, parents, index=index),
            work.operation.name,
            work.operation.kind,
            parents,
            work.path,
            text=text,
            status=status,
            tokens=self.tokens,
        )

    async def grow(self, plan: Plan, **budget: float) -> Grown:
        spent = Spending(Budget(**budget), Sampling(max_tokens=10))  # pyright: ignore
        return await run_plan(plan, ROOT, self.perform, spent, regrow=False, journal=self)


def _text(work: Work) -> str:
    return f"{work.operation.name}({','.join(parent.text for parent in work.parents)})"


THINK = split(letters) >> generate("", name="g") >> generate("", name="h")


async def test_a_first_join_goes_on_with_those_that_are_there_and_cancels_the_rest() -> None:
    stage = Stage()
    stage.hold("h(g(a))", "g(c)")
    grown = await stage.grow(THINK >> aggregate("", name="join", join=first(2)))
    assert [t.text for t in grown.kept] == ["join(h(g(b)),h(g(d)))"]
    why = "enough others were there first"
    assert stage.cancelled == {"h(g(a))": why, "g(c)": why}
    assert set(stage.dropped) == {"a", "g(a)", "c"}
    assert set(stage.dropped.values()) == {"lost to the first 2 of join"}
    assert len(stage.settled) == 1


async def test_the_winners_are_written_down_before_they_go_on() -> None:
    stage = Stage()
    seen: list[bool] = []

    class Watching(Stage):
        async def perform(self, work: Work) -> Sequence[Thought]:
            if work.operation.name == "join" and not isinstance(work.operation, Choose):
                seen.append(bool(self.settled))
            return await super().perform(work)

    stage = Watching()
    await stage.grow(THINK >> aggregate("", name="join", join=first(2)))
    assert seen == [True]


async def test_a_resumed_run_waits_for_the_winners_it_had() -> None:
    before = Stage()
    before.hold("g(a)", "g(c)")
    plan = THINK >> aggregate("", name="join", join=first(2))
    grown = await before.grow(plan)
    after = Stage(settled=before.settled)
    again = await after.grow(plan)
    assert [t.id for t in again.kept] == [t.id for t in grown.kept]


async def test_what_is_recorded_goes_first_so_that_old_losers_are_not_started_again() -> None:
    before = Stage()
    before.hold("g(a)", "g(c)")
    plan = THINK >> aggregate("", name="join", join=first(2))
    await before.grow(plan)
    old = {"g(b)", "g(d)", "h(g(b))", "h(g(d))"}
    after = Stage(settled=before.settled, old=old)
    await after.grow(plan)
    assert set(after.started) == old | {"join(h(g(b)),h(g(d)))"}


async def test_a_first_join_that_too_few_reach_fails() -> None:
    stage = Stage()
    grown = await stage.grow(THINK >> keep_best(1, join=first(5)))
    assert grown.kept == ()


async def test_a_first_join_stops_nothing_that_others_wait_for() -> None:
    stage = Stage()
    join = aggregate("", name="join", join=first(1))
    grown = await stage.grow(THINK >> (join & generate("", name="other")))
    assert sorted(t.text for t in grown.kept)[0].startswith("join(")
    assert len(grown.kept) == 5
    assert stage.cancelled == {}


async def test_a_first_join_inside_each_waits_for_that_thoughts_own_children() -> None:
    stage = Stage()
    stage.hold("g(b)")
    inner = generate("", n=1, name="g") >> aggregate("", name="join", join=first(1))
    running = asyncio.ensure_future(stage.grow(split(letters) >> each(inner)))
    await asyncio.sleep(0.05)
    stage.gates["g(b)"].set()
    grown = await running
    assert [t.text for t in grown.kept] == [f"join(g({letter}))" for letter in "abcd"]


async def test_the_first_plan_to_end_wins_the_race_and_the_others_are_cancelled() -> None:
    stage = Stage()
    stage.hold("slow(ready(a))")
    slow = generate("", name="ready") >> generate("", name="slow") >> generate("", name="end")
    quick = generate("", name="one") >> generate("", name="two")
    grown = await stage.grow(split(lambda scene: [("a", 0)]) >> race(slow, quick))
    assert [t.text for t in grown.kept] == ["two(one(a))"]
    assert stage.cancelled == {"slow(ready(a))": "lost the race"}
    assert stage.dropped == {"ready(a)": "lost the race"}


async def test_a_racer_that_comes_to_nothing_wins_nothing() -> None:
    stage = Stage()
    empty = split(lambda scene: [], name="nothing")
    slow = generate("", name="a") >> generate("", name="b")
    grown = await stage.grow(race(empty, slow))
    assert [t.text for t in grown.kept] == ["b(a(abcd))"]


async def test_a_race_is_run_again_as_it_was_decided() -> None:
    plan = split(letters) >> race(generate("", name="x"), generate("", name="y"))
    before = Stage()
    before.hold("x(a)", "y(b)", "x(c)", "y(d)")
    grown = await before.grow(plan)
    assert [t.text for t in grown.kept] == ["y(a)", "x(b)", "y(c)", "x(d)"]
    after = Stage(settled=dict(before.settled))
    assert [t.id for t in (await after.grow(plan)).kept] == [t.id for t in grown.kept]


async def test_a_thought_that_comes_too_late_is_dropped() -> None:
    class Stubborn(Stage):
        """Finishes what it has begun, whatever it is told."""

        async def _think(self, work: Work) -> Thought:
            try:
                return await super()._think(work)
            except asyncio.CancelledError:
                return self._made(work, work.index, _text(work))

    stage = Stubborn()
    stage.hold("slow(abcd)")
    grown = await stage.grow(race(generate("", name="quick"), generate("", name="slow")))
    assert [t.text for t in grown.kept] == ["quick(abcd)"]
    assert stage.dropped == {"slow(abcd)": "lost the race"}


# Budgets


async def test_a_branch_that_has_spent_its_budget_goes_on_with_what_it_has() -> None:
    stage = Stage(tokens=10)
    inner = generate("", n=4, name="g") >> aggregate("", name="join")
    grown = await stage.grow(split(letters) >> each(inner, budget=Budget(tokens=30)))
    assert len(grown.kept) == 0  # nothing was left for the join
    assert sum(text.startswith("g(") for text in stage.started) == 12
    kept = await Stage(tokens=10).grow(
        split(letters)
        >> each(generate("", n=4, name="g") >> keep_best(9), budget=Budget(tokens=30))
    )
    assert len(kept.kept) == 12
    assert kept.ended is None
    assert kept.left == 4


async def test_a_full_branch_holds_no_other_up() -> None:
    stage = Stage()
    stage.hold("g(a)")
    inner = generate("", n=3, name="g")
    plan = split(letters) >> each(inner, budget=Budget(in_flight=1))
    running = asyncio.ensure_future(stage.grow(plan, in_flight=4))
    await asyncio.sleep(0.05)
    assert stage.started.count("g(a)") == 1
    assert [stage.started.count(f"g({letter})") for letter in "bcd"] == [3, 3, 3]
    stage.gates["g(a)"].set()
    assert len((await running).kept) == 12


async def test_depth_and_breadth_are_limits_of_their_own() -> None:
    def never(thought: Thought) -> bool:
        return False

    stage = Stage()
    deep = repeat(generate("", name="g"), until=never, at_most=9)
    await stage.grow(deep, depth=3)
    assert len(stage.started) == 3
    stage = Stage()
    broad = repeat(generate("", n=3, name="g"), until=never, at_most=3)
    grown = await stage.grow(broad, breadth=5)
    assert len(stage.started) == 3 + 5 + 5
    assert grown.left == 4 + 10
    assert any("5 thoughts stand at depth 2 already" in why for why in stage.noted.values())


async def test_a_run_that_is_out_of_tokens_still_comes_to_its_end_with_what_is_there() -> None:
    stage = Stage(tokens=10)

    class Paying(Stage):
        async def grow(self, plan: Plan, **budget: float) -> Grown:
            spent = Spending(Budget(**budget), Sampling(max_tokens=10))  # pyright: ignore

            async def perform(work: Work) -> Sequence[Thought]:
                thoughts = await self.perform(work)
                for thought in thoughts:
                    if thought.id not in seen:
                        seen.add(thought.id)
                        spent.spend(thought)
                return thoughts

            seen: set[str] = set()
            return await run_plan(plan, ROOT, perform, spent, regrow=False, journal=self)

    plan = generate("", n=5, name="g") >> score(lambda scene: 1.0) >> keep_best(1)
    stage = Paying(tokens=10)
    grown = await stage.grow(plan, tokens=35)
    assert [t.text for t in grown.kept] == ["g(abcd)"]
    assert (grown.ended or "").startswith("30 of 35 tokens are spent")
    assert grown.left == 2
    assert stage.noted["budget"] == grown.ended
    unfinished = await Paying(tokens=10).grow(plan >> generate("", name="h"), tokens=25)
    assert [(t.text, t.score) for t in unfinished.kept] == [("g(abcd)", 1.0)]


async def test_a_branch_whose_time_is_up_is_cancelled_alone() -> None:
    stage = Stage()
    stage.hold("g(a)")
    plan = split(letters) >> each(generate("", name="g"), budget=Budget(seconds=0.1))
    grown = await stage.grow(plan)
    assert [t.text for t in grown.kept] == ["g(b)", "g(c)", "g(d)"]
    assert stage.cancelled == {"g(a)": "the budget of 0.1 seconds is spent"}
    assert (grown.ended, grown.left) == (None, 1)


# Any timing


def place(thought: Thought) -> float:
    """Any number that depends on the thought alone."""
    return int(thought.id, 16) % 97


def by_place(scene: Scene) -> float:
    return place(scene.parents[0])


def more(scene: Scene) -> Plan | None:
    return generate("", n=2, name="more") if by_place(scene) > 30 else None


STEP = generate("", n=2, name="step")
SEARCHES = {
    "beam": beam(STEP, width=2, depth=3, score=by_place),
    "best first": best_first(STEP, expansions=6, parallel=3, keep=2, score=by_place),
    "smc": smc(STEP, particles=4, steps=3, weight=lambda t: -place(t) / 30),
    "grow": each(grow(more, rounds=3)),
    "merges": each(STEP >> score(by_place) >> keep_best(1)) >> pairwise(aggregate("", name="m")),
}


@pytest.mark.parametrize("search", SEARCHES)
@settings(deadline=None, max_examples=15)
@given(seed=st.integers(0, 10**6), width=st.integers(1, 16))
def test_the_same_graph_grows_whatever_ends_first(search: str, seed: int, width: int) -> None:
    class Shuffled(Stage):
        made: dict[str, str]

        async def perform(self, work: Work) -> Sequence[Thought]:
            for _ in range(rng.randrange(8)):
                await asyncio.sleep(0)
            thoughts = await super().perform(work)
            self.made = getattr(self, "made", {}) | {t.id: t.text for t in thoughts}
            return thoughts

    plan = split(letters) >> SEARCHES[search]
    rng = random.Random(0)
    straight = Shuffled()
    kept = asyncio.run(straight.grow(plan)).kept
    rng = random.Random(seed)
    shuffled = Shuffled()
    assert asyncio.run(shuffled.grow(plan, in_flight=width)).kept == kept
    assert shuffled.made == straight.made
    assert shuffled.dropped == straight.dropped
    assert sorted(shuffled.started) == sorted(straight.started)
