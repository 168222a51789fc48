"""The sort agent with the real model; its results are checked by our own oracle."""

import random
from collections import Counter
from pathlib import Path

import pytest

from secateur.agents.ready.digits import is_sorted_permutation, parse_digits, sorting_errors
from secateur.agents.ready.sort import sort
from secateur.agents.spec import TaskError
from secateur.agents.thought import Status
from secateur.runtime.agent import Agent
from secateur.runtime.engines.protocol import Engine
from secateur.runtime.executor.session import RunResult
from secateur.runtime.ledger.events import RunStatus

SORT = Agent.of(sort)


async def sorted_by_agent(path: Path, engine: Engine, task: str, seed: int = 0) -> RunResult:
    return await SORT.run(task, engine=engine, ledger=path / "secateur.db", seed=seed)


@pytest.mark.parametrize("task", ["[3, 1, 2]", "3 1 2", "312", "7"])
async def test_a_short_list_is_sorted_however_it_is_spelt(
    tmp_path: Path, engine: Engine, task: str
) -> None:
    result = await sorted_by_agent(tmp_path, engine, task)
    assert result.status is RunStatus.DONE
    assert result.answer == str(sorted(parse_digits(task)))


async def test_lists_of_32_digits_are_split_sorted_and_merged(
    tmp_path: Path, engine: Engine
) -> None:
    rng = random.Random(5)
    right = 0
    for number in range(6):
        digits = [rng.randrange(10) for _ in range(32)]
        result = await sorted_by_agent(tmp_path, engine, str(digits), seed=number)
        assert result.best is not None
        assert result.best.kind in ("aggregate", "refine")
        exact = is_sorted_permutation(digits, result.best.value)
        assert (result.best.score == 0) is exact
        right += exact
    assert right >= 5


async def test_128_digits_are_sorted_in_parts_of_16_and_merged_in_seven(
    tmp_path: Path, engine: Engine
) -> None:
    rng = random.Random(6)
    digits = [rng.randrange(10) for _ in range(128)]
    result = await sorted_by_agent(tmp_path, engine, str(digits))
    assert result.status is RunStatus.DONE
    assert result.best is not None
    assert result.best.score == sorting_errors(digits, result.best.value)
    known = {thought.id: thought for thought in result.thoughts}
    sizes = Counter(len(thought.value) for thought in result.thoughts if thought.kind == "split")
    assert sizes == {16: 8}
    joined = {thought.parents for thought in result.thoughts if thought.kind == "aggregate"}
    assert len(joined) == 7
    assert max(len(known[parent].value) for pair in joined for parent in pair) > 48


async def test_of_several_attempts_the_best_is_kept(tmp_path: Path, engine: Engine) -> None:
    result = await sorted_by_agent(tmp_path, engine, "3120312031203120")
    attempts = [thought for thought in result.thoughts if thought.operation == "sort"]
    kept = [thought for thought in attempts if thought.status is Status.KEPT]
    assert (len(attempts), len(kept)) == (3, 1)
    assert kept[0].score == min(thought.score for thought in attempts if thought.score is not None)


async def test_the_same_seed_grows_the_same_graph(tmp_path: Path, engine: Engine) -> None:
    task = "9081726354" * 2
    one = await sorted_by_agent(tmp_path, engine, task, seed=4)
    two = await sorted_by_agent(tmp_path, engine, task, seed=4)
    assert {(t.id, t.text, t.status) for t in one.thoughts} == {
        (t.id, t.text, t.status) for t in two.thoughts
    }


async def test_a_list_that_cannot_be_sorted_is_refused(tmp_path: Path, engine: Engine) -> None:
    with pytest.raises(TaskError, match="12 is no digit"):
        await sorted_by_agent(tmp_path, engine, "[12, 3]")
