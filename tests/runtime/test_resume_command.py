"""``secateur run --resume``, ``audit waiting`` and ``audit decide``, as a user types them."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from secateur import AuditLog

AGENT = """
from secateur import Agent, Call, Sampling, Workspace, act, generate, tool


@tool
def stamp(folder: Workspace) -> str:
    with (folder.path / "stamps.txt").open("a") as file:
        file.write("stamped\\n")
    return "stamped"


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


@pytest.fixture(autouse=True)
def place(tmp_path: Path, tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a user's agent and policy in it, and the random model as the default."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SECATEUR_MODEL", str(tiny_checkpoint))
    (tmp_path / "my_agent.py").write_text(AGENT)
    (tmp_path / "asking.yaml").write_text(POLICY)
    return tmp_path


@pytest.fixture
def waits(secateur) -> dict:
    """A run that waits for a person."""
    code, out, _ = secateur(
        "run", "my_agent.py:agent", "x", "--policy", "asking.yaml", "--seed", "5", "--json"
    )
    assert code == 1
    found = json.loads(out)
    assert found["status"] == "escalated"
    return found


def test_what_waits_is_listed_decided_and_gone_on_with(secateur, place: Path, waits: dict):
    (thought,) = waits["waiting"]
    _, out, _ = secateur("audit", "waiting", "--json")
    (row,) = json.loads(out)
    assert (row["thought"], row["run"], row["about"]) == (thought, waits["run"], "verdict")
    assert (row["tag"], row["reading"], row["threshold"]) == ("angry", "opened", 1e-9)
    _, out, _ = secateur("audit", "waiting")
    assert thought[:8] in out
    said = ("--approve", "--by", "ada", "--reason", "announced")
    code, out, _ = secateur("audit", "decide", thought[:8], *said)
    assert code == 0
    assert f"secateur run --resume {waits['run']}" in out
    assert secateur("audit", "waiting", "--json")[1].strip() == "[]"
    # From elsewhere: the ledger knows where agent, model and sandbox are.
    (place / "elsewhere").mkdir()
    os.chdir(place / "elsewhere")
    db = str(place / "secateur.db")
    code, out, _ = secateur("run", "--resume", waits["run"][:8], "--db", db, "--json")
    again = json.loads(out)
    assert (code, again["status"], again["result"]) == (0, "done", "stamped")
    assert again["run"] == waits["run"]
    stamps = place / "sandbox" / waits["run"] / "stamps.txt"
    assert stamps.read_text() == "stamped\n"
    code, out, _ = secateur("run", "--resume", waits["run"], "--db", db)
    assert (code, out.strip()) == (0, f"run {waits['run']} is done already: stamped")


def test_a_refused_thought_is_pruned_and_nothing_acts(secateur, place: Path, waits: dict):
    (thought,) = waits["waiting"]
    said = ("--refuse", "--by", "ada", "--reason", "no", "--json")
    _, out, _ = secateur("audit", "decide", thought, *said)
    assert json.loads(out)["approve"] is False
    code, out, _ = secateur("run", "--resume", waits["run"], "--json")
    assert (code, json.loads(out)["status"]) == (1, "empty")
    assert not (place / "sandbox" / waits["run"] / "stamps.txt").exists()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("run",), "name an AGENT, or a run to --resume"),
        (("run", "--resume", "nothing"), "no run starts with 'nothing'"),
        (("run", "--resume", "RUN", "--seed", "3"), "its task and seed are its own"),
        (("run", "--resume", "RUN"), "waits for a person to decide on"),
        (("audit", "decide", "THOUGHT"), "say --approve or --refuse"),
        (("audit", "decide", "THOUGHT", "--approve"), "say who decides and why"),
        (
            ("audit", "decide", "ffff", "--refuse", "--by", "ada", "--reason", "x"),
            "no thought that waits starts with 'ffff'",
        ),
    ],
)
def test_what_cannot_be_done_is_said_in_one_line(
    secateur, waits: dict, arguments: tuple[str, ...], says: str
):
    names = {"RUN": waits["run"], "THOUGHT": waits["waiting"][0]}
    code, _, err = secateur(*(names.get(word, word) for word in arguments))
    assert code in (1, 2)
    assert says in err
    assert err.count("\n") == 1


def test_another_agent_file_or_policy_is_refused(secateur, place: Path, waits: dict):
    thought = waits["waiting"][0]
    secateur("audit", "decide", thought, "--approve", "--by", "ada", "--reason", "x")
    code, _, err = secateur("run", "--resume", waits["run"], "--policy", "strict")
    assert (code, "has another policy, 'asking'" in err) == (1, True)
    code, _, err = secateur("run", "my_agent.py:agent", "y", "--resume", waits["run"])
    assert (code, "has another task, 'x'" in err) == (1, True)
    (place / "my_agent.py").write_text(AGENT.replace("say {task}", "tell {task}"))
    code, _, err = secateur("run", "--resume", waits["run"])
    assert (code, "my_agent.py changed since" in err) == (1, True)
    code, _, err = secateur("run", "my_agent.py:agent", "--resume", waits["run"])
    assert (code, "step 1 was 'generate' and is another one" in err) == (1, True)
    (place / "my_agent.py").unlink()
    code, _, err = secateur("run", "--resume", waits["run"])
    assert (code, "no such file" in err) == (1, True)


def test_a_decision_does_not_make_a_ledger(secateur, place: Path):
    said = ("--approve", "--by", "ada", "--reason", "x", "--db", "new.db")
    code, _, err = secateur("audit", "decide", "ffff", *said)
    assert (code, "there is no ledger" in err) == (1, True)
    assert not (place / "new.db").exists()


def test_kill_9_and_resume_as_a_user_sees_it(secateur, place: Path):
    """A process that is killed while its tool works, of which nobody knows the end."""
    slow = AGENT.replace('    return "stamped"', "    import time\n    time.sleep(60)")
    (place / "slow.py").write_text(slow)
    command = [sys.executable, "-m", "secateur", "run", "slow.py:agent", "x", "--json"]

    def acting() -> bool:
        return any(place.glob("sandbox/*/stamps.txt"))

    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as child:
        deadline = time.monotonic() + 120
        while not acting() and child.poll() is None and time.monotonic() < deadline:
            time.sleep(0.1)
        child.kill()
    assert child.returncode == -signal.SIGKILL
    with AuditLog("secateur.db") as audit:
        (run,) = audit.runs()
    assert run.status == "unfinished"
    code, out, _ = secateur("run", "--resume", run.run, "--json")
    (unknown,) = json.loads(out)["waiting"]
    (row,) = json.loads(secateur("audit", "waiting", "--json")[1])
    assert (row["about"], row["tool"]) == ("tool", "stamp")
    said = ("--approve", "--by", "ada", "--reason", "the stamp is there")
    code, _, err = secateur("audit", "decide", unknown, *said)
    assert (code, '--outcome done or --outcome "not done"' in err) == (1, True)
    assert secateur("audit", "decide", unknown, *said, "--outcome", "done")[0] == 0
    code, out, _ = secateur("run", "--resume", run.run, "--json")
    assert (code, json.loads(out)["result"]) == (0, "the stamp is there")
    (stamps,) = place.glob("sandbox/*/stamps.txt")
    assert stamps.read_text() == "stamped\n"
