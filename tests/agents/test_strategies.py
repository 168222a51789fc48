"""Search strategies as the values they are: asked, told, and asked again."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from secateur.agents.errors import PlanError
from secateur.agents.path import Path
from secateur.agents.plans.words import generate
from secateur.agents.search.beam import Beam
from secateur.agents.search.best_first import BestFirst
from secateur.agents.search.search import beam, best_first, search, smc
from secateur.agents.search.smc import SequentialMonteCarlo, effective, log_survival, systematic
from secateur.agents.search.strategy import Move, Strategy
from secateur.agents.structured import reader
from secateur.agents.thought import Thought
from secateur.gates.verdict import Action, Broken, Verdict


def thought(text: str, score: float | None = None) -> Thought:
    return Thought(f"id {text}", "t", "t", path=Path(*map(ord, text)), text=text, score=score)


ROOT = thought("r")


def searched(strategy: Strategy, step, roots: Sequence[Thought] = (ROOT,), seed: int = 0):
    """Run a strategy alone: ``step`` gives a thought's children. All moves, the last one's gift."""
    state = strategy.begin(tuple(roots), seed)
    moves: list[Move] = []
    asked: list[Thought] = []
    while True:
        move, state = strategy.ask(state)
        moves.append(move)
        asked += move.expand
        if move.give is not None:
            return moves, move.give
        first = asked.pop(0)
        state = strategy.tell(state, first, tuple(step(first)))


def texts(thoughts: Sequence[Thought]) -> list[str]:
    return [t.text for t in thoughts]


def letters(parent: Thought) -> list[Thought]:
    """Three children, of which the later ones are better, and deeper ones too."""
    depth = len(parent.text)
    return [thought(parent.text + c, score=depth + i) for i, c in enumerate("abc")]


def test_a_beam_keeps_the_best_of_each_level_and_drops_the_others() -> None:
    moves, given_ = searched(Beam(width=2, depth=2), letters)
    assert [texts(m.expand) for m in moves if m.expand] == [["r"], ["rc", "rb"]]
    assert [texts(m.drop) for m in moves if m.drop] == [["ra"], ["rbb", "rcb", "rba", "rca"]]
    assert texts(given_) == ["rbc", "rcc"]


def test_a_beam_with_a_goal_gives_nothing_that_has_not_reached_it() -> None:
    def good(t: Thought) -> bool:
        return t.text.endswith("b")

    _, given_ = searched(Beam(width=3, depth=2, until=good), letters)
    assert all(t.text.endswith("b") for t in given_)
    _, none = searched(Beam(width=3, depth=2, until=lambda t: False), letters)
    assert none == ()


def test_a_beam_that_dies_out_gives_the_last_level_that_lived() -> None:
    _, given_ = searched(Beam(width=2, depth=9), lambda t: letters(t) if t.text == "r" else [])
    assert texts(given_) == ["rc", "rb"]


def test_best_first_expands_the_best_thought_wherever_it_stands() -> None:
    def step(parent: Thought) -> list[Thought]:
        scores = {"r": (5, 1), "ra": (0, 0), "rb": (9, 9)}.get(parent.text, (2, 3))
        return [thought(parent.text + c, s) for c, s in zip("ab", scores, strict=True)]

    moves, given_ = searched(BestFirst(expansions=3), step)
    assert [texts(m.expand) for m in moves if m.expand] == [["r"], ["ra"], ["rb"]]
    assert texts(given_) == ["rba"]


def test_best_first_ends_when_enough_thoughts_are_good() -> None:
    strategy = BestFirst(expansions=99, keep=1, until=lambda t: t.text == "rcc")
    moves, given_ = searched(strategy, letters)
    assert texts(given_) == ["rcc"]
    assert sum(len(m.expand) for m in moves) == 2


@given(parallel=st.integers(1, 5), expansions=st.integers(1, 12), depth=st.integers(1, 3))
def test_best_first_never_asks_for_more_than_it_may(parallel, expansions, depth) -> None:
    strategy = BestFirst(expansions=expansions, parallel=parallel, depth=depth)
    moves, _ = searched(strategy, letters)
    asked = [t for m in moves for t in m.expand]
    assert len(asked) <= expansions
    assert max(len(m.expand) for m in moves) <= parallel
    assert all(len(t.text) <= depth for t in asked)
    assert len({t.id for t in asked}) == len(asked)


# Sequential Monte Carlo


def judged(text: str, *opened: float) -> Thought:
    scores = {f"tag{i}": {"opened": p} for i, p in enumerate(opened)}
    return replace(thought(text), judgement=Verdict(Action.ALLOW, (), scores))


def test_survival_is_what_is_left_when_tags_compete() -> None:
    assert log_survival(judged("x", 0.2, 0.3)) == pytest.approx(math.log(0.5))
    assert log_survival(thought("x")) == 0.0
    with pytest.raises(ValueError, match="no reading"):
        log_survival(replace(thought("x"), judgement=Broken("nan")))


def test_the_effective_sample_size_counts_even_weights_whole_and_zeros_not_at_all() -> None:
    assert effective([1, 1, 1, 1]) == pytest.approx(4)
    assert effective([1, 0, 0, 0]) == pytest.approx(1)
    assert effective([0, 0]) == 0.0


@given(
    weights=st.lists(st.floats(0, 1), min_size=1, max_size=9).filter(lambda w: sum(w) > 0.01),
    count=st.integers(1, 40),
    start=st.floats(0, 1, exclude_max=True),
)
def test_systematic_resampling_draws_each_as_often_as_its_weight_says(weights, count, start):
    drawn = systematic(weights, count, start)
    assert sum(drawn) == count
    for times, weight in zip(drawn, weights, strict=True):
        assert abs(times - weight / sum(weights) * count) <= 1 + 1e-9
        assert weight > 0 or times == 0


def test_particles_end_with_the_share_that_the_free_model_would_give_them() -> None:
    """Under a ban both branches are as likely; the free model survives one of them nine times as
    often as the other."""

    def step(parent: Thought) -> list[Thought]:
        place = next(places)
        text = f"{parent.text}{place}"
        return [judged(text, 0.1 if place % 2 else 0.9)]

    places = iter(range(100))
    strategy = SequentialMonteCarlo(particles=8, steps=1)
    state = strategy.begin((ROOT,), 0)
    move, state = strategy.ask(state)
    for parent in move.expand:
        state = strategy.tell(state, parent, tuple(step(parent)))
    weights = {}
    for particle in state.particles:
        odd = int(particle.thought.text[1:]) % 2
        weights[odd] = weights.get(odd, 0.0) + math.exp(particle.log_weight)
    total = sum(weights.values())
    assert weights[1] / total == pytest.approx(0.9, abs=0.13)  # systematic: within one particle


def test_a_pruned_particle_is_never_drawn_again() -> None:
    def step(parent: Thought) -> list[Thought]:
        number = next(numbers)
        return [] if number % 4 else [judged(f"{parent.text}{number}", 0.01)]

    numbers = iter(range(1000))
    moves, given_ = searched(SequentialMonteCarlo(particles=8, steps=2), step)
    grown = [t for m in moves[1:] for t in m.expand]
    assert {t.text for t in grown} <= {"r0", "r4"}
    assert len(grown) == 8  # resampled to the full number from the two that lived
    assert sum(t.score or 0 for t in given_) == pytest.approx(1)


def test_particles_that_all_die_give_nothing() -> None:
    _, given_ = searched(SequentialMonteCarlo(particles=4, steps=3), lambda t: [])
    assert given_ == ()


def test_the_same_seed_resamples_alike_and_a_zero_weight_is_a_veto() -> None:
    def step(parent: Thought) -> list[Thought]:
        number = next(numbers)
        return [thought(f"{parent.text}{number:02d}", None)]

    def weight(t: Thought) -> float:
        return -math.inf if t.text.endswith("3") else -float(t.text[-1])

    def once(seed: int) -> list[list[str]]:
        nonlocal numbers
        numbers = iter(range(1000))
        moves, _ = searched(SequentialMonteCarlo(6, 3, weight), step, seed=seed)
        return [texts(m.expand) for m in moves]

    numbers = iter(())
    assert once(1) == once(1)
    assert not any(text.endswith("3") for texts_ in once(1)[1:] for text in texts_)
    assert len({str(once(seed)) for seed in range(8)}) > 1


# A strategy of one's own


@dataclass(frozen=True)
class Greedy:
    """Follows the best child until there is none: a whole strategy."""

    def begin(self, thoughts, seed):
        return thoughts[0], False

    def ask(self, state):
        best, ended = state
        return (Move(give=(best,)) if ended else Move(expand=(best,))), state

    def tell(self, state, thought, children):
        best = max(children, key=lambda child: child.score, default=None)
        return (thought, True) if best is None else (best, False)


def test_a_strategy_of_ones_own_is_a_small_class() -> None:
    _, given_ = searched(Greedy(), lambda t: letters(t) if len(t.text) < 4 else [])
    assert texts(given_) == ["rccc"]
    assert search(generate("x"), Greedy()).size == 1


@pytest.mark.parametrize(
    "make",
    [
        lambda: beam(generate("x"), width=0, depth=1),
        lambda: best_first(generate("x"), expansions=0),
        lambda: best_first(generate("x"), expansions=1, depth=0),
        lambda: smc(generate("x"), particles=4, steps=0),
    ],
)
def test_a_search_of_nothing_is_refused(make) -> None:
    with pytest.raises(PlanError, match="at least 1"):
        make()


# Structured answers


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("[1, 2]", [1, 2]),
        ("the list is [1, 2], I think", [1, 2]),
        ("```json\n[1,\n 2]\n```", [1, 2]),
        ("not [this one but [3]", [3]),
    ],
)
def test_the_first_json_in_an_answer_is_read(text: str, value: list[int]) -> None:
    assert reader(list[int])(text) == value


@pytest.mark.parametrize(
    ("returns", "text", "says"),
    [
        (list[int], "[1, 'x']", "no JSON"),
        (list[int], '[1, "x", "y"]', "1: Input should be a valid integer.*and 1 more"),
        (dict[str, int], "[1]", "should be an object"),
        (int, "many", "valid integer"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(returns, text: str, says: str) -> None:
    with pytest.raises(ValueError, match=says) as refused:
        reader(returns)(text)
    assert "\n" not in str(refused.value)


def test_a_plain_type_takes_a_plain_text() -> None:
    assert reader(int)(" 42\n") == 42
    assert reader(str)("hello") == "hello"


def test_what_pydantic_cannot_check_is_refused_when_the_plan_is_written() -> None:
    class Anything:
        pass

    with pytest.raises(PlanError, match="cannot be checked"):
        generate("x", returns=Anything)
