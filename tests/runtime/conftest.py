"""A tiny engine, the command line, and a home for runs that are broken off and gone on with."""

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from secateur import Agent, AuditLog, Ledger, LocalEngine, Policy, Sampling
from secateur.agents.plans.words import act, aggregate, each, generate, keep_best, score, split
from secateur.agents.thought import Scene
from secateur.agents.tool import Call, Workspace, tool
from secateur.runtime.executor.session import RunResult
from secateur.runtime.review.decisions import decide


@pytest.fixture
async def engine(tiny_checkpoint: Path):
    """A random two-layer model."""
    loaded = LocalEngine.load(tiny_checkpoint)
    yield loaded
    await loaded.aclose()


HOT = Sampling(temperature=1.0, max_tokens=8)


def length(scene: Scene) -> float:
    return float(len(scene.text))


def halves(scene: Scene) -> list[tuple[str, str]]:
    middle = len(scene.task) // 2
    return [(part, part) for part in (scene.task[:middle], scene.task[middle:])]


def mood(progress) -> dict[str, str] | None:
    return {"angry": "ban"} if len(progress.token_ids) == 3 else None


def stamps(text: str) -> Call:
    return Call("stamp", {})


@tool
def stamp(folder: Workspace) -> str:
    """An effect that can be counted."""
    with (folder.path / "stamps.txt").open("a") as file:
        file.write("stamped\n")
    return "stamped"


def stamping(prompt: str = "say {task}\n", n: int = 1) -> Agent:
    """An agent that says something, whatever it is, and stamps."""
    said = generate(prompt, n=n, calls=stamps, name="say")
    return Agent("stamper", said >> act([stamp], calls=stamps, name="stamp"), sampling=HOT)


class Home:
    """One ledger, one engine, and folders for tools."""

    stamping = staticmethod(stamping)
    stamper = stamping()
    figure = Agent(
        "figure",
        split(halves)
        >> each(
            generate("say {text}\n", n=2, steer=mood, steer_at="token", name="say")
            >> score(length)
            >> keep_best(1)
        )
        >> aggregate("join {texts}\n", calls=stamps, name="join")
        >> act([stamp], calls=stamps, name="stamp"),
        sampling=HOT,
    )
    """A graph with everything in it that a ledger records."""
    asking = Policy.model_validate(
        {
            "name": "asking",
            "rules": [
                {"tag": "angry", "reading": "opened", "at": 1e-9, "action": "escalate"}
                | {"scope": "action"}
            ],
        }
    )
    """Before anything is done, a person is asked."""
    sent_back = Policy.model_validate(
        {
            "name": "sent back",
            "tags": {"deceit": {"control": "boost(4)"}},
            "rules": [
                {"tag": "deceit", "reading": "emitted", "action": "resample", "retries": 2}
                | {"controls": {"deceit": "ban"}}
            ],
        }
    )
    """Tags are likely, and lead to another try."""

    def __init__(self, path: Path, watched: Any) -> None:
        self.db, self.sandbox, self.watched = path / "x.db", path / "sandbox", watched

    async def run(self, agent: Agent, policy: Policy | str = "observe", seed: int = 5) -> RunResult:
        return await agent.run(
            "3120 4217",
            policy=policy,
            engine=self.watched,
            ledger=self.db,
            seed=seed,
            sandbox=self.sandbox,
        )

    async def resume(self, agent: Agent, run: str, **given: Any) -> RunResult:
        self.watched.requests.clear()
        return await agent.resume(run, engine=self.watched, ledger=self.db, **given)

    async def killed_at(
        self, agent: Agent, kind: str, which: int = 0, policy: Policy | str = "observe"
    ) -> RunResult:
        """A run whose process was killed right after this event."""
        whole = await self.run(agent, policy)
        self.cut_off(whole.run_id, self.nth(whole.run_id, kind, which))
        return whole

    def cut_off(self, run: str, last: int) -> None:
        """Leave the ledger as it is on disk when the process is killed right after this event."""
        with closing(sqlite3.connect(self.db, isolation_level=None)) as connection:
            query = "SELECT name, sql FROM sqlite_master WHERE type = 'trigger'"
            triggers = connection.execute(query).fetchall()
            for name, _ in triggers:
                connection.execute(f"DROP TRIGGER {name}")
            after = (run, last)
            connection.execute(
                "DELETE FROM tag_score WHERE run_id = ? AND thought_id IN "
                "(SELECT id FROM thought WHERE run_id = ? AND seq > ?)",
                (run, *after),
            )
            for table in ("thought", "decision", "event"):
                connection.execute(f"DELETE FROM {table} WHERE run_id = ? AND seq > ?", after)
            # The full-text index follows behind: as if it had not begun with this run.
            connection.execute("DELETE FROM passage WHERE run_id = ?", (run,))
            connection.execute(
                "UPDATE passage_mark SET upto = -1, settled = false WHERE run_id = ?", (run,)
            )
            for _, again in triggers:
                connection.execute(again)

    async def decide(self, thought: str, **given: Any) -> None:
        async with Ledger.open(self.db) as ledger:
            await decide(ledger, thought, **({"by": "ada", "reason": "I looked"} | given))

    def graph(self, agent: Agent | None = None, **given: Any) -> Any:
        """An agent, the stamper if none is named, as a LangGraph graph at home here."""
        usual = {"policy": "observe", "engine": self.watched, "ledger": self.db}
        usual["sandbox"] = self.sandbox
        return (agent or self.stamper).graph(**usual | given)

    def kinds(self, run: str) -> list[str]:
        with AuditLog(self.db) as audit:
            return [event.kind for event in audit.events(run)]

    def nth(self, run: str, kind: str, which: int = 0) -> int:
        """The number of an event."""
        return [seq for seq, found in enumerate(self.kinds(run)) if found == kind][which]

    def recorded(self, run: str) -> dict[str, tuple[Any, ...]]:
        """What the ledger has of each thought."""
        with AuditLog(self.db) as audit:
            return {
                t.id: (
                    *(t.parents, t.operation, t.index, t.attempt),
                    *(t.status, t.text, t.score, t.reason),
                )
                for t in audit.thoughts(run)
            }

    def stamp(self) -> None:
        """Stamp, as the tool does."""
        stamp.run(Workspace(self.sandbox), {})

    def stamped(self) -> int:
        """How often it was stamped."""
        file = self.sandbox / "stamps.txt"
        return len(file.read_text().splitlines()) if file.exists() else 0


@pytest.fixture
def home(tmp_path: Path, engine: LocalEngine, watched) -> Home:
    """Where runs are killed and resumed."""
    return Home(tmp_path, watched(engine))
