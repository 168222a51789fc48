"""Places in the graph."""

from hypothesis import given
from hypothesis import strategies as st

from secateur.agents.path import Path

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
