"""Agents are found by name or in a file, and whatever is wrong is said in one line."""

from pathlib import Path

import pytest

from secateur.agents.loading import BUILTIN, AgentError, load_agent

GOOD = """
from secateur.agents.plans.words import generate
from secateur.agents.spec import AgentSpec
from words import PROMPT
agent = AgentSpec(name="mine", plan=generate(PROMPT))
count = 3
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "words.py").write_text('PROMPT = "say {task}"\n')
    path = tmp_path / "my_agent.py"
    path.write_text(GOOD)
    return path


def test_ready_made_agents_are_found_by_their_names() -> None:
    assert set(BUILTIN) == {"opsdesk", "sort", "intersect"}
    assert load_agent("sort") is BUILTIN["sort"]


def test_an_agent_is_loaded_from_a_file_with_its_neighbours(file: Path) -> None:
    assert load_agent(f"{file}:agent").name == "mine"


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("opsdek", "there is no agent 'opsdek'; built in are opsdesk, sort"),
        ("nowhere.py:agent", "nowhere.py: no such file"),
        ("{file}", "which agent. write .*my_agent.py:name; it has: agent"),
        ("{file}:agnt", "there is no 'agnt'; it has: agent"),
        ("{file}:count", "'count' is no agent, it is 3; it has: agent"),
    ],
)
def test_what_cannot_be_found_is_said_with_what_is_there(file: Path, name: str, says: str) -> None:
    with pytest.raises(AgentError, match=says) as caught:
        load_agent(name.format(file=file))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("x = 1\ny = x / 0\n", "my_agent.py:2: ZeroDivisionError: division by zero"),
        ("def f(:\n", "my_agent.py:1: SyntaxError: "),
        ("import no_such_module_here\n", "my_agent.py:1: ModuleNotFoundError: "),
        ("\nraise SystemExit\n", "my_agent.py:2: SystemExit"),
        (
            "from secateur.agents.plans.words import generate\n\ngenerate('{tsk}')\n",
            r"my_agent.py:3: operation 'generate': the prompt names \{tsk\}",
        ),
    ],
)
def test_an_error_in_the_users_file_names_file_and_line(file: Path, text: str, says: str) -> None:
    file.write_text(text)
    with pytest.raises(AgentError, match=says) as caught:
        load_agent(f"{file}:agent")
    assert "\n" not in str(caught.value)


def test_a_file_may_be_loaded_again_after_it_was_mended(file: Path) -> None:
    file.write_text("agent = 1 / 0")
    with pytest.raises(AgentError):
        load_agent(f"{file}:agent")
    file.write_text(GOOD)
    assert load_agent(f"{file}:agent").name == "mine"
