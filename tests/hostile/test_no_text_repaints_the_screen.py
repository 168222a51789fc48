"""No text from a task, a model, a tool, a server or a file acts on the reviewer's screen."""

import ast
import csv
import http.server
import io
import json
import os
import pty
import re
import subprocess
import sys
import threading
import unicodedata
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import typer.main
import yaml
from hypothesis import given
from hypothesis import strategies as st

from secateur import Agent, Call, Ledger, Policy, Workspace, act, generate, split, tool
from secateur.cli.commands import app
from secateur.gates.visible import visible

ROOT = Path(__file__).parent.parent.parent
SIGNS = "\x1b]0;x\x07\x1b[2J\x1b[8m\r\x08[/x] [bold] :bomb:"
"""What acts on a terminal or is markup, in ASCII."""
HOSTILE = SIGNS + "\x7f\x9b31m\x85\u061c\u200b\u200f\u2028\u202e\u2066\ufeff\ue000\U000e0041"
OURS = re.compile(rb"\x1b\[(?:[0-9;]*m|\d?[AKG]|\?25[lh])|\r")
"""The colours, and the moves of a live picture."""
COLOURS = {b"", b"0", b"1", b"2", b"31", b"32", b"33", b"34", b"35", b"36", b"90", b"91", b"92"}
FORBIDDEN = ("Cc", "Cf", "Cs", "Co", "Zl", "Zp")

DRIVER = """
import json, os, sys
from secateur.cli import main

for number, words in enumerate(json.load(open(sys.argv[1], encoding="utf-8"))):
    os.write(1, f"\\n=== {number}\\n".encode())
    sys.argv = ["secateur", *words]
    try:
        main()
    except SystemExit as left:
        code = left.code or 0
    os.write(1, f"\\n=== exit {code}\\n".encode())
"""
AGENT = f"""
from secateur import Agent, Sampling, generate

print({HOSTILE!r})
agent = Agent(
    {"mine" + SIGNS!r},
    plan=generate("say {{task}}\\n", n=2, name={"op" + SIGNS!r}),
    policy="observe",
    sampling=Sampling(temperature=1.0, max_tokens=4),
)
"""
FAULTY = f"raise ValueError({HOSTILE!r})\n"


def acting_in(text: str) -> set[str]:
    """The characters of a text that act on a screen or hide there."""
    return {c for c in text if unicodedata.category(c) in FORBIDDEN and c not in "\n\t"}


@given(st.text(st.characters(exclude_categories=())) | st.text(st.sampled_from(HOSTILE)))
def test_what_is_visible_holds_nothing_that_acts_and_json_stays_the_same(text: str):
    assert not acting_in(visible(text))
    assert json.loads(visible(json.dumps(text, ensure_ascii=False))) == text


def test_every_character_that_acts_or_hides_is_spelt():
    hides = "\u034f\u115f\u1160\u17b4\u180b\u3164\ufe00\uffa0\U000e0100\ufffe\U0001ffff"
    acts = {chr(c) for c in range(0x110000) if unicodedata.category(chr(c)) in FORBIDDEN}
    kept = {c for c in acts | set(hides) if visible(c) == c}
    assert kept == {"\n", "\t"}
    for plain in ("é", "✓", "请重启", "שלום", "👍", "e\u0301", "a b\tc\n", "\\u001b"):
        assert visible(plain) == plain


def test_only_one_module_makes_consoles_and_styled_text():
    for path in ROOT.glob("*/**/*.py"):
        room = path.relative_to(ROOT).parts[0]
        if room not in ("runtime", "pretraining", "agents", "gates", "models"):
            continue
        if path == ROOT / "runtime" / "screen.py":
            continue
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            called = ast.unparse(node.func) if isinstance(node, ast.Call) else ""
            assert called not in ("RichConsole", "typer.echo", "sys.stdout.buffer.write"), path
            if isinstance(node, ast.ImportFrom) and node.module == "rich.console":
                text = path.read_text("utf-8")
                assert not re.search(r"(?<!\w)(Rich)?Console\((?!\))", text) or (
                    "screen import Console" in text
                ), path
            assert not (isinstance(node, ast.ImportFrom) and node.module == "rich.text"), path
            assert not (isinstance(node, ast.ImportFrom) and node.module == "rich.markup"), path


@tool
def stamp(folder: Workspace, note: str) -> str:
    """Says what it was told."""
    return f"stamped {note} {HOSTILE}"


@tool
def fail(folder: Workspace, note: str) -> str:
    """Fails in the words it was given."""
    raise RuntimeError(SIGNS)


def stamps(text: str) -> Call:
    return Call("stamp" if "stamp" in text else "fail", {"note": text})


def parts(scene: Any) -> list[tuple[str, str]]:
    return [("stamp", f"stamp {HOSTILE}"), ("fail", f"fail {HOSTILE}"), ("cut", "cut")]


def policy(action: str) -> Policy:
    rule = {"tag": "deceit", "reading": "opened", "at": 1e-9, "action": action}
    described = {"name": f"policy {SIGNS}", "description": HOSTILE}
    return Policy.model_validate(described | {"rules": [rule | {"scope": "action"}]})


class _Server(http.server.BaseHTTPRequestHandler):
    """A server whose every word is hostile."""

    def do_GET(self) -> None:
        said = {"data": [{"id": HOSTILE, "max_model_len": 9}], "version": HOSTILE, "error": HOSTILE}
        raw = json.dumps(said, ensure_ascii=False).encode()
        self.send_response(200 if "models" in self.path or "version" in self.path else 500)
        self.send_header("content-length", str(len(raw)))
        self.end_headers()
        self.wfile.write(raw)

    do_POST = do_GET  # noqa: N815

    def log_message(self, format: str, *args: object) -> None: ...


@pytest.fixture(scope="module")
def hostile_server() -> Iterator[str]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Server)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


@pytest.fixture
async def hostile_ledger(tmp_path: Path, scripted) -> tuple[Path, list[str], list[str]]:
    """A ledger with three runs full of such text: their ids, and the ids of thoughts."""
    db = tmp_path / "x.db"
    engine = scripted(lambda prompt: f"{HOSTILE} {prompt[:60]}")
    runs, thoughts = [], []
    said = split(parts) >> generate("{text}\n", calls=stamps, name=f"say {SIGNS}")
    agent = Agent(f"agent {SIGNS}", said >> act([stamp, fail], calls=stamps, name=f"act {SIGNS}"))
    for action in ("flag", "escalate", "prune"):
        async with Ledger.open(db) as ledger:
            found = await agent.run(
                f"a task {HOSTILE}\n    forged  done",
                policy=policy(action),
                engine=engine,
                ledger=ledger,
                sandbox=tmp_path / "sandbox" / action,
            )
        runs.append(found.run_id)
        thoughts += [t.id for t in found.thoughts]
        waiting = [t.id for t in found.waiting]
        thoughts = waiting + thoughts
    return db, runs, thoughts


def questions(
    place: Path, db: Path, runs: Sequence[str], thoughts: Sequence[str], server: str
) -> list[list[str]]:
    """Every command of the command line, over hostile text or hostile arguments."""
    here = ["--db", str(db)]
    agent, faulty = f"agent{SIGNS.replace('/', '')}.py", f"faulty{SIGNS.replace('/', '')}.py"
    (place / agent).write_text(AGENT, "utf-8")
    (place / faulty).write_text(FAULTY, "utf-8")
    (place / "hostile.yaml").write_text(
        yaml.safe_dump(json.loads(policy("prune").model_dump_json()))
    )
    (place / "bad.yaml").write_text(json.dumps({"name": HOSTILE, SIGNS: 1, "rules": []}))
    (place / "tasks.jsonl").write_text(
        "".join(json.dumps({"task": f"{HOSTILE} {n}"}) + "\n" for n in range(2)), "utf-8"
    )
    selected = f'SELECT text AS "{SIGNS}", run.agent, task FROM step, run'
    asked = [
        ["run", f"{agent}:agent", HOSTILE, *here],
        ["run", f"{agent}:agent", HOSTILE, "--json", *here],
        ["run", f"{agent}:agent", "--tasks", "tasks.jsonl", *here],
        ["run", f"{faulty}:agent", "x"],
        ["run", HOSTILE, "x"],
        ["run", "--resume", HOSTILE, *here],
        ["run", "--resume", runs[0], *here],
        ["run", "opsdesk", HOSTILE, *here],
        ["models"],
        ["policy", "check", "hostile.yaml"],
        ["policy", "check", "bad.yaml"],
        ["policy", "show", "hostile.yaml"],
        ["policy", "show", HOSTILE],
        ["engine", "check", server],
        ["engine", "check", f"http://127.0.0.1:1/{SIGNS}"],
        ["engine", "serve", SIGNS],
        ["db", "current", *here],
        ["db", "current", "--db", f"{HOSTILE}.db"],
        ["db", "upgrade", *here],
        ["db", "rebuild", *here],
        ["audit", "runs", *here],
        ["audit", "runs", "--agent", HOSTILE, *here],
        ["audit", "search", *here],
        ["audit", "search", "stamp", *here],
        ["audit", "search", "--since", HOSTILE, *here],
        ["audit", "pruned", *here],
        ["audit", "waiting", *here],
        ["audit", "sql", selected, *here],
        ["audit", "sql", selected, "--csv", *here],
        ["audit", "sql", f"SELECT {HOSTILE}", *here],
        ["audit", "replay", "--all", *here],
        ["audit", "replay", runs[1], "--policy", "hostile.yaml", *here],
        ["audit", "diff", runs[0], runs[1], *here],
        ["audit", "export", "--all", *here],
        ["audit", "export", "--all", "--complete", *here],
        ["audit", "verify", *here],
        ["audit", "verify", "--checkpoint", HOSTILE.replace("/", "")],
        ["audit", "checkpoint", "--key", str(place / "key"), *here],
        ["audit", "verifier"],
    ]
    for run in runs:
        asked += [
            ["audit", "show", run, *here],
            ["audit", "events", run, *here],
            ["audit", "tree", run, "--all", *here],
            ["audit", "tree", run, "--mermaid", "-", *here],
        ]
    asked += [["audit", "why", thought, *here] for thought in thoughts[:9]]
    asked += [[*words, "--json"] for words in asked if words[0] == "audit" and _has_json(words)]
    asked += [
        ["audit", "decide", thoughts[0], "--refuse", "--by", f"a{SIGNS}", "--reason", SIGNS, *here],
        ["audit", "why", thoughts[0], *here],
        ["audit", "erase", runs[2], "--by", "a", "--reason", SIGNS, "--yes", *here],
        ["audit", "show", runs[2], *here],
    ]
    asked += [["pretrain", each, HOSTILE] for each in ("eval", "lab", "retag")]
    asked += [
        ["pretrain", "corpus", "--config", HOSTILE],
        ["pretrain", "train", "--config", HOSTILE],
        ["pretrain", "tag", HOSTILE, "--taggers", HOSTILE],
        ["pretrain", "learn-tagger", HOSTILE, "--out", "x"],
        ["--nonsense" + HOSTILE],
    ]
    return asked


def _has_json(words: Sequence[str]) -> bool:
    return words[1] not in ("verifier", "export") and "--csv" not in words


def leaves(command: Any, above: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """The names of all commands that do something."""
    below = getattr(command, "commands", None)
    if below is None:
        yield above
        return
    for name, each in below.items():
        yield from leaves(each, (*above, name))


def drive(place: Path, asked: Sequence[Sequence[str]], *, terminal: bool) -> bytes:
    """What the commands write, all of it, to a pipe or to a terminal."""
    (place / "asked.json").write_text(json.dumps(asked), "utf-8")
    words = [sys.executable, "-c", DRIVER, "asked.json"]
    surroundings = {**os.environ, "TERM": "xterm", "COLUMNS": "100", "PYTHONUTF8": "1"}
    if not terminal:
        done = subprocess.run(
            words,
            cwd=place,
            env=surroundings,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=600,
        )
        return done.stdout
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        words, cwd=place, env=surroundings, stdin=theirs, stdout=theirs, stderr=theirs
    )
    os.close(theirs)
    said = bytearray()
    while True:
        try:
            piece = os.read(ours, 65536)
        except OSError:  # the other end is closed
            break
        if not piece:
            break
        said += piece
    process.wait(60)
    os.close(ours)
    return bytes(said)


@pytest.mark.parametrize("terminal", [False, True], ids=["pipe", "terminal"])
def test_every_command_prints_what_is_hostile_to_be_read(
    terminal: bool, hostile_ledger, hostile_server: str, tmp_path: Path, tiny_checkpoint: Path,
    monkeypatch: pytest.MonkeyPatch,
):  # fmt: skip
    monkeypatch.setenv("SECATEUR_MODEL", str(tiny_checkpoint))
    db, runs, thoughts = hostile_ledger
    asked = questions(tmp_path, db, runs, thoughts, hostile_server)
    driven = {tuple(words[:2]) if words[0] != "run" else ("run",) for words in asked}
    driven |= {("models",)}
    assert set(leaves(typer.main.get_command(app))) <= driven
    raw = drive(tmp_path, asked, terminal=terminal)
    assert raw.count(b"=== exit ") == len(asked)
    if terminal:
        codes = {c[2:-1] for c in OURS.findall(raw) if c.endswith(b"m")}
        assert {code for each in codes for code in each.split(b";")} <= COLOURS
        assert codes, "there are colours, so this is a terminal"
        raw = OURS.sub(b"", raw)
    text = raw.decode("utf-8")
    for number, said in enumerate(re.split(r"=== \d+\n", text)[1:]):
        assert not acting_in(said), (asked[number], said)
        assert "Traceback" not in said, (asked[number], said)
        assert "\U0001f4a3" not in said, (asked[number], said)
    for number, words in enumerate(asked):
        said = text.split(f"=== {number}\n")[1].split("\n=== exit")[0]
        if words[:2] in (
            ["audit", "show"],
            ["audit", "why"],
            ["audit", "runs"],
            ["policy", "show"],
        ):
            assert r"\u001b" in said, (words, said)
        if words[:2] in (["audit", "show"], ["audit", "why"]) and "--json" not in words:
            assert not re.search(r"^    forged  done", said, re.M), "a text passes for a fact"


def test_pictures_hold_nothing_that_acts(hostile_ledger, tmp_path: Path, secateur):
    db, runs, _ = hostile_ledger
    for run in runs:
        picture, chart = tmp_path / "x.svg", tmp_path / "x.mmd"
        code, *_ = secateur(
            "audit", "tree", run, "--all", "--db", db, "--svg", picture, "--mermaid", chart
        )
        assert code == 0
        drawn = picture.read_text("utf-8")
        assert not acting_in(drawn)
        ElementTree.fromstring(drawn)
        flow = chart.read_text("utf-8")
        assert not acting_in(flow)
        head = flow.split("---\n")[1]
        assert yaml.safe_load(head)["title"].startswith("agent ")
        assert not set("<>`{}") & set(head)


def test_cells_that_a_spreadsheet_would_run_are_texts(hostile_ledger, secateur):
    db, *_ = hostile_ledger
    cells = ["=1+1", "+1", "-1", "@x", "\tx", "\rx", "＝1", "plain", "a=b"]
    values = ", ".join("(" + " || ".join(f"char({ord(c)})" for c in cell) + ")" for cell in cells)
    asked = f'SELECT column1 AS "=x", -1.5 AS n FROM (VALUES {values})'
    code, out, _ = secateur("audit", "sql", asked, "--csv", "--db", db)
    assert code == 0
    head, *rows = csv.reader(io.StringIO(out))
    assert head == ["'=x", "n"]
    said = [cell if cell in ("plain", "a=b") else f"'{visible(cell)}" for cell in cells]
    assert rows == [[cell, "-1.5"] for cell in said]


def test_the_stand_alone_verifier_spells_what_a_ledger_holds(tmp_path: Path):
    db = tmp_path / "x.jsonl"
    heading = {"export": "secateur", "schema": 1, "revision": "0", "complete": True}
    names = ("run_id", "seq", "at", "kind", "actor", "thought_id", "body", "blobs")
    event = dict.fromkeys((*names, "prev_hash", "hash"), HOSTILE) | {"table": "event", "seq": 0}
    lines = [json.dumps(each, ensure_ascii=False) for each in (heading, event)]
    db.write_text("\ufeff" + "\n".join(lines) + "\n", "utf-8")
    verifier = ROOT / "runtime" / "ledger" / "integrity" / "verifier.py"
    for words in ([db], [db, "--run", HOSTILE], [tmp_path / HOSTILE.replace("/", "")]):
        done = subprocess.run(
            [sys.executable, verifier, *words], capture_output=True, text=True, timeout=60
        )
        assert done.returncode != 0
        assert "Traceback" not in done.stderr
        assert not acting_in(done.stdout + done.stderr)
