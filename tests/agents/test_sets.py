"""Sets of numbers: usual spellings, the model's own, and errors of an answer."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from secateur.agents.ready.sets import (
    LARGEST,
    marks,
    parse_marks,
    parse_sets,
    parse_union,
    set_errors,
    spell_set,
)

SETS = st.lists(st.integers(0, LARGEST), unique=True, max_size=64)
SOME = st.lists(st.integers(0, LARGEST), unique=True, min_size=1, max_size=64)


@pytest.mark.parametrize(
    "text",
    [
        "[3, 27] [27, 5]",
        "{3, 27} & {27, 5}",
        "{3, 27} ∩ {27, 5}",
        "(3 27), (27 5)",
        "[[3, 27], [27, 5]]",
        "3 27 & 27 5",
        " [3,27]\n[27,5] ",
    ],
)
def test_two_sets_are_read_in_any_usual_spelling(text: str) -> None:
    assert parse_sets(text) == ([3, 27], [27, 5])


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "give two sets"),
        ("[1, 2]", "give two sets"),
        ("[1] [2] [3]", "give two sets"),
        ("[1, 2] [2", "give two sets"),
        ("1 2, 2 3", "give two sets"),
        ("[1] 7 [2]", "give two sets"),
        ("4 & [1] [2]", "give two sets"),
        ("[a] [2]", "give two sets"),
        ("[-1] [2]", "give two sets"),
        ("[\u0663] [2]", "give two sets"),
        ("[] [2]", "a set is empty"),
        ("[1] [130]", "130 is too large; numbers go from 0 to 129"),
        ("[1, 1] [2]", "1 stands twice"),
    ],
)
def test_what_is_no_pair_of_sets_is_refused_in_one_line(text: str, says: str) -> None:
    with pytest.raises(ValueError, match=says) as caught:
        parse_sets(text)
    assert "\n" not in str(caught.value)


@given(SOME, SOME)
def test_what_a_user_writes_is_what_is_read(left: list[int], right: list[int]) -> None:
    assert parse_sets(f"{left} {right}") == (left, right)


@given(SETS)
def test_every_number_has_its_own_two_characters(numbers: list[int]) -> None:
    spelt = spell_set(numbers)
    assert len(spelt) == 2 * len(numbers)
    assert parse_union(spelt) == numbers


@given(SETS, SOME)
def test_marks_say_which_numbers_of_the_second_set_the_first_has(
    left: list[int], right: list[int]
) -> None:
    answer = marks(left, right)
    assert parse_marks(answer) == [number for number in right if number in left]
    assert set_errors(sorted({*left} & {*right}), parse_marks(answer)) == 0


@pytest.mark.parametrize("answer", ["", "A3", "A3!C7", "A3! C7=", "N3=", "A3!x", "ok"])
def test_an_answer_without_marks_throughout_cannot_be_read(answer: str) -> None:
    with pytest.raises(ValueError, match="no row of marked numbers"):
        parse_marks(answer)


@pytest.mark.parametrize("answer", ["A", "A3C", "N0", "A3 C7", "A3="])
def test_an_answer_that_is_no_set_cannot_be_read(answer: str) -> None:
    with pytest.raises(ValueError, match="no row of numbers"):
        parse_union(answer)
    assert parse_union(" \n") == []


def test_errors_count_what_is_missing_and_what_is_too_many() -> None:
    assert set_errors([1, 2, 3], [3, 2, 1]) == 0
    assert set_errors([1, 2, 3], [1, 2]) == 1
    assert set_errors([1, 2], [1, 2, 9]) == 1
    assert set_errors([1, 2], [1, 1, 9]) == 3


@given(SETS, SETS)
def test_errors_are_zero_only_for_the_same_set(wanted: list[int], answer: list[int]) -> None:
    assert (set_errors(wanted, answer) == 0) is ({*wanted} == {*answer})
    assert set_errors(wanted, answer) == len({*wanted} ^ {*answer})
