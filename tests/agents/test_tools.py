"""Tools check what they are given, and get the run's folder where they ask for it."""

import asyncio
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import pytest
from langchain_core.tools import BaseTool, InjectedToolArg, StructuredTool, ToolException
from langchain_core.tools import tool as langchain_tool

from secateur import Agent, AuditLog, Policy, SecateurError
from secateur.agents.errors import PlanError
from secateur.agents.plans.operations import Act
from secateur.agents.plans.words import act, generate, split
from secateur.agents.spec import AgentSpec
from secateur.agents.tool import Call, Tool, ToolError, Workspace, tool
from secateur.runtime.ledger.events import RunStatus


@tool(idempotent=True)
def add(left: int, right: int = 2) -> str:
    """Add two numbers."""
    return str(left + right)


@tool
def touch(folder: Workspace, name: str) -> str:
    """Make an empty file."""
    (folder.path / name).touch()
    return "done"


def test_a_tool_is_called_with_checked_arguments(tmp_path: Path) -> None:
    assert add.run(Workspace(tmp_path), {"left": 3}) == "5"
    assert add.run(Workspace(tmp_path), {"left": "3", "right": 4}) == "7"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"left": "three"}, "argument 'left': Input should be a valid integer"),
        ({}, "argument 'left': Missing required argument"),
        ({"left": 1, "moon": 2}, "argument 'moon': Unexpected keyword argument"),
    ],
)
def test_wrong_arguments_are_refused_by_name(
    tmp_path: Path, arguments: dict[str, object], says: str
) -> None:
    with pytest.raises(ToolError, match=f"^tool 'add': {says}"):
        add.run(Workspace(tmp_path), arguments)


def test_a_tool_that_names_a_workspace_gets_the_runs_folder(tmp_path: Path) -> None:
    assert touch.run(Workspace(tmp_path), {"name": "x"}) == "done"
    assert (tmp_path / "x").is_file()


def test_a_model_cannot_choose_the_folder(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    touch.run(Workspace(tmp_path), {"name": "x", "folder": Workspace(elsewhere)})
    assert (tmp_path / "x").is_file()
    assert not any(elsewhere.iterdir())


def test_a_tool_says_whether_it_may_be_run_twice() -> None:
    assert add.idempotent
    assert not touch.idempotent


def test_a_function_without_types_is_no_tool() -> None:
    def shout(words) -> str:
        return words.upper()

    with pytest.raises(ToolError, match="parameter 'words' has no type; annotate it"):
        Tool.of(shout)


def test_calls_that_no_rule_for_actions_would_judge_are_refused() -> None:
    def calls(text: str) -> Call | None:
        return Call("add", {"left": int(text)})

    judged = generate("{task}", calls=calls) >> act([add], calls=calls)
    assert AgentSpec(name="adder", plan=judged).acts
    with pytest.raises(PlanError, match="give the same function to generate"):
        AgentSpec(name="adder", plan=generate("{task}") >> act([add], calls=calls))


# Asynchronous tools, tools that take their time, and LangChain's


@tool
async def fetch(folder: Workspace, name: str) -> str:
    """Read a file, without blocking."""
    await asyncio.sleep(0)
    return (folder.path / name).read_text()


async def test_an_asynchronous_tool_is_awaited_with_checked_arguments(tmp_path: Path) -> None:
    (tmp_path / "x").write_text("there")
    assert fetch.waits
    assert await fetch.answer(Workspace(tmp_path), {"name": "x"}) == "there"
    with pytest.raises(ToolError, match="argument 'name': Missing required argument"):
        await fetch.answer(Workspace(tmp_path), {})


@pytest.mark.parametrize("timeout", [0, -1, float("nan"), float("inf")])
def test_a_timeout_that_is_none_is_refused(timeout: float) -> None:
    with pytest.raises(ToolError, match="give seconds, more than 0, or None"):
        Tool.of(add.function, timeout=timeout)


def test_what_is_no_function_is_no_tool() -> None:
    with pytest.raises(ToolError, match="give a typed function or a LangChain tool"):
        Tool.of("rm")


@langchain_tool
def double(number: int, times: int = 2) -> str:
    """Multiply."""
    return str(number * times)


class Reader(BaseTool):
    """A tool as a class, with a way of its own to wait."""

    name: str = "reader"
    description: str = "Reads."

    def _run(self, path: str) -> str:
        raise AssertionError("it has a way to wait")

    async def _arun(self, path: str) -> str:
        return f"read {path}"


ELSEWHERE = StructuredTool(
    name="elsewhere",
    description="As servers describe their tools: by a JSON schema.",
    args_schema={
        "type": "object",
        "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
        "required": ["city"],
    },
    func=lambda city, days=1: f"{city} {days}",
)


async def test_langchains_tools_run_as_ours(tmp_path: Path) -> None:
    here = Workspace(tmp_path)
    doubled, reader, elsewhere = Tool.of(double), Tool.of(Reader()), Tool.of(ELSEWHERE)
    assert (doubled.name, doubled.waits, doubled.idempotent) == ("double", False, False)
    assert doubled.run(here, {"number": 3}) == "6"
    assert (reader.name, reader.waits) == ("reader", True)
    assert await reader.answer(here, {"path": "x"}) == "read x"
    assert elsewhere.run(here, {"city": "Rome"}) == "Rome 1"
    assert Tool.of(double, idempotent=True, timeout=3).timeout == 3


@pytest.mark.parametrize(
    ("made", "arguments", "says"),
    [
        (double, {"number": "three"}, "argument 'number': Input should be a valid integer"),
        (double, {}, "argument 'number': Field required"),
        (double, {"number": 1, "moon": 2}, "argument 'moon': Unexpected argument"),
        (ELSEWHERE, {}, "argument 'city': Missing argument"),
        (ELSEWHERE, {"city": 3}, "argument 'city': give a JSON string"),
        (ELSEWHERE, {"city": "Rome", "days": True}, "argument 'days': give a JSON integer"),
        (ELSEWHERE, {"city": "Rome", "moon": 2}, "argument 'moon': Unexpected argument"),
    ],
)
def test_langchains_tools_refuse_what_their_schema_does_not_have(
    tmp_path: Path, made: BaseTool, arguments: dict[str, object], says: str
) -> None:
    tool = Tool.of(made)
    with pytest.raises(SecateurError, match=f"^tool '{tool.name}': {says}"):
        tool.run(Workspace(tmp_path), arguments)


def test_what_langchain_injects_is_nobodys_to_give(tmp_path: Path) -> None:
    @langchain_tool
    def pay(amount: int, account: Annotated[str, InjectedToolArg] = "own") -> str:
        """Pay from an account that the model does not choose."""
        return f"{amount} from {account}"

    assert Tool.of(pay).run(Workspace(tmp_path), {"amount": 3}) == "3 from own"
    with pytest.raises(SecateurError, match="argument 'account': Unexpected argument"):
        Tool.of(pay).run(Workspace(tmp_path), {"amount": 3, "account": "yours"})


def test_a_plan_takes_langchains_tools_and_plain_functions_as_they_are() -> None:
    def shout(words: str) -> str:
        return words.upper()

    (step,) = act([double, shout, add], calls=lambda text: None).steps()
    assert isinstance(step, Act)
    assert list(step.tools) == ["double", "shout", "add"]
    with pytest.raises(PlanError, match="two tools have one name"):
        act([add, add], calls=lambda text: None)


def test_agents_are_defined_without_langchain() -> None:
    script = "import sys, secateur.agents.plans.words; assert 'langchain_core' not in sys.modules"
    subprocess.run([sys.executable, "-c", script], check=True)


# In a run


@pytest.mark.parametrize("kind", ["plain", "asynchronous", "langchain"])
async def test_a_tool_that_takes_too_long_is_unknown_and_its_branch_alone_waits(
    scripted: Callable[..., Any], tmp_path: Path, kind: str
) -> None:
    def sleep(seconds: float) -> str:
        """Take so long."""
        time.sleep(seconds)
        return "done"

    async def wait(seconds: float) -> str:
        """Take so long."""
        await asyncio.sleep(seconds)
        return "done"

    made = {"plain": sleep, "asynchronous": wait, "langchain": langchain_tool(wait)}[kind]
    slow = Tool.of(made, timeout=0.2)

    def calls(text: str) -> Call:
        return Call(slow.name, {"seconds": float(text)})

    ways = split(lambda scene: [("0", None), ("30", None)], name="ways")
    plan = ways >> generate("{text}", calls=calls) >> act([slow], calls=calls)
    agent = Agent("slow", plan, policy=Policy(name="none"))
    began = time.monotonic()
    result = await agent.run("x", engine=scripted(str), ledger=tmp_path / "x.db")
    assert time.monotonic() - began < 10
    assert [thought.text for thought in result.kept] == ["done"]
    (unknown,) = result.waiting
    assert unknown.reason == (
        f"nobody knows whether {slow.name} was run: it gave no answer within 0.2 s"
    )
    with AuditLog(tmp_path / "x.db") as audit:
        kinds = [event.kind for event in audit.events(result.run_id)]
        (waits,) = audit.waiting(result.run_id)
    assert [kinds.count(kind) for kind in ("tool_intended", "tool_returned", "escalated")] == [
        2,
        1,
        1,
    ]
    assert (waits.thought, waits.about, waits.tool) == (unknown.id, "tool", slow.name)


async def test_what_a_langchain_tool_raises_is_a_failed_thought(
    scripted: Callable[..., Any], tmp_path: Path
) -> None:
    @langchain_tool
    def refuse(word: str) -> str:
        """Raise."""
        raise ToolException(f"no {word}")

    def calls(text: str) -> Call:
        return Call("refuse", {"word": text})

    plan = generate("{task}", calls=calls) >> act([refuse], calls=calls)
    agent = Agent("refused", plan, policy=Policy(name="none"))
    result = await agent.run("tea", engine=scripted(str), ledger=tmp_path / "x.db")
    assert result.status is RunStatus.EMPTY
    assert "no tea" in (result.reason or "")
