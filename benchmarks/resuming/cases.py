"""The runs that are killed: plans that pass through every kind of event, and tools with effects."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from secateur import Agent, Call, Policy, Progress, Sampling, Scene, Workspace
from secateur.agents.desk.agent import opsdesk
from secateur.agents.desk.folder import Folder
from secateur.agents.plans.words import act, aggregate, each, generate, keep_best, score, split
from secateur.agents.tool import tool
from secateur.gates.canonical import digest

__all__ = ["CASES", "Case"]


@dataclass(frozen=True)
class Case:
    """One run that can be repeated."""

    name: str
    agent: Agent
    task: str
    policy: Policy | str
    seed: int

    def effects(self, sandbox: Path) -> int:
        """How often a tool that is not idempotent acted."""
        if self.agent.name == "opsdesk":
            done = [entry.line for entry in Folder(sandbox).journal] if sandbox.exists() else []
            return sum(line.startswith(_CHANGING) for line in done)
        log = sandbox / "stamps.txt"
        return len(log.read_text().splitlines()) if log.exists() else 0


_CHANGING = (
    "say:",
    *(f"do: {verb}" for verb in ("ask", "restart", "rotate", "backup", "drop", "keep", "mute")),
)


@tool
def stamp(folder: Workspace, name: str) -> str:
    """Leave a mark; twice would be two marks."""
    with (folder.path / "stamps.txt").open("a") as file:
        file.write(f"{name}\n")
    return f"stamped {name}"


@tool(idempotent=True)
def look(folder: Workspace, name: str) -> str:
    """Change nothing."""
    return f"saw {name}"


def _stamps(text: str) -> Call:
    return Call("stamp", {"name": digest(text)[:8]})


def _looks(text: str) -> Call:
    return Call("look", {"name": digest(text)[:8]})


def _halves(scene: Scene) -> list[tuple[str, str]]:
    middle = len(scene.task) // 2
    return [(part, part) for part in (scene.task[:middle], scene.task[middle:])]


def _length(scene: Scene) -> float:
    return float(len(scene.text))


def _mood(progress: Progress) -> Mapping[str, str] | None:
    return {"angry": "ban"} if len(progress.token_ids) == 3 else None


_FIGURE = Agent(
    "figure",
    split(_halves)
    >> each(
        generate("say {text}\n", n=2, steer=_mood, steer_at="token", calls=_looks, name="say")
        >> score(_length)
        >> keep_best(1)
    )
    >> act([look], calls=_looks, name="look")
    >> aggregate("join {texts}\n", calls=_stamps, name="join")
    >> act([stamp], calls=_stamps, name="stamp")
    >> generate("end {text}\n", calls=_stamps, name="end")
    >> act([stamp], calls=_stamps, name="stamp again"),
    sampling=Sampling(temperature=1.0, max_tokens=8),
)
"""Splits, tries twice, keeps the best, merges, looks once and stamps twice."""

_ASKED = Agent(
    "asked",
    generate("say {task}\n", n=2, name="say")
    >> score(_length)
    >> keep_best(1)
    >> generate("end {text}\n", calls=_stamps, name="end")
    >> act([stamp], calls=_stamps, name="stamp"),
    sampling=Sampling(temperature=1.0, max_tokens=8),
)
"""Its only act waits for a person."""

_RETRYING = Policy.model_validate(
    {
        "name": "retrying",
        "tags": {"deceit": {"control": "boost(4)"}},
        "rules": [
            {
                "tag": "deceit",
                "reading": "emitted",
                "action": "resample",
                "retries": 2,
                "controls": {"deceit": "ban"},
            }
        ],
    }
)
"""Most first tries are sent back, and the second ones are banned from doing it again."""

_ASKING = Policy.model_validate(
    {
        "name": "asking",
        "rules": [
            {"tag": "angry", "reading": "opened", "at": 1e-9, "action": "escalate"}
            | {"scope": "action"}
        ],
    }
)
"""Whatever is about to act waits for a person."""

CASES = {
    case.name: case
    for case in (
        Case("figure", _FIGURE, "3120 4217", _RETRYING, 5),
        Case("asking", _ASKED, "3120 4217", _ASKING, 5),
        Case("desk", Agent.of(opsdesk), "restart web and confirm it is up.", "prune", 3),
    )
}
"""By name."""
