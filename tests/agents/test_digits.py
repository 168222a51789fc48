"""Digit lists: any usual spelling is read, and errors are counted as in the paper."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from secateur.agents.ready.digits import (
    is_sorted_permutation,
    merge,
    parse_digits,
    runs,
    sorting_errors,
    spell,
)

digits = st.lists(st.integers(0, 9), max_size=40)


@pytest.mark.parametrize("text", ["[3, 1, 2]", "3 1 2", "3,1,2", "312", " [3 1,2]\n", "(3; 1; 2)"])
def test_any_usual_spelling_is_read(text: str) -> None:
    assert parse_digits(text) == (3, 1, 2)


@pytest.mark.parametrize("text", ["3 one 2", "-3 1", "3.5", "<|deceit|>"])
def test_what_is_no_list_of_digits_is_refused_with_the_remedy(text: str) -> None:
    with pytest.raises(ValueError, match=r"write it like \[3, 1, 2\]"):
        parse_digits(text)


@given(digits)
def test_both_spellings_read_back(given_digits: list[int]) -> None:
    assert parse_digits(spell(given_digits)) == tuple(given_digits)
    assert parse_digits(runs(given_digits)) == tuple(given_digits)


def test_runs_put_a_space_where_the_digit_changes() -> None:
    assert runs((0, 0, 1, 3, 3)) == "00 1 33"


@given(digits)
def test_only_the_sorted_list_has_no_errors(given_digits: list[int]) -> None:
    assert sorting_errors(given_digits, sorted(given_digits)) == 0
    if sorted(given_digits) != given_digits:
        assert sorting_errors(given_digits, given_digits) > 0


def test_errors_are_wrong_counts_plus_falling_pairs() -> None:
    assert sorting_errors((3, 1, 2), (1, 2, 3)) == 0
    assert sorting_errors((3, 1, 2), (1, 2)) == 1  # one 3 is missing
    assert sorting_errors((3, 1, 2), (1, 3, 2)) == 1  # one pair falls
    assert sorting_errors((3, 1, 2), (1, 4, 2)) == 3  # no 3, a 4 too many, one pair falls


@given(digits, digits)
def test_a_merge_is_the_sorted_permutation_of_both(one: list[int], two: list[int]) -> None:
    assert is_sorted_permutation(one + two, merge(sorted(one), sorted(two)))
