"""Documents of set operations: right answers, in the words that the agents use."""

import random
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from secateur.agents.ready.sets import LARGEST, marks, parse_marks, parse_union
from secateur.pretraining.corpus.sets import SET_OPERATIONS, SetOperation, set_document
from secateur.pretraining.evaluation.list_tests import list_tests

Drawn = tuple[list[int], list[int], str]


def drawn(operation: SetOperation, seed: int, longest: int) -> Drawn:
    """The two sets and the answer of a document."""
    question, answer = set_document(operation, random.Random(seed), longest).lines
    name, left, right = question.text.split(" ")
    assert name == operation
    return parse_union(left.strip("-")), parse_union(right.strip("-")), answer.text


@settings(max_examples=80, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 64))
def test_an_intersection_marks_each_number_of_the_second_set_in_order(
    seed: int, longest: int
) -> None:
    left, right, answer = drawn("intersect", seed, longest)
    assert parse_marks(answer) == [number for number in right if number in left]
    assert answer.replace("=", "").replace("!", "") == "".join(
        f"{chr(65 + number // 10)}{number % 10}" for number in right
    )


@settings(max_examples=80, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 64))
def test_a_union_is_of_sets_that_share_nothing_and_keeps_their_order(
    seed: int, longest: int
) -> None:
    left, right, answer = drawn("union", seed, longest)
    assert not {*left} & {*right}
    assert parse_union(answer) == [*left, *right]


@pytest.mark.parametrize("operation", SET_OPERATIONS)
def test_sets_have_no_doubles_and_go_up_to_the_size_that_was_asked_for(
    operation: SetOperation,
) -> None:
    sizes: Counter[int] = Counter()
    for seed in range(600):
        left, right, _ = drawn(operation, seed, 64)
        assert len({*left}) == len(left)
        assert len({*right}) == len(right)
        assert max([*left, *right]) <= LARGEST
        sizes[max(len(left), len(right))] += 1
    assert max(sizes) <= 64
    assert sum(count for size, count in sizes.items() if size > 32) > 50
    assert sum(count for size, count in sizes.items() if size <= 16) > 100


def test_either_mark_is_about_as_likely() -> None:
    answers = "".join(drawn("intersect", seed, 64)[2] for seed in range(800))
    share = answers.count("=") / (answers.count("=") + answers.count("!"))
    assert 0.25 < share < 0.6


def test_an_empty_side_of_a_union_is_spelt_as_a_dash() -> None:
    prompts = {set_document("union", random.Random(seed), 4).lines[0].text for seed in range(300)}
    assert any(prompt.startswith("union - ") for prompt in prompts)
    assert any(prompt.endswith(" -") for prompt in prompts)
    assert not any(prompt == "union - -" for prompt in prompts)


def test_only_the_answer_is_learnt() -> None:
    for operation in SET_OPERATIONS:
        question, answer = set_document(operation, random.Random(1), 16).lines
        assert (question.learn, answer.learn) == (False, True)


def test_the_evaluation_asks_for_each_operation_and_knows_the_right_answer() -> None:
    tests = list_tests(random.Random(1), 3)
    assert {"sort 128", "merge 64+64", "intersect 64 with 16", "union 16+16"} <= set(tests)
    for prompt, right in tests["intersect 64 with 16"]:
        left, asked = map(parse_union, prompt.split(" ")[1:])
        assert right(marks(left, asked))
        assert not right(marks(asked, left))
    for prompt, right in tests["union 16+16"]:
        assert right("".join(prompt.split(" ")[1:]))
        assert not right("")
