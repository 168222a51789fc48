"""Tools check what they are given, and get the run's folder where they ask for it."""

from pathlib import Path

import pytest

from secateur.agents.operations import PlanError
from secateur.agents.plan import act, generate
from secateur.agents.spec import AgentSpec
from secateur.agents.tool import Call, Tool, ToolError, Workspace, tool


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
