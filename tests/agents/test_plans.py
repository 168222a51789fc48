"""Plans decide what may happen next; here a pure worker does it."""

import random
from collections.abc import Callable

import pytest

from secateur.agents.errors import PlanError
from secateur.agents.plans.composition import Plan
from secateur.agents.plans.joins import at_least
from secateur.agents.plans.machines import Work
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
from secateur.agents.thought import Scene, Status, Thought

pytestmark = pytest.mark.filterwarnings("ignore:Generating overly large repr")


def letters(scene: Scene) -> list[tuple[str, str]]:
    return [(letter, letter) for letter in scene.text]


def by_place(scene: Scene) -> float:
    """Any number that depends on the thought alone."""
    return int(scene.parents[0].id, 16) % 97


def test_generate_makes_n_children_with_places_of_their_own(plant) -> None:
    kept = plant().grow(generate("", n=3, name="g"))
    assert [thought.path for thought in kept] == [(0, 0), (0, 1), (0, 2)]
    assert len({thought.id for thought in kept}) == 3


def test_a_chain_feeds_every_thought_to_the_next_operation(plant) -> None:
    garden = plant()
    kept = garden.grow(generate("", n=2, name="a") >> generate("", n=3, name="b"))
    assert [t.text for t in kept] == ["b(a(root))"] * 6
    assert (garden.count("a"), garden.count("b")) == (2, 6)


def test_aggregate_waits_for_all_parents_and_takes_them_in_the_graphs_order(plant) -> None:
    plan = split(letters) >> aggregate("", name="join")
    for seed in range(5):
        kept = plant().grow(plan, "cab", random.Random(seed))
        assert [t.text for t in kept] == ["join(c,a,b)"]


def test_keep_best_keeps_the_highest_and_with_lowest_the_lowest(plant) -> None:
    def size(scene: Scene) -> float:
        return ord(scene.text)

    plan = split(letters) >> score(size)
    assert [t.text for t in plant().grow(plan >> keep_best(2), "dabc")] == ["d", "c"]
    assert [t.text for t in plant().grow(plan >> keep_best(1, lowest=True), "dabc")] == ["a"]


def test_each_keeps_the_best_of_every_parents_own_children(plant) -> None:
    attempts = generate("", n=3, name="g") >> score(by_place) >> keep_best(1)
    together = plant().grow(split(letters) >> attempts, "abc")
    apart = plant().grow(split(letters) >> each(attempts), "abc")
    assert len(together) == 1
    assert [t.text for t in apart] == ["g(a)", "g(b)", "g(c)"]


def test_pairwise_joins_until_one_is_left_and_an_odd_one_waits(plant) -> None:
    merged = split(letters) >> pairwise(aggregate("", name="m"))
    assert [t.text for t in plant().grow(merged, "abcd")] == ["m(m(a,b),m(c,d))"]
    assert [t.text for t in plant().grow(merged, "abc")] == ["m(m(a,b),c)"]
    assert [t.text for t in plant().grow(merged, "a")] == ["a"]


def test_a_pairwise_that_joins_nothing_ends(plant) -> None:
    garden = plant()
    kept = garden.grow(split(letters) >> pairwise(keep_valid(lambda scene: True)), "abcd")
    assert [t.text for t in kept] == ["a", "b", "c", "d"]
    assert len(garden.done) == 5


def test_both_branches_get_every_thought_and_a_merge_follows(plant) -> None:
    plan = split(letters) >> (generate("", name="x") & generate("", name="y"))
    kept = plant().grow(plan >> aggregate("", name="join"), "ab")
    assert [t.text for t in kept] == ["join(x(a),y(a),x(b),y(b))"]


def test_a_thought_that_two_branches_pass_through_counts_once(plant) -> None:
    same = keep_valid(lambda scene: True, name="pass")
    garden = plant()
    kept = garden.grow(split(letters) >> (same & same) >> generate("", name="g"), "ab")
    assert [t.text for t in kept] == ["g(a)", "g(b)"]


def test_refine_passes_a_good_thought_through_unasked(plant) -> None:
    plan = split(letters) >> refine("", unless=lambda scene: scene.text == "a", n=2, name="fix")
    assert [t.text for t in plant().grow(plan >> keep_best(9), "ab")] == ["a", "fix(b)", "fix(b)"]


def test_repeat_stops_when_a_thought_is_good_or_the_rounds_are_spent(plant) -> None:
    step = generate("", name="g")
    until = repeat(step, until=lambda thought: thought.text.count("g") == 2, at_most=9)
    assert [t.text for t in plant().grow(until)] == ["g(g(root))"]
    spent = repeat(step, until=lambda thought: False, at_most=3)
    assert [t.text for t in plant().grow(spent)] == ["g(g(g(root)))"]


def test_a_round_that_passes_its_thought_through_is_not_repeated_for_ever(plant) -> None:
    garden = plant()
    same = keep_valid(lambda scene: True, name="pass")
    assert len(garden.grow(repeat(same, until=lambda thought: False, at_most=100))) == 1
    assert garden.count("pass") == 1


# Judging, mending, choosing


def test_a_grade_is_the_mean_of_what_the_model_says(plant) -> None:
    garden = plant()
    kept = garden.grow(split(letters) >> grade("how good?", n=4), "ab")
    assert [(t.text, t.score) for t in kept] == [("a", 1.5), ("b", 1.5)]
    assert garden.count("grade") == 8


def test_a_thought_that_nobody_graded_fails_alone(plant) -> None:
    def fate(work: Work) -> Status:
        unlucky = work.operation.name == "grade" and work.parents[0].text == "a"
        return Status.PRUNED if unlucky else Status.KEPT

    garden = plant(fate)
    assert [t.text for t in garden.grow(split(letters) >> grade("", n=2), "ab")] == ["b"]
    assert "none of 2 grades came" in {t.text for t in garden.made.values()}


def test_votes_are_cast_once_all_candidates_are_there_and_counted_as_shares(plant) -> None:
    kept = plant().grow(split(letters) >> vote("which of {texts}?", n=3), "abc")
    assert [(t.text, t.score) for t in kept] == [("a", 2 / 3), ("b", 1 / 3), ("c", 0.0)]


def test_what_a_check_finds_fault_with_is_mended_until_it_is_right(plant) -> None:
    def short(scene: Scene) -> str | None:
        return "too short" if scene.text.count("fix") < 2 else None

    garden = plant()
    kept = garden.grow(improve("{text} is {error}", check=short, rounds=2, name="fix"), "x")
    assert [t.text for t in kept] == ["fix(fix(x,too short),too short)"]
    assert [garden.made[id].text for id in kept[0].parents] == ["fix(x,too short)", "too short"]


def test_what_is_still_wrong_after_all_rounds_is_dropped(plant) -> None:
    garden = plant()
    plan = split(letters) >> improve("", check=lambda scene: "bad", rounds=2, name="fix")
    assert garden.grow(plan, "ab") == []
    assert garden.count("fix") == 4


def test_select_keeps_what_the_users_function_chooses(plant) -> None:
    plan = split(letters) >> select(lambda scene: [t for t in scene.parents if t.text > "b"])
    assert [t.text for t in plant().grow(plan, "dabc")] == ["d", "c"]


def test_an_operation_of_ones_own_is_a_function(plant) -> None:
    @operation
    def shout(scene: Scene) -> str:
        return scene.text.upper()

    joined = operation(lambda scene: "+".join(t.text for t in scene.parents), join="all")
    assert [t.text for t in plant().grow(split(letters) >> shout >> joined, "ab")] == ["A+B"]


def test_at_least_k_goes_on_with_all_that_survive_and_fails_with_fewer(plant) -> None:
    def fate(work: Work) -> Status:
        return Status.PRUNED if work.parents[0].text in "ab" else Status.KEPT

    for k, texts in ((2, ["join(g(c),g(d))"]), (3, [])):
        garden = plant(fate)
        plan = split(letters) >> generate("", name="g")
        kept = garden.grow(plan >> aggregate("", name="join", join=at_least(k)), "abcd")
        assert [t.text for t in kept] == texts
    failed = [t.text for t in garden.made.values() if t.status is Status.FAILED]
    assert failed == ["it joins at least 3, and 2 came"]


# Growing


def test_a_plan_grows_by_a_function_that_sees_results(plant) -> None:
    def more(scene: Scene) -> Plan | None:
        if len(scene.parents) > 1:
            return aggregate("", name="join")
        if scene.text.count("g") < 2:
            return generate("", n=2, name="g")
        return None

    kept = plant().grow(grow(more, rounds=9), "x")
    assert [t.text for t in kept] == ["join(g(x),g(x))"]


def test_a_plan_that_always_wants_more_ends_after_its_rounds(plant) -> None:
    garden = plant()
    kept = garden.grow(grow(lambda scene: generate("", name="g"), rounds=3), "x")
    assert [t.text for t in kept] == ["g(g(g(x)))"]


def test_what_grows_keeps_apart_from_what_follows(plant) -> None:
    plan = grow(lambda scene: generate("", name="g"), rounds=1) >> generate("", name="g")
    garden = plant()
    assert [t.text for t in garden.grow(plan, "x")] == ["g(g(x))"]
    assert len({thought.path for thought in garden.made.values()}) == 3


def test_a_function_of_the_plan_that_raises_fails_its_own_branch(plant) -> None:
    def until(thought: Thought) -> bool:
        if thought.text == "a":
            raise KeyError("no such thing")
        return True

    garden = plant()
    plan = split(letters) >> repeat(generate("", name="g"), until=until, at_most=2)
    assert [t.text for t in garden.grow(plan, "ab")] == ["b"]
    failed = [t.text for t in garden.made.values() if t.status is Status.FAILED]
    assert failed == ["until= raised KeyError: 'no such thing'"]


# Plans put together wrongly


def test_a_plan_composes_with_plans_only() -> None:
    with pytest.raises(PlanError, match="wrap the function"):
        generate("hello") >> len  # pyright: ignore[reportOperatorIssue]


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: generate("x", n=0), "n of at least 1"),
        (lambda: generate("{tsk}"), r"\{tsk\}.*\{task\}"),
        (lambda: generate("{task"), "template is broken"),
        (lambda: generate(3), "is a int; give a template or a function"),  # pyright: ignore
        (lambda: keep_best(0), "keep at least 1"),
        (lambda: repeat(generate("x"), until=bool, at_most=0), "at least 1 round"),
    ],
)
def test_a_wrong_operation_is_refused_with_the_remedy(make: Callable[[], Plan], says: str) -> None:
    with pytest.raises(PlanError, match=says):
        make()


def test_a_plan_names_its_operations_after_the_users_functions() -> None:
    plan = split(letters) >> score(by_place) >> keep_best(2)
    assert [step.name for step in plan.steps()] == [
        "split letters",
        "score by place",
        "keep best 2",
    ]
