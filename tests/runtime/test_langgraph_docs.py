"""What the pages on LangGraph and on resuming name, there is."""

import ast
import re
from pathlib import Path

from typer.main import get_command

import secateur
from secateur.cli.commands import app
from secateur.runtime.ledger.events import RunStatus

ROOT = Path(secateur.__file__).parent
LANGGRAPH = (ROOT / "docs" / "langgraph.md").read_text("utf-8")
RESUMING = (ROOT / "docs" / "resuming.md").read_text("utf-8")


def test_every_example_of_langgraph_is_on_its_page() -> None:
    there = {path.name for path in (ROOT / "examples").glob("lang*.py")}
    assert set(re.findall(r"examples/(\w+\.py)", LANGGRAPH)) == there


def test_the_code_on_the_page_is_code() -> None:
    for block in re.findall(r"^```python\n(.*?)^```", LANGGRAPH, re.DOTALL | re.MULTILINE):
        compile(block, "docs/langgraph.md", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)


def test_the_langchain_tool_on_the_page_is_the_examples() -> None:
    example = (ROOT / "examples" / "langchain_tool.py").read_text("utf-8")
    for line in ("async def add_up(digits: str) -> str:", "act([add_up], calls=calls)"):
        assert line in example
        assert line in LANGGRAPH


def test_every_status_has_its_word_on_resuming() -> None:
    for status in RunStatus:
        assert f"`{status}`" in RESUMING


def test_options_that_the_page_types_are_options() -> None:
    root = get_command(app)
    commands = [root.commands["run"], *root.commands["audit"].commands.values()]
    known = {
        option
        for command in commands
        for parameter in command.params
        for option in (*parameter.opts, *parameter.secondary_opts)
    }
    typed = set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", RESUMING)) - {"--kills"}
    assert {"--resume", "--approve", "--refuse", "--outcome"} <= typed <= known
