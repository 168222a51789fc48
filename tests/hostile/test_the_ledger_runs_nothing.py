"""What a ledger, or a file in the working directory, names is not run, and gets no key."""

import asyncio
import json
import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from secateur import Agent, Ledger, Policy, generate
from secateur.agents.code import code_of
from secateur.runtime.settings import Settings, SettingsError

AGENT = """
from secateur import Agent, Call, Sampling, Workspace, act, generate, tool
import helper


@tool
def stamp(folder: Workspace) -> str:
    import lazy
    return lazy.WORD + helper.WORD


def calls(text):
    return Call("stamp", {})


agent = Agent(
    "mine",
    plan=generate("say {task}\\n", calls=calls) >> act([stamp], calls=calls),
    policy="observe",
    sampling=Sampling(temperature=1.0, max_tokens=6),
)
"""
POLICY = """
name: asking
rules:
  - {tag: angry, reading: opened, at: 1.0e-9, action: escalate, scope: action}
"""
EVIL = "from pathlib import Path\nPath({!r}).touch()\n"


@pytest.fixture(autouse=True)
def place(tmp_path: Path, tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with an agent of three files in it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SECATEUR_MODEL", str(tiny_checkpoint))
    monkeypatch.setattr(sys, "path", list(sys.path))
    for name in ("helper", "lazy"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    (tmp_path / "my_agent.py").write_text(AGENT)
    (tmp_path / "helper.py").write_text("WORD = 'helped'\n")
    (tmp_path / "lazy.py").write_text("WORD = 'lazily '\n")
    (tmp_path / "asking.yaml").write_text(POLICY)
    return tmp_path


@pytest.fixture
def decided(secateur) -> str:
    """A run that waited for a person, who has approved."""
    words = ("--policy", "asking.yaml", "--seed", "5", "--json")
    code, out, err = secateur("run", "my_agent.py:agent", "x", *words)
    assert code == 1, err
    found = json.loads(out)
    said = ("--approve", "--by", "ada", "--reason", "x")
    assert secateur("audit", "decide", found["waiting"][0], *said)[0] == 0
    return found["run"]


def test_the_same_files_are_imported_again_and_named(secateur, place: Path, decided: str):
    code, out, err = secateur("run", "--resume", decided, "--json")
    assert (code, json.loads(out)["result"]) == (0, "lazily helped"), err
    assert str(place / "my_agent.py") in err


@pytest.mark.parametrize("name", ["my_agent.py", "helper.py", "lazy.py"])
def test_a_changed_file_is_not_imported_before_it_is_named(
    secateur, place: Path, decided: str, name: str
):
    mark = place / "ran"
    file = place / name
    file.write_text(file.read_text() + EVIL.format(str(mark)))
    code, _, err = secateur("run", "--resume", decided)
    assert code == 1
    assert len(err.strip().splitlines()) == 1
    assert f"{name} changed since" in err
    assert f"secateur run {place / 'my_agent.py'}:agent --resume {decided}" in err
    assert not mark.exists()
    code, out, _ = secateur("run", "my_agent.py:agent", "--resume", decided, "--json")
    assert (code, json.loads(out)["result"]) == (0, "lazily helped")


def test_a_new_file_that_would_stand_in_for_an_import_is_not_imported(
    secateur, place: Path, decided: str
):
    mark = place / "ran"
    (place / "helper").mkdir()  # a package is found before a module
    (place / "helper" / "__init__.py").write_text(EVIL.format(str(mark)) + "WORD = ''\n")
    code, _, err = secateur("run", "--resume", decided)
    assert (code, "helper/__init__.py changed since" in err) == (1, True)
    assert not mark.exists()


def started_by_hand(db: Path, origin: dict[str, object], scripted) -> str:
    """A run in the ledger that was killed at once, as whoever may append writes it."""

    rule = {"tag": "deceit", "reading": "opened", "at": 0.9, "action": "flag"}
    bare = Policy.model_validate({"name": "bare", "rules": [rule]})

    async def write() -> str:
        async with Ledger.open(db) as ledger:
            found = await Agent("mine", generate("{task}")).run(
                "x", policy=bare, engine=scripted(lambda _: "y"), ledger=ledger, origin=origin
            )
            return found.run_id

    run = asyncio.run(write())
    with closing(sqlite3.connect(db, isolation_level=None)) as connection:
        for (name,) in connection.execute(
            "SELECT name FROM sqlite_master WHERE type = 'trigger'"
        ).fetchall():
            connection.execute(f"DROP TRIGGER {name}")
        for table in ("tag_score", "thought", "event"):
            column = "thought_id" if table == "tag_score" else "seq"
            where = "1" if table == "tag_score" else f"{column} > 0"
            connection.execute(f"DELETE FROM {table} WHERE run_id = ? AND {where}", (run,))
    return run


@pytest.mark.parametrize("code", [None, {}, "x", {"evil.py": "0" * 64}, {"other.py": "1"}])
def test_a_file_that_a_ledger_names_is_not_run(secateur, place: Path, scripted, code: object):
    mark, evil = place / "ran", place / "evil.py"
    evil.write_text(EVIL.format(str(mark)))
    origin = {"agent": f"{evil}:agent", "engine": "local", "model": "x"}
    run = started_by_hand(
        place / "secateur.db", origin | ({} if code is None else {"code": code}), scripted
    )
    status, _, err = secateur("run", "--resume", run)
    assert (status, len(err.strip().splitlines())) == (1, 1)
    assert str(evil) in err
    assert f"--resume {run}" in err
    assert not mark.exists()


def test_what_is_to_be_typed_again_is_quoted_for_the_shell(secateur, place: Path, scripted):
    evil = place / "x; touch ran #.py"
    evil.write_text("")
    origin = {"agent": f"{evil}:agent", "engine": "local", "model": "x"}
    run = started_by_hand(place / "secateur.db", origin, scripted)
    _, _, err = secateur("run", "--resume", run)
    assert f"secateur run '{evil}:agent' --resume" in err


def test_nothing_is_imported_for_a_run_whose_record_was_changed(
    secateur, place: Path, decided: str
):
    mark, evil = place / "ran", place / "evil.py"
    evil.write_text(EVIL.format(str(mark)))
    with closing(sqlite3.connect(place / "secateur.db", isolation_level=None)) as connection:
        for (name,) in connection.execute(
            "SELECT name FROM sqlite_master WHERE type = 'trigger'"
        ).fetchall():
            connection.execute(f"DROP TRIGGER {name}")
        (text,) = connection.execute(
            "SELECT body FROM event WHERE run_id = ? AND seq = 0", (decided,)
        ).fetchone()
        body = json.loads(text)
        body["options"]["origin"] |= {"agent": f"{evil}:agent", "code": code_of(evil)}
        connection.execute(
            "UPDATE event SET body = ? WHERE run_id = ? AND seq = 0",
            (json.dumps(body, sort_keys=True, separators=(",", ":")), decided),
        )
    code, _, err = secateur("run", "--resume", decided)
    assert (code, len(err.strip().splitlines())) == (1, 1), err
    assert not mark.exists()


def test_a_builtin_agent_needs_no_name(secateur, place: Path):
    _, out, _ = secateur("run", "sort", "312", "--max-tokens", "1", "--json")
    run = json.loads(out)["run"]
    _, _, err = secateur("run", "--resume", run, "--max-tokens", "40")
    assert "name" not in err
    assert "importing" not in err


def test_imports_count_wherever_they_are_written(tmp_path: Path):
    package = tmp_path / "parts"
    package.mkdir()
    files = {
        "main.py": "import one\nfrom parts import two\nimport importlib, json, yaml\n"
        "def f():\n    from parts.three import x\n    importlib.import_module('four')\n",
        "one.py": "if False:\n    __import__('five')\n",
        "parts/__init__.py": "from . import six\n",
        "parts/two.py": "from .seven import y\n",
        "parts/three.py": "import main\n",
        "parts/six.py": "",
        "parts/seven.py": "y = (",
        "four.py": "",
        "five.py": "",
        "unused.py": "",
        "parts/unused.py": "",
    }
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    assert set(code_of(tmp_path / "main.py")) == {n for n in files if "unused" not in n}


def test_a_working_directory_names_no_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "secateur.toml").write_text('vllm_python = "/tmp/evil"\n')
    with pytest.raises(SettingsError, match="SECATEUR_VLLM_PYTHON"):
        Settings()
    (tmp_path / "secateur.toml").write_text("")
    monkeypatch.setenv("SECATEUR_VLLM_PYTHON", "/usr/bin/python3")
    assert Settings().vllm_python == "/usr/bin/python3"


def test_a_key_goes_only_to_a_server_that_the_user_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    server, other = "http://127.0.0.1:1", "http://127.0.0.1:2"
    file = tmp_path / "secateur.toml"
    file.write_text(f'engine = "{server}"\n')
    assert Settings().server() == server
    monkeypatch.setenv("VLLM_API_KEY", "secret")
    with pytest.raises(SettingsError, match=r"secateur\.toml names the server"):
        Settings().server()
    assert Settings().server(server) == server
    with pytest.raises(SettingsError, match="the ledger names the server"):
        Settings().server(None, other)
    assert Settings().server(None, "local") == "local"
    monkeypatch.setenv("SECATEUR_ENGINE", server)
    assert Settings().server() == server
    assert Settings().server(None, server) == server
    with pytest.raises(SettingsError):
        Settings().server(None, other)


def test_a_password_goes_only_to_a_database_that_the_user_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "secateur.toml").write_text('db = "postgresql://127.0.0.1:1/x"\n')
    assert Settings().db.startswith("postgresql")
    monkeypatch.setenv("PGPASSWORD", "secret")
    with pytest.raises(SettingsError, match="SECATEUR_DB"):
        Settings()
    monkeypatch.setenv("SECATEUR_DB", "postgresql://127.0.0.1:2/x")
    assert Settings().db.endswith(":2/x")


def test_a_file_of_the_working_directory_stands_in_for_no_library(place: Path):
    mark = place / "ran"
    for name in ("yaml", "typer", "rich", "structlog", "sitecustomize"):
        (place / f"{name}.py").write_text(EVIL.format(str(mark)))
    (place / ".env").write_text("SECATEUR_DB=evil.db\nSECATEUR_VLLM_PYTHON=/tmp/evil\n")
    surroundings = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
    for start in (["-m", "secateur"], [str(Path(sys.executable).parent / "secateur")]):
        done = subprocess.run(
            [sys.executable, *start, "policy", "show", "strict"],
            cwd=place,
            env=surroundings,
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert (done.returncode, done.stderr) == (0, "")
        assert not mark.exists()
    assert Settings().db == "secateur.db"
