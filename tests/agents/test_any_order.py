"""Any plan comes to the same graph, in whatever order its work ends."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from secateur.agents.plans.composition import Plan
from secateur.agents.plans.joins import at_least
from secateur.agents.plans.machines import Work
from secateur.agents.plans.operations import Ask
from secateur.agents.plans.words import (
    aggregate,
    each,
    generate,
    grade,
    grow,
    improve,
    keep_best,
    keep_valid,
    operation,
    pairwise,
    refine,
    repeat,
    score,
    select,
    split,
    vote,
)
from secateur.agents.search.search import beam, best_first, smc
from secateur.agents.thought import Scene, Status, Thought

pytestmark = pytest.mark.filterwarnings("ignore:Generating overly large repr")


def by_place(scene: Scene) -> float:
    """Any number that depends on the thought alone."""
    return int(scene.parents[0].id, 16) % 97


single = st.sampled_from(
    [
        aggregate("", name="join"),
        generate("", name="one"),
        score(by_place) >> keep_best(1),
    ]
)
leaves = st.one_of(
    st.builds(
        lambda n, spare: generate("", n=n, spare=spare, name=f"g{n}{spare}"),
        st.integers(1, 2),
        st.integers(0, 2),
    ),
    single,
    st.just(split(lambda scene: [("l", 0), ("r", 1)], name="halves")),
    st.just(keep_valid(lambda scene: by_place(scene) > 20, name="above 20")),
    st.just(refine("", unless=lambda scene: by_place(scene) > 50, name="fix")),
    st.just(grade("", n=2)),
    st.just(vote("", n=2)),
    st.just(operation(lambda scene: scene.text + "!", name="mark")),
    st.just(improve("", check=lambda scene: None if by_place(scene) > 40 else "low", name="mend")),
    st.just(select(lambda scene: scene.parents[::2], name="every other")),
    st.just(aggregate("", join=at_least(2), name="two")),
)


def heavy(thought: Thought) -> float:
    """Any logarithm of a weight that depends on the thought alone; some are a veto."""
    place = int(thought.id, 16) % 97
    return -place / 20 if place > 10 else float("-inf")


def one_more(scene: Scene) -> Plan | None:
    return generate("", n=2, name="more") if by_place(scene) > 30 else None


def searches(step: st.SearchStrategy[Plan]) -> st.SearchStrategy[Plan]:
    small = st.integers(1, 3)
    return st.one_of(
        st.builds(lambda a, w, d: beam(a, width=w, depth=d, score=by_place), step, small, small),
        st.builds(
            lambda a, n, p: best_first(a, expansions=n, parallel=p, keep=2, score=by_place),
            step,
            small,
            small,
        ),
        st.builds(lambda a, n, s: smc(a, particles=n, steps=s, weight=heavy), step, small, small),
    )


plans = st.recursive(
    leaves,
    lambda inner: st.one_of(
        st.builds(lambda a, b: a >> b, inner, inner),
        st.builds(lambda a, b: a & b, inner, inner),
        st.builds(each, inner),
        st.builds(pairwise, single),
        st.builds(
            lambda a: repeat(a, until=lambda t: by_place(Scene("", (t,), ())) > 80, at_most=2),
            inner,
        ),
        searches(inner),
        st.just(grow(one_more, rounds=2)),
    ),
    max_leaves=5,
)


def by_chance(work: Work) -> Status:
    """A third is pruned and a few fail, as the place in the graph has it."""
    if isinstance(work.operation, Ask) and work.operation.kind in ("grade", "vote"):
        return Status.KEPT
    draw = random.Random(f"{work.path} {work.banned}").random()
    return Status.PRUNED if draw < 0.3 else Status.FAILED if draw < 0.4 else Status.KEPT


@given(plan=plans, order=st.randoms(use_true_random=False), regrow=st.booleans())
def test_what_grows_does_not_depend_on_the_order_in_which_work_ends(
    plant, plan: Plan, order: random.Random, regrow: bool
) -> None:
    straight, shuffled = plant(by_chance, regrow), plant(by_chance, regrow)
    kept = straight.grow(plan)
    assert [t.id for t in shuffled.grow(plan, order=order)] == [t.id for t in kept]
    assert {_mark(w) for w in shuffled.done} == {_mark(w) for w in straight.done}
    assert len(shuffled.done) == len(straight.done)
    assert shuffled.made == straight.made


def _mark(work: Work) -> tuple[object, ...]:
    parents = tuple(parent.id for parent in work.parents)
    return work.operation.name, parents, work.path, work.index, work.banned


@given(plan=plans)
def test_thoughts_have_paths_of_their_own(plant, plan: Plan) -> None:
    garden = plant(by_chance)
    garden.grow(plan)
    paths = [thought.path for thought in garden.made.values()]
    assert len(set(paths)) == len(paths)
