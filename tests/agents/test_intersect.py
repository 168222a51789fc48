"""The intersect agent: its parts, its scores, its prompts, and runs with the real model."""

import random
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from secateur.agents.plans.operations import Ask
from secateur.agents.prompt import Text
from secateur.agents.ready.intersect import (
    LONGEST,
    PART,
    errors,
    intersect,
    parts,
    read_sets,
    spell_result,
    task_errors,
)
from secateur.agents.ready.sets import LARGEST, set_errors
from secateur.agents.spec import TaskError
from secateur.agents.template import write_prompt
from secateur.agents.thought import Scene, Thought
from secateur.pretraining.corpus.sets import intersect_prompt, union_prompt
from secateur.runtime.agent import Agent
from secateur.runtime.engines.protocol import Engine
from secateur.runtime.ledger.events import RunStatus

SETS = st.lists(st.integers(0, LARGEST), unique=True, min_size=1, max_size=LONGEST)
ASKED = {step.name: step for step in intersect.plan.steps() if isinstance(step, Ask)}
TASK = ("task", {"left": [1, 2, 3, 4], "right": [2, 3, 9]}, ())
PART_OF_IT = ("split", {"left": [1, 2, 3, 4], "right": [2, 9], "first": True}, (0,))


def scene(*made: tuple[str, Any, tuple[int, ...]], parents: int = 1) -> Scene:
    """A scene from (kind, value, numbers of the parents) of each thought; the last are its own."""
    thoughts = [
        Thought(str(number), kind, kind, tuple(map(str, above)), value=value)
        for number, (kind, value, above) in enumerate(made)
    ]
    line = [thoughts[-parents]]
    while line[-1].parents:
        line.append(thoughts[int(line[-1].parents[0])])
    known = {thought.id: thought for thought in thoughts}
    return Scene("", tuple(thoughts[-parents:]), tuple(reversed(line)), known)


def prompt(name: str, there: Scene) -> str:
    (piece,) = write_prompt(ASKED[name].prompt, there)
    assert isinstance(piece, Text)
    return piece.text


# Reading and splitting


def test_the_longer_set_is_searched_for_the_numbers_of_the_shorter() -> None:
    assert read_sets("[1] [2, 3]").value == {"left": [2, 3], "right": [1]}
    assert read_sets("[2, 1] [2, 3]").value == {"left": [2, 1], "right": [2, 3]}


def test_sets_that_are_too_long_are_refused() -> None:
    with pytest.raises(ValueError, match="up to 64 numbers from 0 to 129, and this one has 65"):
        read_sets(f"[1] {list(range(65))}")


@given(SETS, SETS)
def test_parts_are_few_and_short_and_lose_nothing(left: list[int], right: list[int]) -> None:
    cut = [value for _, value in parts(scene(("task", read_sets(f"{left} {right}").value, ())))]
    longer, shorter = sorted((left, right), key=len, reverse=True)
    assert [number for part in cut for number in part["right"]] == shorter
    assert all(part["left"] == longer for part in cut)
    assert len(cut) == -(-len(shorter) // PART)
    assert all(1 <= len(part["right"]) <= PART for part in cut)
    assert [part["first"] for part in cut] == [True] + [False] * (len(cut) - 1)


# Scoring


def test_an_answer_is_scored_against_its_own_part() -> None:
    assert errors(scene(TASK, PART_OF_IT, ("generate", [2], (1,)))) == 0
    assert errors(scene(TASK, PART_OF_IT, ("generate", [2, 9], (1,)))) == 1
    assert errors(scene(TASK, PART_OF_IT, ("generate", [], (1,)))) == 1
    assert errors(scene(TASK, ("generate", [2], (0,)))) == 1


def test_a_mended_answer_is_scored_against_the_same_part() -> None:
    made = (TASK, PART_OF_IT, ("generate", [9], (1,)))
    assert errors(scene(*made, ("refine", [], (2,)))) == 1
    assert errors(scene(*made, ("refine", [2], (2,)), ("operation", [2], (3,)))) == 0


def test_a_union_is_scored_against_what_it_joins_and_the_result_against_the_task() -> None:
    made = (TASK, PART_OF_IT, ("generate", [2], (1,)), ("generate", [4], (1,)))
    union = scene(*made, ("aggregate", [2, 4], (2, 3)))
    assert (errors(union), task_errors(union)) == (0, 2)
    assert errors(scene(*made, ("aggregate", [2], (2, 3)))) == 1


def test_the_result_is_in_order() -> None:
    assert spell_result(scene(("aggregate", [27, 3], ()))) == "[3, 27]"


# Prompts are those of the corpus


def test_prompts_read_as_in_the_corpus() -> None:
    part = scene(TASK, PART_OF_IT)
    assert prompt("intersect", part) == intersect_prompt([1, 2, 3, 4], [2, 9]) + "\n"
    found = scene(TASK, PART_OF_IT, ("generate", [9], (1,)))
    assert prompt("recheck", found) == intersect_prompt([1, 2, 3, 4], [9]) + "\n"
    assert prompt("search", found) == intersect_prompt([1, 2, 3, 4], [2]) + "\n"
    made = (TASK, PART_OF_IT, ("generate", [2], (1,)), ("generate", [], (1,)))
    assert prompt("union", scene(*made, parents=2)) == union_prompt([2], []) + "\n"


# Runs


@pytest.mark.parametrize("task", ["[3, 27, 5] [27, 8]", "{3, 27, 5} & {27, 8}"])
async def test_two_small_sets_are_one_part_however_they_are_spelt(
    tmp_path: Path, engine: Engine, task: str
) -> None:
    result = await Agent.of(intersect).run(task, engine=engine, ledger=tmp_path / "l.db")
    assert result.status is RunStatus.DONE
    assert result.best is not None
    assert result.answer == str(sorted(result.best.value))
    assert Counter(thought.kind for thought in result.thoughts)["split"] == 1


async def test_64_numbers_are_looked_up_in_four_parts_and_joined(
    tmp_path: Path, engine: Engine
) -> None:
    rng = random.Random(3)
    left, right = rng.sample(range(128), 64), rng.sample(range(128), 64)
    result = await Agent.of(intersect).run(
        f"{left} {right}", engine=engine, ledger=tmp_path / "l.db"
    )
    assert result.status is RunStatus.DONE
    assert result.best is not None
    wanted = sorted({*left} & {*right})
    assert result.best.score == set_errors(wanted, result.best.value)
    kinds = Counter(thought.kind for thought in result.thoughts)
    assert kinds["split"] == 4
    assert len({t.parents for t in result.thoughts if t.kind == "aggregate"}) <= 3


async def test_a_task_that_is_no_pair_of_sets_is_refused(tmp_path: Path, engine: Engine) -> None:
    with pytest.raises(TaskError, match="stands twice"):
        await Agent.of(intersect).run("[1, 1] [2]", engine=engine, ledger=tmp_path / "l.db")
