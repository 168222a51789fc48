"""What grows where branches are pruned: spares, one more try with a ban, and then nothing."""

from collections.abc import Callable

from secateur.agents.plans.machines import Work
from secateur.agents.plans.words import generate, keep_best, keep_valid
from secateur.agents.thought import Status

Fate = Callable[[Work], Status]


def pruned_below(limit: int) -> Fate:
    """Children with an index below ``limit`` are pruned."""
    return lambda work: Status.PRUNED if work.index < limit else Status.KEPT


def test_nothing_grows_below_a_pruned_thought(plant) -> None:
    garden = plant(pruned_below(1))
    kept = garden.grow(
        generate("", n=2, name="a") >> keep_best(5) >> keep_valid(lambda scene: True)
    )
    assert [t.path for t in kept] == [(0, 1)]
    assert all(parent.lives for work in garden.done for parent in work.parents)


def test_a_spare_child_replaces_a_pruned_one(plant) -> None:
    garden = plant(pruned_below(2))
    kept = garden.grow(generate("", n=1, spare=3, name="g"))
    assert [t.path for t in kept] == [(0, 2)]
    assert garden.count("g") == 3


def test_spare_children_are_not_asked_for_when_nothing_is_lost(plant) -> None:
    garden = plant()
    garden.grow(generate("", n=2, spare=3, name="g"))
    assert garden.count("g") == 2


def test_a_failed_child_is_replaced_but_never_regrown_with_a_ban(plant) -> None:
    garden = plant(lambda work: Status.FAILED, regrow=True)
    assert garden.grow(generate("", n=1, spare=2, name="g")) == []
    assert [work.banned for work in garden.done] == [False, False, False]


def test_a_barren_node_is_regrown_once_with_the_tags_banned(plant) -> None:
    def fate(work: Work) -> Status:
        return Status.KEPT if work.banned else Status.PRUNED

    garden = plant(fate, regrow=True)
    assert len(garden.grow(generate("", n=2, spare=1, name="g"))) == 1
    assert [work.banned for work in garden.done] == [False, False, False, True]


def test_a_regrown_child_that_is_pruned_too_is_given_up(plant) -> None:
    garden = plant(lambda work: Status.PRUNED, regrow=True)
    assert garden.grow(generate("", n=2, name="g")) == []
    assert garden.count("g") == 3


def test_without_regrow_a_barren_node_is_given_up(plant) -> None:
    garden = plant(lambda work: Status.PRUNED, regrow=False)
    assert garden.grow(generate("", n=2, name="g")) == []
    assert garden.count("g") == 2


def test_a_node_that_waits_for_a_person_is_not_regrown(plant) -> None:
    garden = plant(lambda work: Status.ESCALATED, regrow=True)
    assert garden.grow(generate("", n=1, spare=3, name="g")) == []
    assert garden.count("g") == 1


def test_a_merge_goes_on_with_the_parents_that_survived(plant) -> None:
    garden = plant(pruned_below(1))
    kept = garden.grow(generate("", n=3, name="g") >> keep_best(9, name="k"))
    assert [t.path for t in kept] == [(0, 1), (0, 2)]
