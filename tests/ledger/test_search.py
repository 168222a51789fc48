"""Finding thoughts by words and filters: indexed or not yet, erased or not, page by page."""

import asyncio
import itertools
import random
from datetime import UTC, datetime, timedelta

import pytest
import sqlalchemy as sa

from secateur.runtime.ledger import connect, tables
from secateur.runtime.ledger.errors import LedgerError
from secateur.runtime.ledger.events import RunStatus
from secateur.runtime.ledger.ledger import Ledger
from secateur.runtime.ledger.reading.audit import AuditLog
from secateur.runtime.ledger.search import index as passages
from secateur.runtime.ledger.search.words import Passage, Words
from secateur.runtime.ledger.writing.appending import Clock

SAID = (
    "The web server is up.",
    "I checked the mail server, honestly.",
    "Le café est FERMÉ; naïve rôle.",
    'He said "all checks passed" and left.',
    "all the checks have passed",
    "nul \0 byte and 100% of it's ~`{}[]|\\ signs",
    "日本語 のテキスト",
    "",
)

ASKED = {
    "server": {"e0", "e1"},
    "SERVER up": {"e0"},
    "serve": set(),
    "cafe ferme": {"e2"},
    "CAFÉ": {"e2"},
    '"all checks passed"': {"e3"},
    "all checks passed": {"e3", "e4"},
    '"checks passed" "and left"': {"e3"},
    '"all checks': {"e3"},
    "nul byte": {"e5"},
    "it s 100": {"e5"},
    "日本語": {"e6"},
    "report": {f"e{n}" for n in range(8)},
    "AND OR NOT": set(),
    "web* OR server) NEAR/2 ^text:": set(),
    "server' --": {"e0", "e1"},
}
"""Queries, and whose words they are."""


def write(make, url: str, texts=SAID, clock: Clock | None = None, finish: bool = True) -> str:
    """A run whose thoughts say these texts, each asked for by a prompt of its own."""

    async def tell() -> str:
        async with Ledger.open(url, clock=clock) as ledger:
            log = await ledger.start(make.start())
            for number, text in enumerate(texts):
                intent = make.intent(f"e{number}")
                await log.intend(intent)
                await log.judge(
                    make.judged(f"e{number}", make.evidence(), index=number, text=text, parents=())
                )
            if finish:
                await log.finish(RunStatus.DONE, "done")
            return log.run

    return asyncio.run(tell())


def index(url: str) -> None:
    """Index all that there is."""
    engine = connect.open_existing(url, read_only=False)
    passages.rebuild(engine)
    engine.dispose()


def unindex(url: str) -> None:
    """Forget that anything was indexed, as if the writer had never been idle."""
    engine = connect.open_existing(url, read_only=False)
    with engine.begin() as connection:
        passages._clear(connection)
    engine.dispose()


def found(url: str, text: str, **filters) -> set[str]:
    with AuditLog(url) as audit:
        return {row.thought for row in audit.search(text, **filters)}


def test_words_are_found_alike_with_and_without_the_index(ledger_url, make):
    write(make, ledger_url)
    for prepare in (unindex, index):
        prepare(ledger_url)
        for asked, expected in ASKED.items():
            assert found(ledger_url, asked) == expected, (prepare, asked)


def test_words_are_sought_in_what_was_written_or_in_what_was_asked(told):
    assert "b1" in found(told.url, "restart web report")
    assert found(told.url, "report", field="text") == set()
    assert {"b1", "b2", "b3"} <= found(told.url, "report", field="prompt")
    assert "c1" in found(told.url, "restarted", field="text")
    assert "c1" not in found(told.url, "report", field="prompt")


def test_nothing_to_look_for_is_refused_in_one_line(told, one_line):
    with AuditLog(told.url) as audit:
        for asked in ("", "   ", '""', "-- ;", "***", "\0"):
            with pytest.raises(LedgerError, match="no word") as error:
                audit.search(asked)
            one_line(error.value)


def test_no_query_makes_the_index_stumble(ledger_url, make):
    write(make, ledger_url)
    index(ledger_url)
    strange = ('"', "'", "(", ")", "*", ":", "^", "-", "+", "&", "|", "!", "<->", "%", "_", "\\")
    with AuditLog(ledger_url) as audit:
        for left, right in itertools.product(strange, repeat=2):
            audit.search(f"{left}server{right}web{left}")
        assert len(audit.search(" ".join(["server"] * 2000))) == 2


def test_what_is_indexed_and_what_is_not_yet_are_one_list(ledger_url, make):
    first = write(make, ledger_url, ["one server", "two servers"])
    index(ledger_url)
    second = write(make, ledger_url, ["three server", "four server"])
    with AuditLog(ledger_url) as audit:
        rows = audit.search("server")
        assert [(row.run, row.thought) for row in rows] == [
            (second, "e1"),
            (second, "e0"),
            (first, "e0"),
        ]


def test_a_run_that_goes_on_is_indexed_further(ledger_url, make):
    async def tell() -> None:
        engine = connect.open_or_create(ledger_url)
        async with Ledger.open(ledger_url) as ledger:
            log = await ledger.start(make.start())
            for number in range(3):
                text = f"word{number}"
                await log.judge(make.judged(f"e{number}", make.evidence(), index=number, text=text))
                await asyncio.to_thread(index_what_is_new, engine)
                assert found(ledger_url, text) == {f"e{number}"}
            await log.finish(RunStatus.ESCALATED)
            await asyncio.to_thread(index_what_is_new, engine)
            assert settled(engine)
            again = await ledger.reopen(log.run)
            await again.resumed(make.start(run=log.run), "a person decided")
            assert not settled(engine)
            await again.judge(make.judged("e9", make.evidence(), index=9, text="later"))
        assert found(ledger_url, "later") == {"e9"}
        index_what_is_new(engine)
        engine.dispose()

    def index_what_is_new(engine: sa.Engine) -> None:
        left = 1
        while left:
            with engine.begin() as connection:
                left = passages.index_some(connection)

    def settled(engine: sa.Engine) -> bool:
        with engine.connect() as connection:
            return connection.execute(sa.select(tables.passage_mark.c.settled)).scalar_one()

    asyncio.run(tell())
    assert found(ledger_url, "word1") == {"e1"}
    assert found(ledger_url, "later") == {"e9"}


def test_a_clock_at_rest_hides_nothing(ledger_url, make):
    still = Clock(now=lambda: datetime(2026, 5, 1, tzinfo=UTC))
    texts = [f"server{number % 3}" for number in range(40)]
    write(make, ledger_url, texts, clock=still)
    index(ledger_url)
    write(make, ledger_url, texts, clock=still)
    index(ledger_url)
    with AuditLog(ledger_url) as audit:
        assert len(audit.search("server1", limit=None)) == 26
        paged = list(audit.search("server1", limit=5).onward())
        assert [(r.run, r.thought) for r in paged] == [
            (r.run, r.thought) for r in audit.search("server1", limit=None)
        ]


def test_what_is_forgotten_is_found_no_more_and_leaves_no_word(ledger_url, make, ask):
    run = write(make, ledger_url, ["a secret heliotrope", "another word"])
    index(ledger_url)
    engine = connect.open_existing(ledger_url, read_only=False)
    with engine.begin() as connection:
        passages.forget(connection, run, ["e0"])
    assert found(ledger_url, "heliotrope") == set()
    assert found(ledger_url, "another") == {"e1"}
    if "://" in ledger_url:
        left = str(ask(ledger_url, "SELECT words::text FROM passage_words"))
    else:
        left = str(ask(ledger_url, "SELECT block FROM passage_words_data"))
    assert "another" in left
    assert "heliotrope" not in left
    with engine.begin() as connection:
        passages.remember(connection, run, ["e0", "e1"])
        passages.remember(connection, run, ["e0", "e1"])
    engine.dispose()
    assert found(ledger_url, "heliotrope") == {"e0"}


def test_rebuilding_makes_the_index_anew(ledger_url, make, ask):
    write(make, ledger_url)
    index(ledger_url)
    before = ask(ledger_url, "SELECT run_id, thought_id FROM passage ORDER BY 1, 2")
    index(ledger_url)
    assert ask(ledger_url, "SELECT run_id, thought_id FROM passage ORDER BY 1, 2") == before
    assert len(before) == len(SAID)
    assert found(ledger_url, "server") == {"e0", "e1"}


def test_an_excerpt_shows_where_the_words_stand(told):
    with AuditLog(told.url) as audit:
        rows = {row.thought: row.excerpt for row in audit.search("restarted")}
        assert rows["b1"] == "I restarted web."
        rows = {row.thought: row.excerpt for row in audit.search("report", run=told.first)}
        assert rows["b1"] == "restart web > report"


def test_thoughts_are_filtered(told):
    cases = (
        ({"status": "escalated"}, {"b5"}),
        ({"status": "dropped"}, {"b3"}),
        ({"action": "flag"}, {"b2"}),
        ({"action": "escalate"}, {"b5"}),
        ({"operation": "do"}, {"c1"}),
        ({"tag": "deceit"}, {"b1", "b2"}),
        ({"tag": "deceit", "min_score": 0.3}, {"b1"}),
        ({"tag": "deceit", "reading": "peak", "min_score": 0.05}, {"b1", "b2"}),
        ({"tag": "deceit", "reading": "peak", "max_score": 0.05}, {"b3", "b5"}),
        ({"tag": "angry", "reading": "opened"}, {"b1", "b2", "b3", "b5"}),
        ({"tag": "angry"}, set()),
        ({"policy": "test"}, {"a0", "b1", "b2", "b3", "b4", "b5", "c1"}),
        ({"model": "test", "agent": "opsdesk", "status": "pruned"}, {"b1", "b4"}),
        ({"until": "2020-01-01"}, set()),
        ({"since": "1h", "until": "2999-01-01", "status": "kept"}, {"a0", "b2", "c1"}),
        ({"text": "restarted", "status": "escalated"}, {"b5"}),
    )
    with AuditLog(told.url) as audit:
        for asked, expected in cases:
            rows = audit.search(run=told.first, **asked)
            assert {row.thought for row in rows} == expected, asked


def test_filters_by_context_and_by_the_digest_of_a_policy(told, make):
    with AuditLog(told.url) as audit:
        assert {row.run for row in audit.search(context="fiction")} == {told.second}
        assert {row.context for row in audit.search(context="fiction")} == {"fiction"}
        assert len(audit.search(policy=make.policy.digest[:8])) == 10
        assert audit.search(policy="abcdef0") == []
        assert {row.thought for row in audit.pruned(context="fiction")} == {"d1"}
        assert {row.thought for row in audit.pruned(reading="opened")} == {"b1", "d1"}
        assert {row.thought for row in audit.pruned(max_score=0.7, tag="deceit")} == {"b1"}
        assert {row.thought for row in audit.pruned(text="restarted web", run=told.first)} == {
            "b1",
            "b4",
        }


def test_a_filter_that_cannot_be_is_refused_in_one_line(told, one_line):
    cases = (
        ({"status": "gone"}, "'gone' is no status: write one of kept"),
        ({"reading": "peek"}, "'peek' is no reading: write one of peak"),
        ({"action": "cut"}, "'cut' is no action"),
        ({"agent": "opsdeks"}, "no run has a agent 'opsdeks': did you mean 'opsdesk'"),
        ({"model": "tets"}, "did you mean 'test'"),
        ({"context": "fictoin"}, "did you mean 'fiction'"),
        ({"policy": "tset"}, "did you mean 'test'"),
        ({"tag": "deciet"}, "did you mean 'deceit'"),
        ({"since": "yesteryear"}, "is no time"),
        ({"min_score": float("nan")}, "not a number"),
        ({"field": "both"}, "cannot be searched"),
        ({"after": "yesterday"}, "no place to go on from"),
        ({"after": "a,b,c"}, "no place to go on from"),
    )
    with AuditLog(told.url) as audit:
        for asked, said in cases:
            with pytest.raises(LedgerError) as error:
                audit.search(**asked)
            assert said in one_line(error.value)


def test_runs_are_filtered(told):
    with AuditLog(told.url) as audit:
        assert [row.run for row in audit.runs(status="done")] == [told.first]
        assert [row.run for row in audit.runs(status="unfinished")] == [told.second]
        assert [row.run for row in audit.runs(agent="writer")] == [told.second]
        assert [row.run for row in audit.runs(context="fiction")] == [told.second]
        assert len(audit.runs(policy="test", model="test", since="1h")) == 2
        assert audit.runs(until="2020-01-01") == []
        with pytest.raises(LedgerError, match="is no status of a run"):
            audit.runs(status="over")


def test_a_run_that_was_resumed_is_unfinished_until_it_ends_again(ledger_url, make):
    async def tell() -> list[str]:
        seen: list[str] = []
        async with Ledger.open(ledger_url) as ledger:
            log = await ledger.start(make.start())
            await log.finish(RunStatus.ESCALATED, "waits")
            for status in (RunStatus.FAILED, RunStatus.DONE):
                log = await ledger.reopen(log.run)
                await log.resumed(make.start(run=log.run), "go on")
                with AuditLog(ledger_url) as audit:
                    seen.append(audit.run(log.run).status)
                    assert [r.run for r in audit.runs(status="unfinished")] == [log.run]
                    summary = audit.sql("SELECT status, finished_at FROM run_summary")
                    assert summary.rows == (("unfinished", None),)
                await log.finish(status, f"ended as {status}")
                with AuditLog(ledger_url) as audit:
                    row = audit.run(log.run)
                    seen.append(f"{row.status}: {row.result}")
                    assert [r.run for r in audit.runs(status=status)] == [log.run]
                    (summary,) = audit.sql("SELECT status, finished_at FROM run_summary").rows
                    assert summary == (status.value, row.finished_at)
        return seen

    assert asyncio.run(tell()) == [
        "unfinished",
        "failed: ended as failed",
        "unfinished",
        "done: ended as done",
    ]


def test_events_are_filtered_and_paged(told):
    with AuditLog(told.url) as audit:
        kinds = [event.kind for event in audit.events(told.first, thought="b5")]
        assert kinds == ["judged", "escalated", "noted"]
        assert {e.actor for e in audit.events(told.first, kind="judged")} == {"gate"}
        assert [e.kind for e in audit.events(told.first, actor="tool:restart")] == ["tool_returned"]
        page = audit.events(told.first, limit=4)
        assert [e.seq for e in page] == [0, 1, 2, 3]
        assert page.next == "3"
        assert [e.seq for e in page.onward()] == [e.seq for e in audit.events(told.first)]
        assert audit.events(told.first, until="2020-01-01") == []
        with pytest.raises(LedgerError, match="no kind of event"):
            audit.events(told.first, kind="judge")


@pytest.mark.parametrize("text", [None, "server"])
def test_paging_stays_right_while_new_rows_arrive(ledger_url, make, text):
    for number in range(3):
        write(make, ledger_url, [f"server {number} {place}" for place in range(5)])
    index(ledger_url)
    with AuditLog(ledger_url) as audit:
        before = [(row.run, row.thought) for row in audit.search(text, limit=None)]
        seen = []
        page = audit.search(text, limit=2)
        while True:
            seen += [(row.run, row.thought) for row in page]
            if page.next is None:
                break
            write(make, ledger_url, ["server that came later"])
            if len(seen) % 4 == 0:
                index(ledger_url)
            page = audit.search(text, limit=2, after=page.next)
        assert seen == before
        assert len(before) == 15


def test_lists_of_runs_and_cuts_are_paged(told):
    with AuditLog(told.url) as audit:
        for ask in (audit.runs, audit.pruned):
            whole = list(ask(limit=None))
            page = ask(limit=1)
            assert len(page) == 1
            assert list(page.onward()) == whole
            assert list(ask(limit=1, after=page.next)) == whole[1:2]
            assert ask(limit=len(whole)).next is None


def test_a_time_may_be_a_span_a_date_or_a_moment(told):
    now = datetime.now(UTC)
    with AuditLog(told.url) as audit:
        for since in ("30m", "12h", "7d", "2w", "2020-01-01", now - timedelta(hours=1)):
            assert len(audit.pruned(since=since)) == 3, since
        for since in ("2999-01-01T00:00:00+02:00", now + timedelta(hours=1)):
            assert len(audit.pruned(since=since)) == 0, since
        with pytest.raises(LedgerError, match="is no time"):
            audit.pruned(since="999999999999w")


def test_an_answer_becomes_a_data_frame(told):
    pytest.importorskip("pandas")
    with AuditLog(told.url) as audit:
        frame = audit.pruned().to_pandas()
        assert list(frame["thought"]) == ["d1", "b4", "b1"]
        assert frame["score"].max() > 0.9
        arrow = audit.search(run=told.first).to_arrow()
        assert arrow.num_rows == 7
        assert {"run", "thought", "status", "text", "at"} <= set(arrow.column_names)
        assert audit.sql("SELECT count(*) AS n FROM thought").to_pandas()["n"][0] == 10


def test_a_missing_extra_is_named(told, monkeypatch, one_line):
    import sys

    monkeypatch.setitem(sys.modules, "pandas", None)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with AuditLog(told.url) as audit:
        for make in (audit.pruned().to_pandas, audit.pruned().to_arrow):
            with pytest.raises(LedgerError, match=r"secateur\[frames\]") as error:
                make()
            one_line(error.value)


def test_what_is_searched_is_spelt_as_it_is_indexed():
    words = Words.of('Ünïted "NATIONS  of" x')
    assert words.phrases == (("united",), ("nations", "of"), ("x",))
    assert words.fts5 == '"united" AND "nations of" AND "x"'


def test_every_spelling_is_found_by_the_index_as_without_it(ledger_url, make):
    rng = random.Random(1)
    signs = "aZ09_-.é\u0301ßİıſΣς日ﬁ²½١\U0001e900\U0001f600 \u200d\x7f\0'\"\\%"
    texts = ["".join(rng.choices(signs, k=12)) for _ in range(40)]
    texts += ["12e3abc 0x1f 1a2b 3.14e-5 a@b.c http://x.y/z /etc/passwd it's", "w" * 3000]
    run = write(make, ledger_url, texts)
    index(ledger_url)
    by = {f"e{number}": text for number, text in enumerate(texts)}
    asked = [text for text in texts if any(sign.isalnum() for sign in text)]
    with AuditLog(ledger_url) as audit:
        for text in asked:
            quoted = text.replace('"', " ")
            for query in (quoted, f'"{quoted}"'):
                words = Words.of(query, "text")
                expected = {
                    id for id, text in by.items() if words.match(Passage(run, id, "", text, ""))
                }
                rows = audit.search(query, field="text", limit=None)
                assert {row.thought for row in rows} == expected, query
                assert expected
