"""A large ledger, made at once: real rows from the real recorder, without its waiting.

Runs of 100 thoughts (and one of 10,000), two agents, three contexts, two policies, a fifth of the
thoughts cut; texts of some 40 words and prompts of some 60, drawn so that a few words are common
and many are rare. Everything that a run writes is there: intents, verdicts, evidence, salts,
chains.
"""

import random
import sqlite3
from collections.abc import Callable, Coroutine, Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import accumulate
from pathlib import Path
from typing import Any, cast

import numpy as np

from secateur.agents.prompt import Sampling
from secateur.agents.thought import Status
from secateur.gates.canonical import digest
from secateur.gates.evidence import Evidence
from secateur.gates.gate import judge
from secateur.gates.policy import Policy
from secateur.gates.verdict import Judgement
from secateur.gates.vocabulary import BoundVocabulary, Tag, Vocabulary
from secateur.runtime.engines.protocol import EngineInfo
from secateur.runtime.ledger import connect, tables
from secateur.runtime.ledger.chain import GENESIS
from secateur.runtime.ledger.events import ModelIntent, RunStart, RunStatus, ThoughtRecord
from secateur.runtime.ledger.ledger import new_run_id
from secateur.runtime.ledger.provenance import run_digests
from secateur.runtime.ledger.writing.appending import Clock, Known
from secateur.runtime.ledger.writing.runlog import RunLog
from secateur.runtime.ledger.writing.writer import Append, Writer

__all__ = ["Made", "make"]

LONG = 10_000
"""Thoughts of the one long run."""
SHORT = 100
TOKENS = 48
TAGS = ("deceit", "powerseeking")
RARE = "heliotrope"
"""A word that about one thought in a thousand has."""
DAYS = 30
_POLICY = """
name: {name}
rules:
  - {{tag: deceit, reading: opened, at: {at}, action: prune}}
  - {{tag: deceit, reading: peak, at: 0.05, action: flag}}
  - {{tag: powerseeking, reading: opened, at: 0.5, action: prune}}
contexts:
  fiction: {{rules: [{{tag: deceit, reading: opened, at: 0.9, action: prune}}]}}
"""
_ORDER = (
    tables.policy,
    tables.blob,
    tables.run,
    tables.event,
    tables.thought,
    tables.tag_score,
)


@dataclass(frozen=True, slots=True)
class Made:
    """What there is to ask about."""

    runs: list[str]
    long: str
    """The run of many thoughts."""
    thoughts: int
    events: int
    newest: datetime


class _Gathering:
    """Takes what a recorder would have written, and waits for nothing."""

    full = False

    def __init__(self) -> None:
        self.rows: dict[Any, list[tuple[Any, ...]]] = {table: [] for table in _ORDER}
        self.policies: set[str] = set()

    def put(self, append: Append, *, wait: bool) -> None:
        """Keep one append's rows."""
        self.rows[tables.event].append(append.event)
        for table, several in append.rows.items():
            for row in several:
                if table is tables.policy:
                    if row[0] in self.policies:
                        continue
                    self.policies.add(row[0])
                self.rows[table].append(tuple(row))


class _Texts:
    """Sentences over a vocabulary in which the n-th word comes up 1/n as often as the first."""

    def __init__(self, rng: random.Random) -> None:
        letters = "bcdfghjklmnprstvz"
        self._words = [
            "".join(rng.choice(letters) + rng.choice("aeiou") for _ in range(rng.randint(2, 4)))
            for _ in range(8000)
        ]
        self._weights = list(accumulate(1 / (place + 2) for place in range(len(self._words))))
        self._rng = rng

    def some(self, count: int) -> str:
        """So many words."""
        words = self._rng.choices(self._words, cum_weights=self._weights, k=count)
        if self._rng.random() < 0.001:
            words[count // 2] = RARE
        return " ".join(words) + "."


def vocabulary() -> BoundVocabulary:
    """Two tags, each with its opening and its closing token."""
    tags = tuple(Tag(name=t, open=f"<|{t}|>", close=f"<|/{t}|>") for t in TAGS)
    literals = [f"<|{slash}{tag}|>" for slash in ("", "/") for tag in TAGS]
    return BoundVocabulary(
        Vocabulary(name="made", tags=tags),
        {literal: 100 + place for place, literal in enumerate(literals)},
    )


def evidences(rng: random.Random) -> list[Evidence]:
    """A hundred generations; the temptation of one tag rises in some of them."""
    found: list[Evidence] = []
    for number in range(100):
        p = np.full((TOKENS, len(TAGS)), 0.0005)
        p += np.random.default_rng(number).random(p.shape) * 0.001
        if rng.random() < 0.2:
            p[rng.randrange(TOKENS), rng.choice((0, 0, 1))] = rng.uniform(0.4, 0.99)
        found.append(
            Evidence(
                columns=tuple(f"<|{tag}|>" for tag in TAGS),
                token_ids=tuple(range(TOKENS)),
                offsets=tuple(range(0, 5 * TOKENS, 5)),
                chosen=np.full(TOKENS, -0.5, dtype=np.float16),
                belief=np.log(p).astype(np.float16),
            )
        )
    return found


class _Maker:
    """Tells runs, one after the other, from :data:`DAYS` ago until now."""

    def __init__(self, thoughts: int, seed: int) -> None:
        self._rng = random.Random(seed)
        self._texts = _Texts(self._rng)
        self._bound = vocabulary()
        self._evidence = evidences(self._rng)
        self._policies = [Policy.from_yaml(_POLICY.format(name=n, at=a)) for n, a in POLICIES]
        self._verdicts: dict[tuple[str, str | None, int], Judgement] = {}
        self._now = datetime.now(UTC) - timedelta(days=DAYS)
        self._step = timedelta(days=DAYS) / (2.1 * thoughts + 1)
        self._clock = Clock(self._tick)
        self.gathered = _Gathering()

    def _tick(self) -> datetime:
        self._now += self._step
        return self._now

    def run(self, thoughts: int) -> str:
        """One run of a root and so many thoughts under it, 5 children a node."""
        policy = self._rng.choice(self._policies)
        context = self._rng.choice((None, None, "fiction"))
        start = RunStart(
            run=new_run_id(self._now),
            agent=self._rng.choice(("opsdesk", "writer", "sort")),
            task=self._texts.some(12),
            context=context,
            seed=self._rng.randrange(1 << 30),
            policy=policy,
            engine=EngineInfo("local", "made", "a" * 64, "b" * 64, self._bound, 512),
        )
        digests = run_digests(start)
        known = Known(start.run, start.agent, digests, digest(digests), 0, GENESIS, {})
        log = RunLog(known, cast(Writer, self.gathered), self._clock)
        _at_once(log.started(start))
        ids = [f"{self._rng.getrandbits(64):016x}" for _ in range(thoughts + 1)]
        root = ThoughtRecord(ids[0], (), "task", "task", 0, 0, Status.KEPT, text=start.task)
        _at_once(log.place(root))
        for number in range(1, thoughts + 1):
            self._thought(log, policy, context, ids, number)
        _at_once(log.finish(RunStatus.DONE, self._texts.some(8)))
        return start.run

    def _thought(
        self, log: RunLog, policy: Policy, context: str | None, ids: list[str], number: int
    ) -> None:
        id, parents = ids[number], (ids[(number - 1) // 5],)
        chosen = self._rng.randrange(len(self._evidence))
        key = (policy.digest, context, chosen)
        if key not in self._verdicts:
            evidence = self._evidence[chosen]
            self._verdicts[key] = judge(policy, evidence, self._bound, context=context)
        judgement = self._verdicts[key]
        _at_once(
            log.intend(
                ModelIntent(
                    thought=id,
                    operation="report",
                    parents=parents,
                    prompt_ids=tuple(range(80)),
                    prompt_text=self._texts.some(60),
                    sampling=Sampling(),
                    controls={},
                    seed=number,
                )
            )
        )
        _at_once(
            log.judge(
                ThoughtRecord(
                    id=id,
                    parents=parents,
                    operation="report",
                    kind="generate",
                    depth=1 + number // 5,
                    index=(number - 1) % 5,
                    status=Status.KEPT if judgement.action.keeps else Status.PRUNED,
                    text=self._texts.some(40),
                    tokens=TOKENS,
                    latency_s=0.25,
                    judgement=judgement,
                    evidence=self._evidence[chosen],
                )
            )
        )


POLICIES = (("strict", 0.5), ("prune", 0.7))


def _at_once(step: Coroutine[Any, Any, None]) -> None:
    """Run what has nothing to wait for."""
    try:
        step.send(None)
    except StopIteration:
        return
    raise RuntimeError("the recorder waited, and nobody will write")


def make(url: str, thoughts: int, told: Callable[[int], object], seed: int = 1) -> Made:
    """A new ledger at ``url`` with so many thoughts; ``told`` hears of each run's.

    The rows go in without waiting for the disk; whatever a crash would lose, nobody misses.
    """
    connect.open_or_create(url).dispose()
    maker = _Maker(thoughts, seed)
    sizes = [min(LONG, thoughts // 2)]
    sizes += [SHORT] * max(1, (thoughts - sizes[0]) // SHORT)
    sizes.insert(len(sizes) // 2, sizes.pop(0))
    runs: list[str] = []
    events = 0
    put = _into_postgresql(url) if "://" in url else _into_sqlite(Path(url))
    next(put)
    for number, size in enumerate(sizes):
        runs.append(maker.run(size))
        events += 2 * size + 3
        told(size + 1)
        if number % 50 == 49 or number == len(sizes) - 1:
            put.send(maker.gathered.rows)
            for rows in maker.gathered.rows.values():
                rows.clear()
    put.close()
    long = runs[sizes.index(max(sizes))]
    return Made(runs, long, sum(sizes) + len(sizes), events, datetime.now(UTC))


def _into_sqlite(path: Path) -> Iterator[Any]:
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA synchronous = OFF")
        connection.execute("PRAGMA cache_size = -1000000")
        try:
            while True:
                rows = yield
                connection.execute("BEGIN")
                for table in _ORDER:
                    marks = ", ".join("?" * len(table.c))
                    connection.executemany(
                        f"INSERT INTO {table.name} VALUES ({marks})", rows[table]
                    )
                connection.execute("COMMIT")
        finally:
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def _into_postgresql(url: str) -> Iterator[Any]:
    import psycopg

    with psycopg.connect(url.replace("+psycopg", ""), autocommit=True) as connection:
        connection.execute("SET synchronous_commit = off")
        while True:
            rows = yield
            with connection.transaction():
                for table in _ORDER:
                    names = ", ".join(f'"{column.name}"' for column in table.c)
                    with connection.cursor().copy(
                        f"COPY {table.name} ({names}) FROM STDIN"
                    ) as copy:
                        for row in rows[table]:
                            copy.write_row(row)
