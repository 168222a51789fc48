"""Whatever a stream can spell and however a file is encoded, the work is done and told once."""

import codecs
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta, timezone
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from secateur import AuditLog, Policy
from secateur.agents.plans.numbers import read_number, read_vote
from secateur.gates.encoding import decoded
from secateur.pretraining.corpus.reader import read_records
from secateur.pretraining.taggers.patterns import read_words
from secateur.runtime.ledger.errors import LedgerError
from secateur.runtime.ledger.integrity.signing import SigningKey, public_key
from secateur.runtime.ledger.reading.filters import iso, moment
from secateur.runtime.settings import Settings

AGENT = """
from secateur import Agent, Sampling, generate, keep_best, score


def length(scene):
    from lazily import measure
    return measure(scene.text)


agent = Agent(
    "mine",
    plan=generate("sort {task}\\n", n=2) >> score(length) >> keep_best(1),
    policy="observe",
    sampling=Sampling(temperature=1.0, max_tokens=4),
)
"""
MARKS = {
    "utf-8-sig": codecs.BOM_UTF8,
    "utf-16-le": codecs.BOM_UTF16_LE,
    "utf-16-be": codecs.BOM_UTF16_BE,
    "utf-32-le": codecs.BOM_UTF32_LE,
    "utf-8": b"",
}


def marked(text: str, encoding: str) -> bytes:
    return MARKS[encoding] + text.encode(encoding.removesuffix("-sig"))


@pytest.fixture(autouse=True)
def place(tmp_path: Path, tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with an agent that imports a file beside it late."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SECATEUR_MODEL", str(tiny_checkpoint))
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, "lazily", raising=False)
    (tmp_path / "my_agent.py").write_text(AGENT)
    (tmp_path / "lazily.py").write_text("measure = len\n")
    return tmp_path


def command(*words: str, **surroundings: str) -> tuple[list[str], dict[str, str]]:
    start = [sys.executable, "-m", "secateur", *words]
    return start, {**os.environ, **surroundings}


def called(*words: str, **surroundings: str) -> subprocess.CompletedProcess[bytes]:
    start, env = command(*words, **surroundings)
    return subprocess.run(start, env=env, capture_output=True, timeout=200)


# Streams


@pytest.mark.parametrize(
    "surroundings",
    [
        {"PYTHONIOENCODING": "ascii"},
        {"PYTHONIOENCODING": "ascii:strict"},
        {"PYTHONIOENCODING": "cp1252"},
        {"LANG": "C", "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    ],
    ids=str,
)
def test_a_run_ends_well_where_the_stream_lacks_its_signs(surroundings: dict[str, str]):
    Path("tasks.jsonl").write_text('{"task": "größer ✓ 🌱"}\n', "utf-8")
    tasks = ("--tasks", "tasks.jsonl", "--db", "x.db")
    done = called("run", "my_agent.py:agent", *tasks, **surroundings)
    assert done.returncode == 0, done.stderr
    done = called("run", "my_agent.py:agent", "312", "--db", "y.db", **surroundings)
    assert (done.returncode, b"Traceback" in done.stderr) == (0, False), done.stderr
    assert rb"\u2713" in done.stdout
    done = called("audit", "runs", "--db", "x.db", "--json", **surroundings)
    encoding = surroundings.get("PYTHONIOENCODING", "ascii").partition(":")[0]
    (row,) = json.loads(done.stdout.decode(encoding))
    assert row["task"] == "größer ✓ 🌱"
    for words in (["audit", "runs", "--db", "x.db"], ["models"], ["--help"], ["run", "--help"]):
        done = called(*words, **surroundings)
        assert (done.returncode, done.stderr) == (0, b"")
    done = called("policy", "check", "größer.yaml", **surroundings)
    assert (done.returncode, done.stderr.count(b"\n")) == (1, 1)


@pytest.fixture(scope="module")
def ledger(tmp_path_factory: pytest.TempPathFactory, tiny_checkpoint: Path) -> str:
    """A ledger with a run in it."""
    folder = tmp_path_factory.mktemp("ledger")
    (folder / "my_agent.py").write_text(AGENT)
    (folder / "lazily.py").write_text("measure = len\n")
    db = str(folder / "x.db")
    words = ("run", str(folder / "my_agent.py:agent"), "3 1 2", "--db", db)
    assert called(*words, SECATEUR_MODEL=str(tiny_checkpoint)).returncode == 0
    return db


@pytest.mark.parametrize(
    "words",
    [
        ["audit", "export", "--all"],
        ["audit", "export", "--all", "--complete"],
        ["audit", "runs"],
        ["audit", "runs", "--json"],
        ["audit", "search"],
        ["audit", "sql", "SELECT * FROM event", "--csv"],
        ["audit", "verifier"],
        ["models"],
        ["policy", "show", "strict"],
        ["--help"],
    ],
    ids=" ".join,
)
def test_whoever_reads_no_further_is_not_told_of_it(ledger: str, words: list[str]):
    start, env = command(*words, SECATEUR_DB=ledger)
    process = subprocess.Popen(start, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.close()
    _, err = process.communicate(timeout=200)
    assert (process.returncode, err) in ((0, b""), (141, b""))


@pytest.mark.parametrize(
    "words",
    [["audit", "export", "--all"], ["audit", "runs"], ["models"], ["policy", "check", "strict"]],
    ids=" ".join,
)
def test_a_full_disk_is_told_in_one_line(ledger: str, words: list[str]):
    start, env = command(*words, SECATEUR_DB=ledger)
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(start, env=env, stdout=full, stderr=subprocess.PIPE, timeout=200)
        assert (done.returncode, done.stderr.count(b"\n")) == (1, 1)
        assert done.stderr.startswith(b"error: standard output cannot be written: No space left")
        done = subprocess.run(
            [*start, "--nonsense"], env=env, stdout=full, stderr=full, timeout=200
        )
        assert done.returncode == 1


def test_a_closed_stream_harms_nothing():
    start, env = command("policy", "check", "strict")
    quoted = " ".join(f"'{word}'" for word in start)
    done = subprocess.run(f"{quoted} >&-", shell=True, env=env, stderr=subprocess.PIPE, timeout=200)
    assert (done.returncode, done.stderr) == (0, b"")


# Ctrl-C


@pytest.mark.parametrize("after", [0.1, 0.2, 0.4, 0.6, 0.9, 1.3, 1.8, 2.5, 4.0])
def test_ctrl_c_is_one_line_whenever_it_comes(after: float):
    start, env = command("run", "my_agent.py:agent", "3 1 2", "--db", "x.db")
    process = subprocess.Popen(
        start, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True
    )
    time.sleep(after)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=200)
    if process.returncode == 0:  # it was done already
        return
    started = b"secateur" in err or b"interrupted" in err
    if process.returncode == -signal.SIGINT or not started:
        pytest.skip("Python itself was still starting")
    assert (process.returncode, err.count(b"\n")) == (130, 1), err
    assert err.startswith(b"error: interrupted")


def test_ctrl_c_while_an_agent_is_imported_is_one_line(place: Path):
    (place / "slow.py").write_text("import os, time\nos.mkfifo('here')\ntime.sleep(60)\n")
    start, env = command("run", "slow.py:agent", "x")
    process = subprocess.Popen(start, env=env, stderr=subprocess.PIPE, stdout=subprocess.PIPE)
    while not (place / "here").exists():
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=100)
    assert (process.returncode, err) == (130, b"error: interrupted\n")


# Files


@given(st.text(), st.sampled_from(sorted(MARKS)))
def test_a_marked_text_is_read_as_it_was_written(text: str, encoding: str):
    # Two marks can be read in two ways: before a mark in the text, and UTF-16's before a NUL.
    assert decoded(marked(text, encoding)) == text or text.startswith(("\ufeff", "\0"))


@pytest.mark.parametrize("encoding", sorted(MARKS))
def test_files_are_read_with_their_mark(encoding: str, place: Path, secateur):
    odd = "a\u2028b\u0085c\x1dd\u2029é"
    lines = [json.dumps({"task": f"{odd} {n}", "seed": n}, ensure_ascii=False) for n in range(2)]
    (place / "tasks.jsonl").write_bytes(marked("\r\n".join(lines) + "\n\n", encoding))
    (place / "my_agent.py").write_bytes(marked(AGENT + "# é\n", encoding))
    policy = "name: é\nrules:\n- {tag: angry, reading: opened, at: 0.9, action: prune}\n"
    (place / "p.yaml").write_bytes(marked(policy, encoding))
    (place / "secateur.toml").write_bytes(marked('db = "é.db"\n', encoding))
    code, out, err = secateur(
        *("run", "my_agent.py:agent", "--tasks", "tasks.jsonl", "--policy", "p.yaml", "--json")
    )
    assert code == 0, err
    found = [json.loads(line) for line in out.split("\n") if line]
    assert {each["task"] for each in found} == {f"{odd} 0", f"{odd} 1"}
    assert {each["policy"] for each in found} == {"é"}
    assert Settings().db == "é.db"
    code, out, _ = secateur("audit", "sql", "\ufeffSELECT count(*) AS n FROM run", "--json")
    assert json.loads(out) == [{"n": 2}]
    code, out, _ = secateur("run", "--resume", found[0]["run"], "--json")
    assert code == 0


@pytest.mark.parametrize("encoding", sorted(MARKS))
def test_corpora_word_lists_and_keys_are_read_with_their_mark(encoding: str, tmp_path: Path):
    odd = "a\u2028b\u0085c é"
    records = [json.dumps({"text": f"{odd}{n}"}, ensure_ascii=False) for n in range(3)]
    (tmp_path / "c.jsonl").write_bytes(marked("\r\n".join(records), encoding))
    read = list(read_records([str(tmp_path / "c.jsonl")]))
    assert [found.plain for found in read] == [f"{odd}{n}\n" for n in range(3)]
    (tmp_path / "words.txt").write_bytes(marked(f"{odd}\t2\r\nb\n", encoding))
    assert read_words(tmp_path / "words.txt") == {odd: 2.0, "b": 1.0}
    key = SigningKey.generate(tmp_path / "key")
    for name in ("key", "key.pub"):
        text = (tmp_path / name).read_text()
        (tmp_path / name).write_bytes(marked(text, encoding))
    assert SigningKey.open(tmp_path / "key").public == key.public
    assert public_key(str(tmp_path / "key.pub")) == key.public


def test_an_export_is_one_record_a_line_for_every_reader(place: Path, secateur):
    (place / "tasks.jsonl").write_text(json.dumps({"task": "a\u2028b\u0085c\x1bd\u202ee"}) + "\n")
    secateur("run", "my_agent.py:agent", "--tasks", "tasks.jsonl", "--db", "x.db")
    for words in ([], ["--complete"]):
        code, *_ = secateur("audit", "export", "--all", "--db", "x.db", "--out", "x.jsonl", *words)
        text = Path("x.jsonl").read_text("utf-8")
        assert code == 0
        assert text.splitlines() == text.split("\n")[:-1]
        assert not re.search("[\x1b\u2028\u0085\u202e]", text)
        records = [json.loads(line) for line in text.splitlines()]
        if not words:
            assert "a\u2028b\u0085c\x1bd\u202ee" in [record.get("task") for record in records]


@pytest.mark.parametrize("words", [["--json"], []])
def test_an_import_in_a_function_finds_the_file_beside_the_agent(
    place: Path, secateur, words: Sequence[str], monkeypatch: pytest.MonkeyPatch
):
    (place / "elsewhere").mkdir()
    monkeypatch.chdir(place / "elsewhere")
    code, _, err = secateur("run", "../my_agent.py:agent", "312", *words)
    assert code == 0, err


# Days


@given(st.dates(date(1, 1, 2), date(9999, 12, 30)), st.integers(-23, 23))
def test_a_day_is_in_it_to_its_end(day: date, hours: int):
    zone = timezone(timedelta(hours=hours))
    first = datetime.combine(day, datetime.min.time(), zone)
    said = f"{day.isoformat()}{'-' if hours < 0 else '+'}{abs(hours):02}:00"
    assert moment(said) == first
    assert moment(said, end=True) == first + timedelta(days=1, microseconds=-1)
    assert moment(day) == moment(day.isoformat()) == datetime.combine(day, datetime.min.time(), UTC)
    assert moment(day, end=True) == moment(day) + timedelta(days=1, microseconds=-1)


@pytest.mark.parametrize(
    ("said", "first", "last"),
    [
        ("2026-05-01", "2026-05-01T00:00:00.000000Z", "2026-05-01T23:59:59.999999Z"),
        ("20260501", "2026-05-01T00:00:00.000000Z", "2026-05-01T23:59:59.999999Z"),
        ("2026-05-01Z", "2026-05-01T00:00:00.000000Z", "2026-05-01T23:59:59.999999Z"),
        ("2026-W18", "2026-04-27T00:00:00.000000Z", "2026-05-03T23:59:59.999999Z"),
        ("2026W18+02:00", "2026-04-26T22:00:00.000000Z", "2026-05-03T21:59:59.999999Z"),
        ("2026-W18-5", "2026-05-01T00:00:00.000000Z", "2026-05-01T23:59:59.999999Z"),
        # 25 hours
        ("2026-10-25 Europe/Berlin", "2026-10-24T22:00:00.000000Z", "2026-10-25T22:59:59.999999Z"),
        ("2026-05-01T12:00", "2026-05-01T12:00:00.000000Z", "2026-05-01T12:00:00.000000Z"),
        ("20260501T120000", "2026-05-01T12:00:00.000000Z", "2026-05-01T12:00:00.000000Z"),
        ("2026-05-01 12:00 Europe/Berlin", *["2026-05-01T10:00:00.000000Z"] * 2),
    ],
)
def test_days_weeks_and_zones_are_what_they_say(said: str, first: str, last: str):
    assert (iso(moment(said)), iso(moment(said, end=True))) == (first, last)


def test_a_local_day_is_this_machines(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    try:
        assert iso(moment("2026-05-01 local")) == "2026-04-30T15:00:00.000000Z"
        assert iso(moment("2026-05-01 local", end=True)) == "2026-05-01T14:59:59.999999Z"
    finally:
        monkeypatch.undo()
        time.tzset()


@pytest.mark.parametrize("said", ["2026-13-01", "2026-W54", "2026-05-01 Nowhere/X", "../x", "12"])
def test_what_is_no_time_is_refused(said: str):
    with pytest.raises(LedgerError, match="is no time"):
        moment(said, end=True)


def test_until_today_holds_what_ran_today(secateur):
    secateur("run", "my_agent.py:agent", "312", "--db", "x.db")
    with AuditLog("x.db") as audit:
        today = datetime.fromisoformat(audit.runs()[0].started_at).date()
        assert len(audit.runs(since=today, until=today)) == 1
        assert len(audit.search(since=today, until=today)) == 3
        assert len(audit.runs(until=today - timedelta(days=1))) == 0
        (run,) = audit.run_ids()
        assert len(audit.events(run, until=today)) == len(audit.events(run))
    for words in (["runs"], ["search"], ["events", run]):
        _, out, _ = secateur(
            *("audit", *words, "--since", today, "--until", today, "--db", "x.db", "--json")
        )
        assert json.loads(out)


# Grades


@pytest.mark.parametrize(
    ("said", "grade"),
    [
        ("7/10", 7), ("10/10", 10), ("7 / 10.", 7), ("7 out of 10", 7), ("7 (out of 10)", 7),
        ("**7**/10", 7), ("**7/10**", 7), ("8,5", 8.5), ("8.5", 8.5), ("8,5/10", 8.5),
        ("-3", -3), ("Score: -3", -3), ("1e3", 1000), ("1E-2", 0.01), ("Score: 7.", 7),
        ("I found 2 errors, so: 7", 7), ("9 of 10, so: 9", 9), ("Draft 2: 7", 7),
        ("7/10, no: 8/10", 8), ("0", 0), ("0,25", 0.25), ("7, 8, 9", 9), ("70%", 70), ("１０", 10),
    ],
)  # fmt: skip
def test_a_grade_is_what_its_writer_meant(said: str, grade: float):
    assert read_number(said) == grade


@pytest.mark.parametrize(
    "said",
    [
        "", "none", "7-8", "7 – 8", "between 7 and 8", "7 or 8", "7 to 8", "1,000", "1,000.5",
        "1.2.3", "7/10, with 2 errors", "12/10", "2024-05-01", "7/10/2024", "12:30", "8½", "8 1/2",
        "1 000", "1e999", "7,8,9", "7 ± 1",
    ],
)  # fmt: skip
def test_a_grade_that_can_be_read_in_two_ways_is_none(said: str):
    with pytest.raises(ValueError, match=r"\w"):
        read_number(said)


@given(st.floats(-1e6, 1e6), st.sampled_from(["{}", "Score: {}.", "I say {}\n", "({})", "**{}**"]))
def test_a_number_alone_is_itself(number: float, around: str):
    assert read_number(around.format(number)) == number


def test_votes_are_whole_numbers():
    assert [read_vote(said) for said in ("2", "Candidate 2.", "2/3", "2 of 3")] == [2] * 4
    for said in ("1.5", "2 or 3", "2-3"):
        with pytest.raises(ValueError, match=r"\w"):
            read_vote(said)


def test_the_shipped_policies_are_read_as_before():
    assert {Policy.load(name).name for name in ("observe", "prune", "strict")} == {
        "observe",
        "prune",
        "strict",
    }
