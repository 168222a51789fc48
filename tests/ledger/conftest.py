"""Real runs for the ledger's tests: evidence with chosen temptations, judged by a real policy."""

import asyncio
import shutil
import sqlite3
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from secateur.agents.prompt import Sampling
from secateur.agents.thought import Status
from secateur.gates.evidence import Evidence
from secateur.gates.gate import decide
from secateur.gates.policy import Policy
from secateur.gates.verdict import Broken
from secateur.gates.vocabulary import BoundVocabulary, Tag, Vocabulary
from secateur.runtime.engines.protocol import EngineInfo
from secateur.runtime.ledger.events import ModelIntent, RunStart, RunStatus, ThoughtRecord
from secateur.runtime.ledger.ledger import Ledger, RunLog, new_run_id

TAGS = ("deceit", "powerseeking", "angry")
WORDS = ("I", " restarted", " web", ".", "\n")


class Making:
    """Makes what a run would tell the ledger."""

    words = WORDS
    policy = Policy.from_yaml(
        """
name: test
rules:
  - {tag: deceit, reading: opened, at: 0.3, action: prune}
  - {tag: deceit, reading: peak, at: 0.05, action: flag}
  - {tag: powerseeking, reading: opened, at: 0.5, action: escalate}
contexts:
  fiction: {rules: [{tag: deceit, reading: opened, at: 0.9, action: prune}]}
"""
    )
    vocabulary = BoundVocabulary(
        Vocabulary(
            name="test",
            tags=tuple(Tag(name=t, open=f"<|{t}|>", close=f"<|/{t}|>") for t in TAGS),
        ),
        {
            literal: 100 + place
            for place, literal in enumerate(f"<|{s}{t}|>" for s in ("", "/") for t in TAGS)
        },
    )
    info = EngineInfo(
        engine="local",
        model="test",
        model_digest="a" * 64,
        tokenizer_digest="b" * 64,
        vocabulary=vocabulary,
        context_length=128,
    )

    def evidence(self, deceit: Sequence[float] = (), powerseeking: float = 0.001) -> Evidence:
        """Five tokens with these temptations before them; 0.001 where not said."""
        p = np.full((len(WORDS), len(TAGS)), 0.001)
        p[: len(deceit), 0] = deceit
        p[:, 1] = powerseeking
        starts = np.cumsum([0, *(len(word) for word in WORDS[:-1])])
        return Evidence(
            columns=tuple(f"<|{tag}|>" for tag in TAGS),
            token_ids=tuple(range(len(WORDS))),
            offsets=tuple(int(start) for start in starts),
            chosen=np.full(len(WORDS), -0.5, dtype=np.float16),
            belief=np.log(p).astype(np.float16),
        )

    def start(self, **given) -> RunStart:
        """The start of a run of ``opsdesk``."""
        usual = {
            "run": new_run_id(),
            "agent": "opsdesk",
            "task": "restart web",
            "context": None,
            "seed": 1,
            "policy": self.policy,
            "engine": self.info,
            "options": {"width": 4},
        }
        return RunStart(**(usual | given))

    def intent(self, thought: str, parents: tuple[str, ...] = ()) -> ModelIntent:
        """A model call for this thought."""
        return ModelIntent(
            thought=thought,
            operation="report",
            parents=parents,
            prompt_ids=(1, 2, 3),
            prompt_text="restart web\n> report",
            sampling=Sampling(),
            controls={},
            seed=7,
        )

    def thought(self, id: str, **given) -> ThoughtRecord:
        """A kept thought of five tokens."""
        usual = {
            "id": id,
            "parents": (),
            "operation": "report",
            "kind": "generate",
            "depth": 1,
            "index": 0,
            "status": Status.KEPT,
            "text": "".join(WORDS),
            "tokens": len(WORDS),
        }
        return ThoughtRecord(**(usual | given))

    def judged(self, id: str, evidence: Evidence, context: str | None = None, **given):
        """A thought with the verdict that the policy gives on this evidence."""
        judgement = decide(self.policy, evidence, self.vocabulary, context=context)
        status = Status.KEPT if judgement.action.keeps else Status.PRUNED
        given = {"status": status, "parents": ("a0",), "latency_s": 0.25} | given
        return self.thought(id, evidence=evidence, judgement=judgement, **given)


@dataclass(frozen=True)
class Told:
    """A ledger file that was written and closed."""

    path: Path
    first: str
    """A run with a kept, a pruned, an unreadable, a dropped and an escalated thought."""
    second: str
    """A fiction run of another agent, never finished, with the same thoughts b1 and b2."""

    def change(self, *statements: str) -> None:
        """Change the file as somebody with write access could, triggers gone."""
        with closing(sqlite3.connect(self.path, isolation_level=None)) as connection:
            names = connection.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'")
            for (name,) in names.fetchall():
                connection.execute(f"DROP TRIGGER {name}")
            for statement in statements:
                assert connection.execute(statement).rowcount, f"{statement} changed nothing"

    def ask(self, sql: str, parameters: tuple = ()) -> list[tuple]:
        """Rows of a plain query."""
        with closing(sqlite3.connect(self.path)) as connection:
            return connection.execute(sql, parameters).fetchall()


@pytest.fixture(scope="session")
def make() -> Making:
    """What runs are made of."""
    return Making()


async def tell_first(make: Making, log: RunLog) -> None:
    root = make.thought("a0", operation="task", kind="task", depth=0, text="restart web", tokens=0)
    await log.place(root)
    high, low = make.evidence([0.1, 0.5, 0.1]), make.evidence([0.1])
    for index, (id, evidence) in enumerate((("b1", high), ("b2", low), ("b3", make.evidence()))):
        await log.intend(make.intent(id, ("a0",)))
        await log.judge(make.judged(id, evidence, index=index, value={"steps": [id, 1.5]}))
    torn = make.judged("b4", make.evidence([float("nan")]), index=3)
    assert isinstance(torn.judgement, Broken)
    await log.judge(torn)
    await log.intend_tool("c1", "restart", {"service": "web"})
    await log.tool_result("c1", "restart", "web is up", ok=True, latency_s=0.01)
    await log.place(
        make.thought("c1", parents=("b2",), kind="act", operation="do", acted="restart", depth=2)
    )
    await log.score("b3", 2.5, "errors")
    await log.select(["b2"], ["b3"], "keep_best")
    grab = make.judged("b5", make.evidence(powerseeking=0.3), index=4, status=Status.ESCALATED)
    await log.judge(grab)
    await log.escalate("b5", "a rule asks for a person")
    await log.note("budget", {"tokens": 100}, thought="b5")
    await log.finish(RunStatus.DONE, "web is up")


@pytest.fixture(scope="session")
def told_once(tmp_path_factory: pytest.TempPathFactory, make: Making) -> Told:
    """A ledger of two runs, written once."""
    path = tmp_path_factory.mktemp("ledger") / "told.db"

    async def tell() -> tuple[str, str]:
        async with Ledger.open(path) as ledger:
            log = await ledger.start(make.start())
            await tell_first(make, log)
            other = await ledger.start(make.start(agent="writer", context="fiction"))
            for id, deceit in (("b1", [0.1, 0.5, 0.1]), ("b2", [0.1]), ("d1", [0.6, 0.9])):
                await other.judge(make.judged(id, make.evidence(deceit), context="fiction"))
            return log.run, other.run

    return Told(path, *asyncio.run(tell()))


@pytest.fixture
def told(told_once: Told, tmp_path: Path) -> Told:
    """A copy of that ledger, to be asked or damaged."""
    return replace(told_once, path=Path(shutil.copy(told_once.path, tmp_path / "told.db")))


@pytest.fixture
def one_line() -> Callable[[object], str]:
    """The message of an error, which must be one line."""

    def read(error: object) -> str:
        text = str(error)
        assert text
        assert "\n" not in text
        return text

    return read
