"""PostgreSQL databases and roles that are set up oddly, and texts and names beyond its limits."""

import asyncio
import random
import string
from collections.abc import Iterator
from dataclasses import replace
from itertools import product
from pathlib import Path
from runpy import run_path

import psycopg
import pytest

from secateur.agents.thought import Status
from secateur.gates.gate import judge
from secateur.gates.policy import Policy
from secateur.gates.vocabulary import BoundVocabulary, Tag, Vocabulary
from secateur.runtime.ledger import connect, erasing
from secateur.runtime.ledger.errors import LedgerError
from secateur.runtime.ledger.events import RunStatus
from secateur.runtime.ledger.integrity import verification
from secateur.runtime.ledger.ledger import Ledger
from secateur.runtime.ledger.reading.audit import AuditLog
from secateur.runtime.ledger.search import index as passages

_shared = run_path(str(Path(__file__).parents[1] / "ledger" / "conftest.py"))
ask, make, one_line = _shared["ask"], _shared["make"], _shared["one_line"]
postgres = _shared["postgres"]
new_in_sqlite, new_in_postgres = _shared["new_in_sqlite"], _shared["new_in_postgres"]
sqlite_url, postgres_url = _shared["sqlite_url"], _shared["postgres_url"]
ledger_url = _shared["ledger_url"]


@pytest.fixture
def database(postgres) -> Iterator[str]:
    """The name of a database without tables."""
    name = postgres.database()
    yield name
    postgres.drop(name)


def write(make, url: str, runs: int = 1, **given) -> list[str]:
    """Runs side by side, each with a ledger of its own, as processes have."""

    async def tell(number: int) -> str:
        async with Ledger.open(url) as ledger:
            log = await ledger.start(make.start(**given))
            for step in range(10):
                id = f"r{number}s{step}"
                await log.intend(make.intent(id))
                evidence = make.evidence(deceit=(0.01, 0.4) if step == 3 else ())
                judged = make.judged(id, evidence, index=step, parents=(), latency_s=0.1 + 0.2)
                await log.judge(judged)
            await log.finish(RunStatus.DONE, "done: größer 重启 ✓")
            return log.run

    async def all_of_them() -> list[str]:
        return await asyncio.gather(*(tell(number) for number in range(runs)))

    return asyncio.run(all_of_them())


@pytest.mark.parametrize("encoding", ["SQL_ASCII", "LATIN1", "EUC_JP", "WIN1252"])
def test_a_database_that_cannot_hold_every_text_is_refused_at_opening(
    postgres, one_line, encoding: str
) -> None:
    name = f"in_{encoding.lower()}"
    postgres.execute(f"CREATE DATABASE {name} ENCODING '{encoding}' LOCALE 'C' TEMPLATE template0")
    try:
        for open_it in (Ledger.open, AuditLog, connect.upgrade):
            with pytest.raises(LedgerError, match=f"its encoding is {encoding}") as error:
                open_it(postgres.url(name))
            assert "createdb -E UTF8" in one_line(error.value)
        tables = postgres.execute(
            "SELECT 1 FROM pg_tables WHERE schemaname = 'public'", database=name
        )
        assert tables == []
    finally:
        postgres.drop(name)


ODD = [
    "default_transaction_isolation = 'serializable'",
    "default_transaction_isolation = 'repeatable read'",
    "default_transaction_deferrable = on",
    "client_encoding = 'LATIN1'",
    "client_encoding = 'SQL_ASCII'",
    "DateStyle = 'SQL, DMY'",
    "IntervalStyle = 'sql_standard'",
    "TimeZone = 'Pacific/Chatham'",
    "standard_conforming_strings = off",
    "extra_float_digits = -15",
    "bytea_output = 'escape'",
    "synchronous_commit = off",
    "quote_all_identifiers = on",
    "gin_fuzzy_search_limit = 1",
    "default_text_search_config = 'pg_catalog.german'",
    "transform_null_equals = on",
    "enable_seqscan = off",
    "array_nulls = off",
    "lock_timeout = 1",
]


@pytest.mark.parametrize("setting", ODD)
@pytest.mark.parametrize("whose", ["database", "role"])
def test_what_a_database_or_a_role_has_set_changes_nothing(
    postgres, database: str, make, setting: str, whose: str
) -> None:
    user = f"odd_{database}"
    postgres.execute(f"CREATE ROLE {user} LOGIN SUPERUSER")
    name = database if whose == "database" else user
    postgres.execute(f"ALTER {whose} {name} SET {setting}")
    url = postgres.url(database, user)
    try:
        runs = write(make, url, 4)
        with AuditLog(url) as audit:
            assert {row.run: row.status for row in audit.runs()} == dict.fromkeys(runs, "done")
            assert {row.result for row in audit.runs()} == {"done: größer 重启 ✓"}
            assert audit.verify().ok
            assert {row.latency_s for row in audit.thoughts(runs[0])} == {0.1 + 0.2}
            assert len(audit.search("restarted web", limit=None)) == 40
            assert len(audit.pruned()) == 4
            assert audit.sql("SELECT TIMESTAMPTZ '2026-05-01 00:00+00'").rows[0][0].year == 2026
    finally:
        postgres.drop(database)
        postgres.execute(f"DROP ROLE {user}")


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("default_transaction_read_only = on", "default_transaction_read_only"),
        ("session_replication_role = replica", "session_replication_role"),
        ("search_path = nowhere", "search_path"),
        ("search_path = ''", "search_path"),
    ],
)
def test_a_setting_with_which_nothing_can_be_written_is_refused_at_opening(
    postgres, database: str, make, one_line, setting: str, said: str
) -> None:
    write(make, postgres.url(database))
    postgres.execute(f"ALTER DATABASE {database} SET {setting}")
    for open_it in (Ledger.open, connect.upgrade):
        with pytest.raises(LedgerError, match=said) as error:
            open_it(postgres.url(database))
        one_line(error.value)
    if "read_only" in setting:
        with AuditLog(postgres.url(database)) as audit:
            assert audit.verify().ok


def test_a_ledger_in_a_schema_of_its_own_is_found_by_the_search_path(
    postgres, database: str, make
) -> None:
    postgres.execute("CREATE SCHEMA kept", database=database)
    postgres.execute(f"ALTER DATABASE {database} SET search_path = kept, public")
    (run,) = write(make, postgres.url(database))
    with AuditLog(postgres.url(database)) as audit:
        assert [row.run for row in audit.runs()] == [run]
        assert audit.verify().ok


def long_words(length: int, seed: int, alphabet: str) -> str:
    """Words of three letters, hardly one of them twice."""
    rng = random.Random(seed)
    words = ["".join(letters) for letters in product(alphabet, repeat=3)]
    rng.shuffle(words)
    return " ".join((words * (length // 4 // len(words) + 1))[: length // 4])


CYRILLIC = "".join(chr(code) for code in range(0x0430, 0x0450))
TEXTS = {
    "letters": long_words(400_000, 1, CYRILLIC),
    "signs": "".join(random.Random(2).choices([chr(c) for c in range(0x4E00, 0x9FA0)], k=150_000)),
    "words": long_words(400_000, 3, string.ascii_lowercase + string.digits),
    "one word": "x" * 300_000,
    "long words": " ".join(f"{n}" + "ю" * 3_000 for n in range(50)),
    "expanding": "\ufdfa" * 100_000,
    "emoji": "👩‍🚀" * 60_000,
    "again": "web " * 200_000,
}


@pytest.mark.parametrize("kind", TEXTS)
def test_a_text_that_no_tsvector_holds_is_recorded_searched_and_erased(
    ledger_url, make, ask, kind: str
) -> None:
    text = f"heliotrope {TEXTS[kind]}"

    async def tell() -> str:
        async with Ledger.open(ledger_url) as ledger:
            log = await ledger.start(make.start(task=text))
            intent = make.intent("big")
            await log.intend(replace(intent, prompt_text=text[::-1]))
            await log.judge(make.judged("big", make.evidence(), text=text, parents=()))
            await log.intend(make.intent("small"))
            await log.judge(make.judged("small", make.evidence(), index=1, parents=()))
            await log.finish(RunStatus.DONE, "done")
            return log.run

    run = asyncio.run(tell())
    engine = connect.open_existing(ledger_url, read_only=False)
    passages.rebuild(engine)
    assert found(ledger_url, "heliotrope") == {"big"}
    assert found(ledger_url, "restarted") == {"small"}
    with engine.connect() as connection:
        (wanted,) = erasing.find(connection, run)
    asyncio.run(erasing.erase(ledger_url, wanted, by="a person", reason="asked for"))
    engine.dispose()
    assert found(ledger_url, "heliotrope") == set()
    assert ask(ledger_url, "SELECT count(*) FROM passage") == [(0,)]
    with AuditLog(ledger_url) as audit:
        assert audit.verify().ok


def found(url: str, text: str) -> set[str]:
    with AuditLog(url) as audit:
        return {row.thought for row in audit.search(text, field="text", limit=None)}


def noise(length: int, alphabet: str = string.ascii_lowercase) -> str:
    """What no compression makes shorter."""
    return "a" + "".join(random.Random(length).choices(alphabet, k=length - 1))


@pytest.mark.parametrize("length", [499, 500, 501, 2_705, 9_000, 300_000])
def test_long_names_are_recorded_found_and_verified(ledger_url, make, length: int) -> None:

    tag, other = noise(length), f"{noise(length)[:-1]}_"
    tags = tuple(
        Tag(name=t, open=f"<|{n}|>", close=f"<|/{n}|>") for n, t in enumerate((tag, other))
    )
    agent, operation = noise(length, "äöü重启"), noise(length, "xyz")
    policy = Policy.model_validate(
        {
            "name": "long",
            "rules": [{"tag": tag, "reading": "opened", "at": 0.3, "action": "escalate"}],
        }
    )
    bound = BoundVocabulary(
        Vocabulary(name="v", tags=tags),
        {t.open: 100 + n for n, t in enumerate(tags)}
        | {t.close: 110 + n for n, t in enumerate(tags)},
    )

    evidence = make.evidence(deceit=(0.01, 0.6))
    evidence = replace(evidence, columns=tuple(t.open for t in tags), belief=evidence.belief[:, :2])
    info = replace(make.info, vocabulary=bound, model=operation)

    async def tell() -> str:
        async with Ledger.open(ledger_url) as ledger:
            start = make.start(agent=agent, policy=policy, engine=info, context=operation)
            log = await ledger.start(start)
            await log.intend_tool("t", operation, {"line": 1})
            await log.tool_result("t", operation, "done", ok=True, latency_s=0.1)
            judgement = judge(policy, evidence, bound)
            thought = make.thought(
                "long",
                operation=operation,
                evidence=evidence,
                judgement=judgement,
                status=Status.ESCALATED,
                reason=operation,
            )
            await log.judge(thought)
            await log.escalate("long", operation)
            await log.decide("long", approve=False, by=operation, reason=operation)
            return log.run

    run = asyncio.run(tell())
    with AuditLog(ledger_url) as audit:
        assert audit.verify().ok
        assert [row.agent for row in audit.runs(agent=agent)] == [agent]
        assert [row.thought for row in audit.pruned(tag=tag, agent=agent)] == ["long"]
        assert audit.pruned(tag=other) == []
        rows = audit.search(run=run, tag=other, reading="peak", min_score=0.0005)
        assert [row.thought for row in rows] == ["long"]
        assert audit.why("long").as_json()
    engine = connect.open_existing(ledger_url, read_only=False)

    verification.rebuild(engine)
    engine.dispose()
    with AuditLog(ledger_url) as audit:
        assert audit.verify().ok


def test_the_writers_own_transactions_say_their_isolation(postgres, database: str, make) -> None:
    """Also behind a pooler, which hands each transaction to whichever session is free."""
    url = postgres.url(database)
    write(make, url)
    postgres.execute(f"ALTER DATABASE {database} SET default_transaction_isolation = serializable")

    async def tell() -> None:
        async with Ledger.open(url) as ledger:
            log = await ledger.start(make.start())
            plain = url.replace("+psycopg", "")
            with psycopg.connect(plain, autocommit=True) as other:
                other.execute(
                    "SET SESSION CHARACTERISTICS AS TRANSACTION ISOLATION LEVEL SERIALIZABLE"
                )
                for number in range(20):
                    other.execute("SELECT count(*) FROM event")
                    await log.note("step", {"number": number})
            await log.finish(RunStatus.DONE, "done")

    asyncio.run(tell())
