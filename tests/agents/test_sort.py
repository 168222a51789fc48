"""The value functions of the sort agent: reading, splitting, scoring."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from secateur.agents.plans.operations import Ask
from secateur.agents.prompt import Text
from secateur.agents.ready.sort import (
    LONGEST,
    digits_of,
    errors,
    parts,
    read_list,
    sort,
    task_errors,
)
from secateur.agents.template import write_prompt
from secateur.agents.thought import Scene, Thought
from secateur.pretraining.corpus.lists import list_document

DIGITS = st.lists(st.integers(0, 9), min_size=1, max_size=LONGEST)
PROMPT = {step.name: step.prompt for step in sort.plan.steps() if isinstance(step, Ask)}


def scene(*made: tuple[str, list[int] | dict[str, list[int]], tuple[int, ...]]) -> Scene:
    """A scene from (kind, value, numbers of the parents) of each thought; the last one is new."""
    thoughts = [
        Thought(str(number), kind, kind, tuple(map(str, parents)), value=value)
        for number, (kind, value, parents) in enumerate(made)
    ]
    line = [thoughts[-1]]
    while line[-1].parents:
        line.append(thoughts[int(line[-1].parents[0])])
    known = {thought.id: thought for thought in thoughts}
    return Scene("", tuple(thoughts[-1:]), tuple(reversed(line)), known)


# Reading


@pytest.mark.parametrize("text", ["[3, 1, 2]", "3 1 2", "3,1,2", "312", "(3; 1; 2)", "[312]"])
def test_a_list_is_read_in_any_usual_spelling(text: str) -> None:
    assert read_list(text).value == {"digits": [3, 1, 2]}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[]", "there are no digits to sort"),
        ("[12, 3]", "12 is no digit"),
        ("-1 2", "is no list of digits"),
        ("3 b 1", "is no list of digits"),
        ("\u0663 1", "is no list of digits"),
        ("1" * 129, "up to 128 digits, and these are 129"),
    ],
)
def test_what_is_no_list_of_digits_is_refused(text: str, says: str) -> None:
    with pytest.raises(ValueError, match=says) as caught:
        read_list(text)
    assert "\n" not in str(caught.value)


def test_an_answer_without_digits_is_refused() -> None:
    assert digits_of("00 1 22") == [0, 0, 1, 2, 2]
    for answer in ("", "  ", "bad"):
        with pytest.raises(ValueError, match="digits"):
            digits_of(answer)


# Splitting


@given(DIGITS)
def test_parts_are_few_and_short_and_lose_nothing(digits: list[int]) -> None:
    cut = [value for _, value in parts(scene(("task", {"digits": digits}, ())))]
    assert [digit for part in cut for digit in part] == digits
    assert len(cut) == -(-len(digits) // 16)
    assert all(1 <= len(part) <= 16 for part in cut)


@given(DIGITS)
def test_parts_are_spelt_as_the_model_reads_them(digits: list[int]) -> None:
    for text, value in parts(scene(("task", {"digits": digits}, ()))):
        assert [int(char) for char in text] == value


# Scoring


def test_a_sorted_part_is_scored_against_its_part() -> None:
    task = ("task", {"digits": [3, 1, 2]}, ())
    part = ("split", [3, 1, 2], (0,))
    assert errors(scene(task, part, ("generate", [1, 2, 3], (1,)))) == 0
    assert errors(scene(task, part, ("generate", [1, 2, 2], (1,)))) == 2
    assert errors(scene(task, part, ("generate", [2, 1, 3], (1,)))) == 1


def test_a_merge_is_scored_against_both_its_parents() -> None:
    made = (
        ("task", {"digits": [3, 1, 2, 0]}, ()),
        ("generate", [1, 3], (0,)),
        ("generate", [0, 2], (0,)),
    )
    assert errors(scene(*made, ("aggregate", [0, 1, 2, 3], (1, 2)))) == 0
    assert errors(scene(*made, ("aggregate", [1, 3], (1, 2)))) == 2


def test_a_refined_merge_is_scored_against_what_was_to_be_merged() -> None:
    made = (
        ("task", {"digits": [3, 1, 2, 0]}, ()),
        ("generate", [1, 3], (0,)),
        ("generate", [0, 2], (0,)),
        ("aggregate", [0, 1, 2], (1, 2)),
    )
    assert errors(scene(*made, ("refine", [0, 1, 2, 3], (3,)))) == 0
    assert errors(scene(*made, ("refine", [0, 1, 2], (3,)))) == 1


def test_a_thought_made_straight_from_the_task_is_scored_against_the_task() -> None:
    made = (("task", {"digits": [3, 1]}, ()), ("generate", [1, 1], (0,)))
    assert errors(scene(*made)) == 2
    assert errors(scene(*made, ("refine", [1, 3], (1,)))) == 0


def test_the_result_is_scored_against_the_task() -> None:
    made = (("task", {"digits": [3, 1]}, ()), ("generate", [1, 1], (0,)))
    assert task_errors(scene(*made)) == 2


# Prompts are those of the corpus


@pytest.mark.parametrize("operation", ["sort", "merge", "fix"])
def test_prompts_read_as_in_the_corpus(operation: str) -> None:
    """The same words in the same order, the lists aside, ended by a newline."""
    made = {
        "sort": [("task", {"digits": [3, 1]}, ()), ("split", [3, 1], (0,))],
        "fix": [
            ("task", {"digits": [3, 1]}, ()),
            ("split", [3, 1], (0,)),
            ("generate", [1, 1], (1,)),
        ],
    }
    if operation == "merge":
        left, right = (Thought(i, "", "", value=v) for i, v in (("1", [1, 3]), ("2", [0, 2])))
        there = Scene("", (left, right), (left,))
    else:
        there = scene(*made[operation])
    (piece,) = write_prompt(PROMPT[operation], there)
    assert piece == Text(
        {"sort": "sort 31\n", "merge": "merge 13 02\n", "fix": "fix 31 11\n"}[operation]
    )
    shapes = {
        tuple("#" if word.isdigit() else word for word in line.split())
        for seed in range(20)
        for line in [list_document(operation, random.Random(seed), 8).lines[0].text]  # pyright: ignore
    }
    words = tuple("#" if word.isdigit() else word for word in piece.text.split())
    assert words in shapes


def test_a_merge_that_went_wrong_is_mended_with_both_lists_in_view() -> None:
    there = scene(
        ("task", {"digits": [3, 1, 2, 0]}, ()),
        ("generate", [1, 3], (0,)),
        ("generate", [0, 2], (0,)),
        ("aggregate", [0, 1, 2], (1, 2)),
    )
    assert write_prompt(PROMPT["fix"], there) == [Text("fix 13 02 012\n")]
