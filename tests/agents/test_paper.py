"""The plans of the Graph of Thoughts paper: how each of them asks, with the real model."""

from collections import Counter
from pathlib import Path

import pytest

from secateur.agents.plans.operations import Ask
from secateur.agents.ready.intersect import intersect
from secateur.agents.ready.paper import PLANS, PlanName, intersecting, sorting
from secateur.agents.ready.sort import sort
from secateur.agents.spec import AgentSpec
from secateur.agents.thought import Status
from secateur.runtime.agent import Agent
from secateur.runtime.engines.protocol import Engine
from secateur.runtime.executor.session import RunResult
from secateur.runtime.ledger.events import RunStatus

DIGITS = "9081726354" * 2
SETS = "[3, 27, 5, 61, 40, 12] [27, 8, 12, 99, 3, 70]"


async def ran(path: Path, engine: Engine, agent: AgentSpec, task: str) -> RunResult:
    return await Agent.of(agent).run(task, engine=engine, ledger=path / "paper.db", seed=2)


def asked(result: RunResult) -> Counter[str]:
    return Counter(thought.operation for thought in result.thoughts if thought.tokens)


def test_all_plans_draw_read_and_answer_alike() -> None:
    for plans, shipped in ((sorting(), sort), (intersecting(), intersect)):
        assert tuple(plans) == PLANS
        assert plans["graph"] is shipped
        for agent in plans.values():
            assert (agent.sampling, agent.read, agent.answer, agent.policy) == (
                shipped.sampling, shipped.read, shipped.answer, shipped.policy,
            )  # fmt: skip
            steps = [step for step in agent.plan.steps() if isinstance(step, Ask)]
            assert all(step.sampling is None for step in steps)


@pytest.mark.parametrize(("plans", "task"), [(sorting, DIGITS), (intersecting, SETS)])
async def test_io_is_one_request_and_chain_one_line(
    tmp_path: Path, engine: Engine, plans, task: str
) -> None:
    io = await ran(tmp_path, engine, plans()["io"], task)
    assert asked(io).total() == 1
    chain = await ran(tmp_path, engine, plans()["chain"], task)
    assert asked(chain).total() >= 2
    above = [thought.parents for thought in chain.thoughts if thought.parents]
    assert len(above) == len(set(above))
    assert not any(thought.status is Status.DROPPED for thought in chain.thoughts)


async def test_a_tree_has_eight_answers_and_goes_on_with_one(
    tmp_path: Path, engine: Engine
) -> None:
    result = await ran(tmp_path, engine, sorting()["tree"], DIGITS * 4)
    answers = [thought for thought in result.thoughts if thought.operation == "sort"]
    assert len(answers) == 8
    assert sum(thought.status is Status.DROPPED for thought in answers) >= 7
    assert result.best is not None
    assert result.best.score == min(t.score for t in result.thoughts if t.score is not None)
    assert asked(result)["fix"] in (0, 4, 8)


@pytest.mark.parametrize("name", PLANS)
async def test_every_plan_intersects(tmp_path: Path, engine: Engine, name: PlanName) -> None:
    result = await ran(tmp_path, engine, intersecting()[name], SETS)
    assert result.status in (RunStatus.DONE, RunStatus.EMPTY)
    if result.best is not None:
        assert set(result.best.value) <= set(range(130))
        assert result.answer == str(sorted(result.best.value))
