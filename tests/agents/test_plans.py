"""Plans decide what may happen next; here a pure worker does it, in any order."""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from secateur.agents.errors import PlanError
from secateur.agents.joins import at_least
from secateur.agents.machines import Growth, Work
from secateur.agents.operations import (
    Apply,
    Ask,
    Check,
    Choose,
    Expand,
    Fail,
    KeepBest,
    KeepValid,
    Score,
    Select,
    Split,
)
from secateur.agents.path import Path
from secateur.agents.plan import (
    Plan,
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
from secateur.agents.searching import beam, best_first, smc
from secateur.agents.thought import Scene, Status, Thought, thought_id

pytestmark = pytest.mark.filterwarnings("ignore:Generating overly large repr")

Fate = Callable[[Work], Status]


def kept_always(work: Work) -> Status:
    return Status.KEPT


@dataclass
class Garden:
    """Grows a plan; what comes of a piece of work depends on its place in the graph alone."""

    fate: Fate = kept_always
    regrow: bool = False
    done: list[Work] = field(default_factory=list)
    made: dict[str, Thought] = field(default_factory=dict)

    def grow(
        self, plan: Plan, root: str = "root", order: random.Random | None = None
    ) -> list[Thought]:
        """The plan's output in the graph's order; ``order`` shuffles which work ends first."""
        out: list[Thought] = []
        growth = Growth(self.regrow)
        machine = plan.start(growth, 0)
        machine.out = out.append
        seed = Thought("0" * 16, "task", "task", text=root, value=root)
        self.made[seed.id] = seed
        machine.push(seed)
        machine.close()
        running = growth.ask()
        while running:
            work = running.pop(order.randrange(len(running)) if order else 0)
            self.done.append(work)
            growth.tell(work, self.perform(work))
            running += growth.ask()
        return sorted(out, key=lambda thought: thought.path)

    def perform(self, work: Work) -> Sequence[Thought]:
        scene = Scene(work.parents[0].text, work.parents, work.parents, self.made)
        match work.operation:
            case Ask(unless=unless) if unless is not None and unless(scene):
                return work.parents
            case Ask(kind="grade" | "vote", parse=parse) if parse is not None:
                answer = str(1 + work.index % 2)
                try:
                    value, fate = parse(answer), self.fate(work)
                except ValueError:
                    value, fate = None, Status.FAILED
                return [self._new(work, work.index, answer, fate, value=value)]
            case Ask(name=name):
                text = name + "(" + ",".join(parent.text for parent in work.parents) + ")"
                return [self._new(work, work.index, text, self.fate(work))]
            case Apply(by=by):
                return [self._new(work, work.index, by(scene), Status.KEPT)]
            case Check(by=by):
                said = by(scene)
                wrong = isinstance(said, str)
                return [self._new(work, 0, said, Status.KEPT)] if wrong else work.parents
            case Select(by=by):
                return list(by(scene))  # pyright: ignore[reportArgumentType]
            case Choose(dropped=dropped):
                gone = {thought.id for thought in dropped()}
                return [thought for thought in work.parents if thought.id not in gone]
            case Expand(by=by):
                by(scene)
                return work.parents
            case Fail(reason=why):
                return [self._new(work, work.index, why, Status.FAILED)]
            case Score(by=by):
                return [replace(work.parents[0], score=by(scene))]
            case KeepBest(n=n, lowest=lowest):
                sign = 1 if lowest else -1
                ranked = sorted(work.parents, key=lambda t: sign * (t.score or 0))
                return ranked[:n]
            case KeepValid(by=by):
                return work.parents if by(scene) else []
            case Split(by=by):
                return [
                    self._new(work, i, text, Status.KEPT, work.path.below(i))
                    for i, (text, _) in enumerate(by(scene))
                ]
            case other:
                raise AssertionError(other)

    def _new(
        self,
        work: Work,
        index: int,
        text: str,
        status: Status,
        path: Path | None = None,
        value: object = None,
    ) -> Thought:
        parents = tuple(parent.id for parent in work.parents)
        id = thought_id(work.step, parents, index=index, prompt=str(work.banned))
        thought = Thought(
            id,
            work.operation.name,
            work.operation.kind,
            parents,
            path or work.path,
            text=text,
            value=value,
            status=status,
        )
        self.made[id] = thought
        return thought

    def count(self, name: str) -> int:
        return sum(work.operation.name == name for work in self.done)


def letters(scene: Scene) -> list[tuple[str, str]]:
    return [(letter, letter) for letter in scene.text]


def by_place(scene: Scene) -> float:
    """Any number that depends on the thought alone."""
    return int(scene.parents[0].id, 16) % 97


def test_generate_makes_n_children_with_places_of_their_own() -> None:
    kept = Garden().grow(generate("", n=3, name="g"))
    assert [thought.path for thought in kept] == [(0, 0), (0, 1), (0, 2)]
    assert len({thought.id for thought in kept}) == 3


def test_a_chain_feeds_every_thought_to_the_next_operation() -> None:
    garden = Garden()
    kept = garden.grow(generate("", n=2, name="a") >> generate("", n=3, name="b"))
    assert [t.text for t in kept] == ["b(a(root))"] * 6
    assert (garden.count("a"), garden.count("b")) == (2, 6)


def test_aggregate_waits_for_all_parents_and_takes_them_in_the_graphs_order() -> None:
    plan = split(letters) >> aggregate("", name="join")
    for seed in range(5):
        kept = Garden().grow(plan, "cab", random.Random(seed))
        assert [t.text for t in kept] == ["join(c,a,b)"]


def test_keep_best_keeps_the_highest_and_with_lowest_the_lowest() -> None:
    def size(scene: Scene) -> float:
        return ord(scene.text)

    plan = split(letters) >> score(size)
    assert [t.text for t in Garden().grow(plan >> keep_best(2), "dabc")] == ["d", "c"]
    assert [t.text for t in Garden().grow(plan >> keep_best(1, lowest=True), "dabc")] == ["a"]


def test_each_keeps_the_best_of_every_parents_own_children() -> None:
    attempts = generate("", n=3, name="g") >> score(by_place) >> keep_best(1)
    together = Garden().grow(split(letters) >> attempts, "abc")
    apart = Garden().grow(split(letters) >> each(attempts), "abc")
    assert len(together) == 1
    assert [t.text for t in apart] == ["g(a)", "g(b)", "g(c)"]


def test_pairwise_joins_until_one_is_left_and_an_odd_one_waits() -> None:
    merged = split(letters) >> pairwise(aggregate("", name="m"))
    assert [t.text for t in Garden().grow(merged, "abcd")] == ["m(m(a,b),m(c,d))"]
    assert [t.text for t in Garden().grow(merged, "abc")] == ["m(m(a,b),c)"]
    assert [t.text for t in Garden().grow(merged, "a")] == ["a"]


def test_a_pairwise_that_joins_nothing_ends() -> None:
    garden = Garden()
    kept = garden.grow(split(letters) >> pairwise(keep_valid(lambda scene: True)), "abcd")
    assert [t.text for t in kept] == ["a", "b", "c", "d"]
    assert len(garden.done) == 5


def test_both_branches_get_every_thought_and_a_merge_follows() -> None:
    plan = split(letters) >> (generate("", name="x") & generate("", name="y"))
    kept = Garden().grow(plan >> aggregate("", name="join"), "ab")
    assert [t.text for t in kept] == ["join(x(a),y(a),x(b),y(b))"]


def test_a_thought_that_two_branches_pass_through_counts_once() -> None:
    same = keep_valid(lambda scene: True, name="pass")
    garden = Garden()
    kept = garden.grow(split(letters) >> (same & same) >> generate("", name="g"), "ab")
    assert [t.text for t in kept] == ["g(a)", "g(b)"]


def test_refine_passes_a_good_thought_through_unasked() -> None:
    plan = split(letters) >> refine("", unless=lambda scene: scene.text == "a", n=2, name="fix")
    assert [t.text for t in Garden().grow(plan >> keep_best(9), "ab")] == ["a", "fix(b)", "fix(b)"]


def test_repeat_stops_when_a_thought_is_good_or_the_rounds_are_spent() -> None:
    step = generate("", name="g")
    until = repeat(step, until=lambda thought: thought.text.count("g") == 2, at_most=9)
    assert [t.text for t in Garden().grow(until)] == ["g(g(root))"]
    spent = repeat(step, until=lambda thought: False, at_most=3)
    assert [t.text for t in Garden().grow(spent)] == ["g(g(g(root)))"]


def test_a_round_that_passes_its_thought_through_is_not_repeated_for_ever() -> None:
    garden = Garden()
    same = keep_valid(lambda scene: True, name="pass")
    assert len(garden.grow(repeat(same, until=lambda thought: False, at_most=100))) == 1
    assert garden.count("pass") == 1


# Judging, mending, choosing


def test_a_grade_is_the_mean_of_what_the_model_says() -> None:
    garden = Garden()
    kept = garden.grow(split(letters) >> grade("how good?", n=4), "ab")
    assert [(t.text, t.score) for t in kept] == [("a", 1.5), ("b", 1.5)]
    assert garden.count("grade") == 8


def test_a_thought_that_nobody_graded_fails_alone() -> None:
    def fate(work: Work) -> Status:
        unlucky = work.operation.name == "grade" and work.parents[0].text == "a"
        return Status.PRUNED if unlucky else Status.KEPT

    garden = Garden(fate)
    assert [t.text for t in garden.grow(split(letters) >> grade("", n=2), "ab")] == ["b"]
    assert "none of 2 grades came" in {t.text for t in garden.made.values()}


def test_votes_are_cast_once_all_candidates_are_there_and_counted_as_shares() -> None:
    kept = Garden().grow(split(letters) >> vote("which of {texts}?", n=3), "abc")
    assert [(t.text, t.score) for t in kept] == [("a", 2 / 3), ("b", 1 / 3), ("c", 0.0)]


def test_what_a_check_finds_fault_with_is_mended_until_it_is_right() -> None:
    def short(scene: Scene) -> str | None:
        return "too short" if scene.text.count("fix") < 2 else None

    garden = Garden()
    kept = garden.grow(improve("{text} is {error}", check=short, rounds=2, name="fix"), "x")
    assert [t.text for t in kept] == ["fix(fix(x,too short),too short)"]
    assert [garden.made[id].text for id in kept[0].parents] == ["fix(x,too short)", "too short"]


def test_what_is_still_wrong_after_all_rounds_is_dropped() -> None:
    garden = Garden()
    plan = split(letters) >> improve("", check=lambda scene: "bad", rounds=2, name="fix")
    assert garden.grow(plan, "ab") == []
    assert garden.count("fix") == 4


def test_select_keeps_what_the_users_function_chooses() -> None:
    plan = split(letters) >> select(lambda scene: [t for t in scene.parents if t.text > "b"])
    assert [t.text for t in Garden().grow(plan, "dabc")] == ["d", "c"]


def test_an_operation_of_ones_own_is_a_function() -> None:
    @operation
    def shout(scene: Scene) -> str:
        return scene.text.upper()

    joined = operation(lambda scene: "+".join(t.text for t in scene.parents), join="all")
    assert [t.text for t in Garden().grow(split(letters) >> shout >> joined, "ab")] == ["A+B"]


def test_at_least_k_goes_on_with_all_that_survive_and_fails_with_fewer() -> None:
    def fate(work: Work) -> Status:
        return Status.PRUNED if work.parents[0].text in "ab" else Status.KEPT

    for k, texts in ((2, ["join(g(c),g(d))"]), (3, [])):
        garden = Garden(fate)
        plan = split(letters) >> generate("", name="g")
        kept = garden.grow(plan >> aggregate("", name="join", join=at_least(k)), "abcd")
        assert [t.text for t in kept] == texts
    failed = [t.text for t in garden.made.values() if t.status is Status.FAILED]
    assert failed == ["it joins at least 3, and 2 came"]


# Growing


def test_a_plan_grows_by_a_function_that_sees_results() -> None:
    def more(scene: Scene) -> Plan | None:
        if len(scene.parents) > 1:
            return aggregate("", name="join")
        if scene.text.count("g") < 2:
            return generate("", n=2, name="g")
        return None

    kept = Garden().grow(grow(more, rounds=9), "x")
    assert [t.text for t in kept] == ["join(g(x),g(x))"]


def test_a_plan_that_always_wants_more_ends_after_its_rounds() -> None:
    garden = Garden()
    kept = garden.grow(grow(lambda scene: generate("", name="g"), rounds=3), "x")
    assert [t.text for t in kept] == ["g(g(g(x)))"]


def test_what_grows_keeps_apart_from_what_follows() -> None:
    plan = grow(lambda scene: generate("", name="g"), rounds=1) >> generate("", name="g")
    garden = Garden()
    assert [t.text for t in garden.grow(plan, "x")] == ["g(g(x))"]
    assert len({thought.path for thought in garden.made.values()}) == 3


def test_a_function_of_the_plan_that_raises_fails_its_own_branch() -> None:
    def until(thought: Thought) -> bool:
        if thought.text == "a":
            raise KeyError("no such thing")
        return True

    garden = Garden()
    plan = split(letters) >> repeat(generate("", name="g"), until=until, at_most=2)
    assert [t.text for t in garden.grow(plan, "ab")] == ["b"]
    failed = [t.text for t in garden.made.values() if t.status is Status.FAILED]
    assert failed == ["until= raised KeyError: 'no such thing'"]


# Pruned branches


def pruned_below(limit: int) -> Fate:
    """Children with an index below ``limit`` are pruned."""
    return lambda work: Status.PRUNED if work.index < limit else Status.KEPT


def test_nothing_grows_below_a_pruned_thought() -> None:
    garden = Garden(fate=pruned_below(1))
    kept = garden.grow(generate("", n=2, name="a") >> keep_best(5) >> keep_valid(letters))
    assert [t.path for t in kept] == [(0, 1)]
    assert all(parent.lives for work in garden.done for parent in work.parents)


def test_a_spare_child_replaces_a_pruned_one() -> None:
    garden = Garden(fate=pruned_below(2))
    kept = garden.grow(generate("", n=1, spare=3, name="g"))
    assert [t.path for t in kept] == [(0, 2)]
    assert garden.count("g") == 3


def test_spare_children_are_not_asked_for_when_nothing_is_lost() -> None:
    garden = Garden()
    garden.grow(generate("", n=2, spare=3, name="g"))
    assert garden.count("g") == 2


def test_a_failed_child_is_replaced_but_never_regrown_with_a_ban() -> None:
    garden = Garden(fate=lambda work: Status.FAILED, regrow=True)
    assert garden.grow(generate("", n=1, spare=2, name="g")) == []
    assert [work.banned for work in garden.done] == [False, False, False]


def test_a_barren_node_is_regrown_once_with_the_tags_banned() -> None:
    def fate(work: Work) -> Status:
        return Status.KEPT if work.banned else Status.PRUNED

    garden = Garden(fate=fate, regrow=True)
    assert len(garden.grow(generate("", n=2, spare=1, name="g"))) == 1
    assert [work.banned for work in garden.done] == [False, False, False, True]


def test_a_regrown_child_that_is_pruned_too_is_given_up() -> None:
    garden = Garden(fate=lambda work: Status.PRUNED, regrow=True)
    assert garden.grow(generate("", n=2, name="g")) == []
    assert garden.count("g") == 3


def test_without_regrow_a_barren_node_is_given_up() -> None:
    garden = Garden(fate=lambda work: Status.PRUNED, regrow=False)
    assert garden.grow(generate("", n=2, name="g")) == []
    assert garden.count("g") == 2


def test_a_node_that_waits_for_a_person_is_not_regrown() -> None:
    garden = Garden(fate=lambda work: Status.ESCALATED, regrow=True)
    assert garden.grow(generate("", n=1, spare=3, name="g")) == []
    assert garden.count("g") == 1


def test_a_merge_goes_on_with_the_parents_that_survived() -> None:
    garden = Garden(fate=pruned_below(1))
    kept = garden.grow(generate("", n=3, name="g") >> keep_best(9, name="k"))
    assert [t.path for t in kept] == [(0, 1), (0, 2)]


# Any order

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
    plan: Plan, order: random.Random, regrow: bool
) -> None:
    straight, shuffled = Garden(by_chance, regrow), Garden(by_chance, regrow)
    kept = straight.grow(plan)
    assert [t.id for t in shuffled.grow(plan, order=order)] == [t.id for t in kept]
    assert {_mark(w) for w in shuffled.done} == {_mark(w) for w in straight.done}
    assert len(shuffled.done) == len(straight.done)
    assert shuffled.made == straight.made


def _mark(work: Work) -> tuple[object, ...]:
    parents = tuple(parent.id for parent in work.parents)
    return work.operation.name, parents, work.path, work.index, work.banned


@given(plan=plans)
def test_thoughts_have_paths_of_their_own(plan: Plan) -> None:
    garden = Garden(by_chance)
    garden.grow(plan)
    paths = [thought.path for thought in garden.made.values()]
    assert len(set(paths)) == len(paths)


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


# Places in the graph

numbers = st.lists(st.integers(0, 3), max_size=5)


@given(one=numbers, two=numbers, more=numbers)
def test_a_path_compares_as_the_tuple_of_its_numbers(
    one: list[int], two: list[int], more: list[int]
) -> None:
    left, right = Path(*one), Path(*two)
    assert tuple(left.below(*more)) == (*one, *more)
    assert (left < right) == (tuple(one) < tuple(two))
    assert (left == right) == (one == two)
    assert left == tuple(one)
    assert len(left) == len(one)
    assert [left[-i - 1] for i in range(len(one))] == one[::-1]
    shared = left.below(1)
    assert sorted([shared.below(2, 0), shared, shared.below(1, 9)]) == [
        shared,
        shared.below(1, 9),
        shared.below(2, 0),
    ]


def test_a_long_chain_of_thoughts_can_be_let_go_of() -> None:
    path = Path()
    for _ in range(200_000):
        path = path.below(0, 0)
    assert len(path) == 400_000
    del path
