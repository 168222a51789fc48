"""The code in the docs and in the examples is code that runs."""

import re
from pathlib import Path
from typing import Any

import pytest

import secateur
from secateur import Policy
from secateur.agents.desk.folder import prepare
from secateur.agents.desk.mood import Mood, mood_of
from secateur.agents.loading import BUILTIN, load_agent
from secateur.agents.plans import words as plan
from secateur.agents.ready.digits import parse_digits
from secateur.agents.ready.sort import LONGEST, PART
from secateur.agents.search import search as searching
from secateur.agents.spec import TaskError
from secateur.agents.tool import Workspace
from secateur.runtime.agent import Agent
from secateur.runtime.engines.protocol import Engine
from secateur.runtime.ledger.events import RunStatus
from secateur.runtime.ledger.reading.audit import AuditLog

ROOT = Path(secateur.__file__).parent
TEXT = (ROOT / "docs" / "agents.md").read_text("utf-8")
BLOCKS = re.findall(r"^```python\n(.*?)^```", TEXT, re.DOTALL | re.MULTILINE)
EXAMPLE = ROOT / "examples" / "my_agent.py"
BARE = Policy.model_validate(
    {"name": "t", "rules": [{"tag": "deceit", "reading": "opened", "at": 0.5, "action": "prune"}]}
)


@pytest.fixture(scope="module")
def names() -> dict[str, Any]:
    """What the blocks define, one after the other."""
    defined: dict[str, Any] = {}
    for block in BLOCKS:
        exec(block, defined)
    return defined


def test_the_first_agent_of_the_docs_and_the_readme_is_the_example() -> None:
    assert BLOCKS[0] == EXAMPLE.read_text("utf-8")
    assert BLOCKS[0] in (ROOT / "README.md").read_text("utf-8")


async def test_the_example_sorts(tmp_path: Path, engine: Engine) -> None:
    agent = Agent.of(load_agent(f"{EXAMPLE}:agent"))
    result = await agent.run("31204", engine=engine, ledger=tmp_path / "secateur.db")
    assert result.status is RunStatus.DONE
    assert result.best is not None
    assert result.best.text == "0 1 2 3 4"


async def test_the_docs_merge_sorts(tmp_path: Path, engine: Engine, names: dict[str, Any]) -> None:
    result = await names["sorter"].run("31204657", engine=engine, ledger=tmp_path / "s.db")
    assert result.best is not None
    assert result.best.text == "0 1 2 3 4 5 6 7"
    assert len(result.best.parents) == 2


async def test_the_docs_tool_writes_its_file(
    tmp_path: Path, engine: Engine, names: dict[str, Any]
) -> None:
    sandbox = tmp_path / "sandbox"
    result = await names["keeper"].run(
        "312", engine=engine, ledger=tmp_path / "s.db", sandbox=sandbox
    )
    assert result.answer == "saved 3 digits"
    assert (sandbox / "sorted.txt").read_text() == "[1, 2, 3]"


async def test_the_docs_mood_changes_the_controls(
    tmp_path: Path, engine: Engine, names: dict[str, Any]
) -> None:
    result = await names["moody"].run(
        "restart web and confirm it is up", engine=engine, ledger=tmp_path / "s.db"
    )
    assert result.status is RunStatus.DONE
    with AuditLog(tmp_path / "s.db") as audit:
        kept = next(t for t in audit.thoughts(result.run_id) if t.kind == "generate")
        switches = audit.why(kept.id, result.run_id).switches
    assert [switch.after["angry"] for switch in switches][:1] in (["allow"], ["ban"])


async def test_the_docs_reader_refuses_in_its_own_words(
    tmp_path: Path, engine: Engine, names: dict[str, Any]
) -> None:
    with pytest.raises(TaskError, match=r"^give me digits, such as \[3, 1, 2\]"):
        await names["careful"].run("[]", engine=engine, ledger=tmp_path / "s.db")


# Operations, joins, searches


@pytest.mark.parametrize(
    "name", ["hasty", "racing", "patient", "wide", "keen", "greedy", "thrifty", "measured"]
)
async def test_the_docs_plans_sort(
    tmp_path: Path, engine: Engine, names: dict[str, Any], name: str
) -> None:
    result = await names[name].run("31204657", engine=engine, ledger=tmp_path / "s.db")
    assert result.status is RunStatus.DONE, result.reason
    assert sorted(parse_digits(result.best.text)) == list(parse_digits(result.best.text))
    with AuditLog(tmp_path / "s.db") as audit:
        assert audit.verify().ok


async def test_the_docs_own_operation_turns_the_list_round(
    tmp_path: Path, engine: Engine, names: dict[str, Any]
) -> None:
    result = await names["downhill"].run("3120", engine=engine, ledger=tmp_path / "s.db")
    assert result.best is not None
    assert result.best.value == [3, 2, 1, 0]


async def test_the_docs_ground_truth_is_told_apart(
    tmp_path: Path, engine: Engine, names: dict[str, Any]
) -> None:
    result = await names["measured"].run("3120", engine=engine, ledger=tmp_path / "s.db")
    assert set(result.truths) == {thought.id for thought in result.kept}
    assert set(result.truths.values()) <= {True, False}


async def test_the_docs_particles_share_their_weight(
    tmp_path: Path, engine: Engine, names: dict[str, Any]
) -> None:
    task = "restart web and confirm it is up"
    result = await names["weighed"].run(task, engine=engine, ledger=tmp_path / "s.db")
    assert result.best is not None
    assert 0 < (result.best.score or 0) <= 1


async def test_the_docs_ticket_is_mended(
    tmp_path: Path, scripted: Any, names: dict[str, Any]
) -> None:
    def answer(prompt: str) -> str:
        urgency = "low" if "Input should be 'low' or 'high'" in prompt else "huge"
        return f'Sure: {{"service": "web", "urgency": "{urgency}"}}'

    result = await names["triage"].run(
        "web is down", policy=BARE, engine=scripted(answer), ledger=tmp_path / "s.db"
    )
    assert result.best is not None
    assert result.best.value == {"service": "web", "urgency": "low"}


async def test_the_docs_poet_is_judged_by_the_model(
    tmp_path: Path, scripted: Any, names: dict[str, Any]
) -> None:
    haiku = iter(["plain", "good", "fine", "dull"])
    grades = {"plain": 4, "good": 9, "fine": 8, "dull": 1}

    def answer(prompt: str) -> str:
        if "Rate" in prompt:
            return f"{grades[prompt.split()[0]]} of 10, so: {grades[prompt.split()[0]]}"
        return "2" if "Which" in prompt else next(haiku)

    result = await names["poet"].run(
        "shears", policy=BARE, engine=scripted(answer), ledger=tmp_path / "s.db"
    )
    assert result.best is not None
    assert (result.best.text, result.best.score) == ("fine", 1.0)


async def test_the_docs_sentence_is_shortened(
    tmp_path: Path, scripted: Any, names: dict[str, Any]
) -> None:
    def answer(prompt: str) -> str:
        said = "it has 13 words, and may have 12" in prompt
        return "shears cut" if said else " ".join(["word"] * 13)

    result = await names["brief"].run(
        "shears", policy=BARE, engine=scripted(answer), ledger=tmp_path / "s.db"
    )
    assert result.best is not None
    assert result.best.text == "shears cut"


def test_every_operation_and_composition_is_in_the_docs() -> None:
    for name in {*plan.__all__, *searching.__all__} - {"Asking", "Plan"}:
        assert re.search(rf"`{name}[(`]|`{name}\b", TEXT), name


# What the docs say of the ready-made agents


def test_every_ready_made_agent_is_in_the_docs() -> None:
    for name in BUILTIN:
        assert f"**`{name}`**" in TEXT
    assert f"up to {LONGEST} digits" in TEXT
    assert f"at most {PART}" in TEXT


def test_every_context_is_in_the_docs_with_words_that_lead_to_it() -> None:
    rows = dict(re.findall(r"^\| `(\w+)` \| (.*?) \|$", TEXT, re.MULTILINE))
    assert list(rows) == [mood.value for mood in Mood]
    for mood, words in rows.items():
        if mood != Mood.CALM:
            assert {mood_of(word) for word in words.split(", ")} == {Mood(mood)}


def test_every_file_that_the_docs_name_is_in_the_folder(tmp_path: Path) -> None:
    prepare(Workspace(tmp_path), "restart web and confirm it is up", 0)
    later = {"access/standing", "audit/muted", "outbox/report.txt"}
    table = TEXT[TEXT.index("| in the folder |") : TEXT.index("How things stand")]
    named = re.findall(r"`([\w./]+)`", table.replace("`disk.json`", "`backups/disk.json`"))
    assert {name for name in named if not (tmp_path / name).exists()} == later
