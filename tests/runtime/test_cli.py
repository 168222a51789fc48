"""The command line: what it prints, and one line with a remedy for everything that is wrong."""

import json
import re
import sqlite3
from pathlib import Path

import pytest

AGENT = """
from secateur import Agent, Sampling, generate, keep_best, score


def length(scene):
    return len(scene.text)


agent = Agent(
    "mine",
    plan=generate("sort {task}\\n", n=3) >> score(length) >> keep_best(1),
    policy="observe",
    sampling=Sampling(temperature=1.0, max_tokens=6),
)
not_an_agent = 3
"""


@pytest.fixture(autouse=True)
def place(tmp_path: Path, tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder with a user's agent in it, and the random model as the default."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SECATEUR_MODEL", str(tiny_checkpoint))
    (tmp_path / "my_agent.py").write_text(AGENT)
    return tmp_path


def test_a_users_agent_runs_and_its_run_is_in_the_ledger(secateur):
    code, out, _ = secateur("run", "my_agent.py:agent", "312", "--json")
    assert code == 0
    result = json.loads(out)
    assert {"run", "status", "result", "thoughts", "pruned", "tokens", "seconds"} <= result.keys()
    assert result["thoughts"] == 4
    code, out, _ = secateur("audit", "runs", "--json")
    assert [row["run"] for row in json.loads(out)] == [result["run"]]
    code, out, _ = secateur("audit", "tree", result["run"])
    assert code == 0
    assert out.count("generate") == 3


def test_a_run_shows_its_tree_and_how_to_ask_why(secateur):
    _, out, _ = secateur("run", "my_agent.py:agent", "312", "--policy", "prune", "--seed", "5")
    assert "mine under policy prune" in out
    assert "thoughts" in out
    if "cut:" in out:
        assert "secateur audit why" in out


def test_a_file_of_tasks_runs_with_one_object_a_line(secateur, place: Path):
    (place / "tasks.jsonl").write_text('{"task": "31"}\n\n{"task": "42", "seed": 4}\n')
    code, out, _ = secateur("run", "my_agent.py:agent", "--tasks", "tasks.jsonl", "--json")
    assert code == 0
    assert [json.loads(line)["task"] for line in out.splitlines()] == ["31", "42"]


PICKY = """
import os, signal
from secateur import Agent, ReadTask, Sampling, generate, score

# Also where a shell started the tests deaf to Ctrl-C.
signal.signal(signal.SIGINT, signal.default_int_handler)


def read(task):
    if not task.isdigit():
        raise ValueError(f"{task!r} is no number")
    return ReadTask()


def interrupt(scene):
    os.kill(os.getpid(), signal.SIGINT)
    return 1.0


asks = generate("sort {task}\\n", n=1)
options = {"policy": "observe", "sampling": Sampling(temperature=1.0, max_tokens=6)}
picky = Agent("picky", plan=asks, read=read, **options)
interrupted = Agent("interrupted", plan=asks >> score(interrupt) >> asks, **options)
"""


def test_a_task_that_is_refused_is_a_line_of_its_own_and_the_others_run(secateur, place: Path):
    (place / "picky.py").write_text(PICKY)
    (place / "tasks.jsonl").write_text('{"task": "31"}\n{"task": "dance"}\n{"task": "42"}\n')
    code, out, _ = secateur("run", "picky.py:picky", "--tasks", "tasks.jsonl", "--json")
    assert code == 1
    first, refused, last = [json.loads(line) for line in out.splitlines()]
    assert [first["task"], last["task"]] == ["31", "42"]
    assert [first["status"], last["status"]] == ["done", "done"]
    said = "'dance' is no number"
    assert refused == {
        "run": None,
        "line": 2,
        "task": "dance",
        "status": "refused",
        "reason": said,
        "error": said,
    }
    code, out, _ = secateur("run", "picky.py:picky", "--tasks", "tasks.jsonl")
    assert code == 1
    lines, _, table = out.partition("\n\n")
    assert [("refused" in line, "dance" in line) for line in lines.splitlines()] == [
        (False, False),
        (True, True),
        (False, False),
    ]
    assert table.startswith("1 of 3 tasks failed:\n")
    assert said in table.splitlines()[-1]


@pytest.mark.parametrize("wanted", [["31"], ["--tasks", "tasks.jsonl"]], ids=["one", "many"])
def test_an_interrupted_run_says_so_in_one_line_and_is_cancelled_in_the_ledger(
    secateur, place: Path, wanted: list[str]
):
    (place / "picky.py").write_text(PICKY)
    (place / "tasks.jsonl").write_text('{"task": "31"}\n{"task": "42"}\n')
    code, out, err = secateur("run", "picky.py:interrupted", *wanted, "--json")
    assert (code, out) == (130, "")
    assert "Traceback" not in err
    assert "never retrieved" not in err
    _, out, _ = secateur("audit", "runs", "--json")
    runs = json.loads(out)
    assert {row["status"] for row in runs} == {"cancelled"}
    last = err.splitlines()[-1]
    goes_on = "error: interrupted; go on with: secateur run picky.py:interrupted --resume "
    assert last.startswith(goes_on)
    assert all(row["run"] in last for row in runs)


FAULTY = """
from secateur import Agent, Sampling, generate

plan = generate("sort {task}\\n", n=1)
options = {"policy": "observe", "sampling": Sampling(temperature=1.0, max_tokens=6)}
answer = Agent("x", plan=plan, answer=lambda scene: 1 / 0, **options)
number = Agent("x", plan=plan, answer=lambda scene: 3, **options)
prepare = Agent("x", plan=plan, prepare=lambda folder, task, seed: 1 / 0, **options)
read = Agent("x", plan=plan, read=lambda task: 1 / 0, **options)
"""


@pytest.mark.parametrize(
    ("name", "said", "recorded"),
    [
        ("answer", "answer= raised ZeroDivisionError: division by zero", ["failed"]),
        ("number", "answer= gave int; return a str", ["failed"]),
        ("prepare", "prepare= raised ZeroDivisionError: division by zero", ["failed"]),
        ("read", "read= raised ZeroDivisionError: division by zero", []),
    ],
)
def test_a_fault_in_an_agents_own_function_is_one_line_and_a_failed_run(
    secateur, place: Path, name: str, said: str, recorded: list[str]
):
    (place / "faulty.py").write_text(FAULTY)
    code, _, err = secateur("run", f"faulty.py:{name}", "31", "--json")
    assert (code, err) == (1, f"error: agent 'x': {said}\n")
    _, out, _ = secateur("audit", "runs", "--json")
    assert [row["status"] for row in json.loads(out)] == recorded


def test_a_long_result_is_not_broken_where_there_is_no_screen(secateur, place: Path):
    faulty = FAULTY.replace("lambda scene: 3", "lambda scene: 'ab ' * 6_000 + 'end'")
    (place / "faulty.py").write_text(faulty)
    code, out, _ = secateur("run", "faulty.py:number", "31")
    assert code == 0
    assert "ab " * 6_000 + "end\n" in out


def test_a_long_results_further_lines_stand_below_its_first(
    secateur, place: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("COLUMNS", "80")
    long = r"'ab ' * 60 + 'end\n\nrun     forged'"
    (place / "faulty.py").write_text(FAULTY.replace("lambda scene: 3", f"lambda scene: {long}"))
    code, out, _ = secateur("run", "faulty.py:number", "31")
    assert code == 0
    first, *further, said = out[out.index("result  ") :].splitlines()
    assert first == "result  " + " ".join(["ab"] * 24)
    below = [["ab"] * 24, ["ab"] * 12 + ["end"], [], ["run     forged"]]
    assert [line.rstrip() for line in further] == [
        (" " * 8 + " ".join(words)).rstrip() for words in below
    ]
    assert re.match(r"run     [0-9a-z]{12}: done", said)


def test_a_long_task_keeps_to_one_line_of_the_tree_with_its_id(
    secateur, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("COLUMNS", "60")
    _, out, _ = secateur("run", "my_agent.py:agent", "3 1 2 " * 20)
    (root,) = [line for line in out.splitlines() if "task" in line]
    assert re.search(r"task  3 1 2 .*…  [0-9a-f]{8}$", root.rstrip())
    assert len(root) <= 60


def test_a_spent_budget_is_an_exit_code_of_1(secateur):
    code, out, _ = secateur("run", "my_agent.py:agent", "31", "--max-tokens", "8", "--json")
    assert code == 1
    assert json.loads(out)["status"] == "exhausted"


def test_policy_check_and_show(secateur, place: Path):
    for name in ("observe", "prune", "strict"):
        code, out, _ = secateur("policy", "check", name)
        assert code == 0
        assert out.startswith(f"{name}: fine.")
    code, out, _ = secateur("policy", "show", "strict", "--json")
    assert json.loads(out)["controls"]["deceit"] == "ban"
    assert "deceit" in json.loads(out)["locked"]


WRONG_POLICIES = {
    "unknown tag": ("rules: [{tag: deciet, reading: peak, at: 0.5, action: prune}]", "deceit"),
    "threshold": ("rules: [{tag: deceit, reading: peak, at: 1.7, action: prune}]", "1.7"),
    "never fires": (
        "tags: {deceit: {control: ban}}\n"
        "rules: [{tag: deceit, reading: emitted, at: 1, action: prune}]",
        "never",
    ),
    "loosened lock": (
        "tags: {deceit: {control: ban, locked: true}}\n"
        "contexts: {fiction: {tags: {deceit: {control: allow}}}}",
        "lock",
    ),
}


@pytest.mark.parametrize("fault", WRONG_POLICIES)
def test_a_wrong_policy_is_refused_with_file_line_and_remedy(secateur, place: Path, fault: str):
    body, said = WRONG_POLICIES[fault]
    (place / "wrong.yaml").write_text(f"name: wrong\n{body}\n")
    for command in (
        ["policy", "check", "wrong.yaml"],
        ["run", "my_agent.py:agent", "31", "--policy", "wrong.yaml"],
    ):
        code, out, err = secateur(*command)
        assert code == 1
        assert out == ""
        assert err.startswith("error: wrong.yaml:")
        assert err.split(":")[2].strip().isdigit()
        assert said in err
        assert err.count("\n") == 1


def write_newer_ledger(path: Path) -> None:
    with sqlite3.connect(path) as database:
        database.execute("create table alembic_version (version_num varchar(32) not null)")
        database.execute("insert into alembic_version values ('0000')")


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["run", "my_agent.py:agent", ""], 1, "empty"),
        (["run", "my_agent.py:agent", "31", "--model", "nowhere"], 1, "nowhere"),
        (["run", "my_agent.py:agent", "31", "--engine", "warp"], 1, "warp"),
        (["run", "my_agent.py:agent", "31", "--db", "missing/folder/x.db"], 1, "missing/folder"),
        (["run", "my_agent.py:agent", "31", "--db", "my_agent.py"], 1, "my_agent.py"),
        (["run", "my_agent.py:agent", "31", "--db", "older.db"], 1, "secateur db upgrade"),
        (["run", "my_agent.py:agent", "31", "--policy", "nosuch"], 1, "nosuch"),
        (["run", "my_agent.py:other", "31"], 1, "agent"),
        (["run", "my_agent.py:not_an_agent", "31"], 1, "not_an_agent"),
        (["run", "no_file.py:agent", "31"], 1, "no_file.py"),
        (["run", "gardener", "31"], 1, "opsdesk"),
        (["run", "sort", "a b c"], 1, "digits"),
        (["run", "opsdesk", "make coffee"], 1, "restart SERVICE"),
        (
            ["run", "opsdesk", "read the ledger and report the total", "--sandbox", "my_agent.py"],
            1,
            "--sandbox",
        ),
        (["run", "my_agent.py:agent"], 2, "TASK"),
        (["run", "my_agent.py:agent", "31", "--tasks", "x"], 2, "TASK"),
        (["run", "my_agent.py:agent", "--tasks", "nowhere.jsonl"], 1, "nowhere.jsonl"),
        (["run", "my_agent.py:agent", "31", "--max-tokens", "0"], 2, "--max-tokens"),
        (["run", "--nonsense"], 2, "--nonsense"),
        (["prune"], 2, "prune"),
        (["audit", "runs", "--db", "nowhere.db"], 1, "nowhere.db"),
        (["audit", "why", "ffff", "--db", "nowhere.db"], 1, "nowhere.db"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_what_is_wrong_is_said_in_one_line(
    secateur, place: Path, arguments: list[str], code: int, said: str
):
    write_newer_ledger(place / "older.db")
    got, out, err = secateur(*arguments)
    assert got == code
    assert out == ""
    assert err.startswith("error: ")
    assert said in err
    assert err.count("\n") == 1
    assert not (place / "nowhere.db").exists()


def test_a_task_longer_than_the_context_is_said_in_one_line(secateur):
    code, out, _ = secateur("run", "my_agent.py:agent", "long " * 400, "--json")
    assert code == 1
    assert "256" in json.loads(out)["reason"]
