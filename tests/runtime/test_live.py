"""What somebody at a terminal sees of a run: its picture as it grows, and what Ctrl-C does."""

import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from rich.console import Console

from secateur import AuditLog
from secateur.agents.path import Path as Place
from secateur.agents.thought import Status, Thought
from secateur.cli.live import GrowingPicture

AGENT = '''
import asyncio, signal, time
from pathlib import Path
from secateur import Agent, Call, Sampling, act, generate, split, tool

# Also where a shell started the tests deaf to Ctrl-C.
signal.signal(signal.SIGINT, signal.default_int_handler)
FAST = Path("fast")


@tool
def slowly(word: str) -> str:
    """Take a while."""
    Path("begun").touch()
    while not FAST.exists():
        time.sleep(0.02)
    return "done"


@tool
async def patiently(word: str) -> str:
    """Take a while."""
    Path("begun").touch()
    while not FAST.exists():
        await asyncio.sleep(0.02)
    return "done"


def agent_with(used):
    def calls(text):
        return Call(used.name, {"word": text})

    plan = generate("{task}", calls=calls) >> act([used], calls=calls)
    return Agent("slow", plan, sampling=Sampling(max_tokens=4))


plain, waits = agent_with(slowly), agent_with(patiently)
wide = Agent("wide", split(lambda scene: [(f"part {i}", i) for i in range(300)]))
'''


@pytest.fixture
def place(tmp_path: Path) -> Path:
    (tmp_path / "slow.py").write_text(AGENT)
    return tmp_path


@pytest.fixture
def environment(tiny_checkpoint: Path) -> dict[str, str]:
    return {**os.environ, "SECATEUR_MODEL": str(tiny_checkpoint), "TERM": "xterm"}


class Running:
    """The command in a process of its own."""

    def __init__(self, place: Path, environment: dict[str, str], *words: str) -> None:
        command = [sys.executable, "-m", "secateur", "run", *words]
        self.place = place
        self.process = subprocess.Popen(
            command,
            cwd=place,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def until(self, file: str) -> None:
        end = time.monotonic() + 120
        while not (self.place / file).exists():
            assert self.process.poll() is None, self.process.communicate()
            assert time.monotonic() < end
            time.sleep(0.02)

    def press(self) -> None:
        self.process.send_signal(signal.SIGINT)

    def line(self) -> str:
        assert self.process.stderr is not None
        return self.process.stderr.readline()

    def end(self) -> tuple[int, str, str]:
        out, err = self.process.communicate(timeout=120)
        return self.process.returncode, out, err


def kinds(place: Path) -> tuple[str, list[str]]:
    with AuditLog(place / "secateur.db") as audit:
        (run,) = audit.runs()
        return run.run, [event.kind for event in audit.events(run.run)]


@pytest.mark.parametrize("name", ["plain", "waits"])
def test_ctrl_c_says_what_it_waits_for_and_how_to_go_on(
    place: Path, environment: dict[str, str], name: str
) -> None:
    running = Running(place, environment, f"slow.py:{name}", "x", "--json")
    running.until("begun")
    running.press()
    tool = {"plain": "slowly", "waits": "patiently"}[name]
    assert f"waiting for what the tool {tool} will say" in running.line()
    (place / "fast").touch()
    code, out, err = running.end()
    run, events = kinds(place)
    assert (code, out) == (130, "")
    assert err == (f"error: interrupted; go on with: secateur run slow.py:{name} --resume {run}\n")
    assert events.count("tool_intended") == events.count("tool_returned") == 1
    assert events[-1] == "run_finished"


@pytest.mark.parametrize("name", ["plain", "waits"])
def test_ctrl_c_once_more_ends_it_and_the_call_is_unknown(
    place: Path, environment: dict[str, str], name: str
) -> None:
    running = Running(place, environment, f"slow.py:{name}", "x", "--json")
    running.until("begun")
    running.press()
    running.line()
    running.press()
    code, out, err = running.end()
    run, events = kinds(place)
    assert (code, out) == (130, "")
    assert err.splitlines()[-1].endswith(f"secateur run slow.py:{name} --resume {run}")
    assert "Traceback" not in err
    assert (events.count("tool_intended"), events.count("tool_returned")) == (1, 0)
    with AuditLog(place / "secateur.db") as audit:
        (waits,) = audit.waiting(run)
        assert audit.verify(run).ok
    assert (waits.about, waits.tool) == ("tool", {"plain": "slowly", "waits": "patiently"}[name])
    decide = ["audit", "decide", waits.thought, "--approve", "--by", "ada", "--reason", "it was"]
    for words in (
        [*decide, "--outcome", "done"],
        ["run", f"slow.py:{name}", "--resume", run, "--json"],
    ):
        done = subprocess.run(
            [sys.executable, "-m", "secateur", *words],
            cwd=place,
            env=environment,
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["result"] == "it was"


BLOCKED = """
import signal, time
from pathlib import Path
from secateur import Agent, score, split

signal.signal(signal.SIGINT, signal.default_int_handler)


def hold_up(scene):
    Path("begun").touch()
    time.sleep(600)


agent = Agent("blocked", split(lambda scene: [("a", 1)]) >> score(hold_up))
"""


def test_ctrl_c_twice_ends_a_function_that_holds_everything_up(
    place: Path, environment: dict[str, str]
) -> None:
    (place / "blocked.py").write_text(BLOCKED)
    running = Running(place, environment, "blocked.py:agent", "x", "--json")
    running.until("begun")
    running.press()
    assert running.line() == "stopping; Ctrl-C once more ends it at once\n"
    running.press()
    code, out, err = running.end()
    run, _ = kinds(place)
    assert (code, out) == (130, "")
    assert err.splitlines()[-1].endswith(f"secateur run blocked.py:agent --resume {run}")
    assert "Traceback" not in err


def on_a_terminal(place: Path, environment: dict[str, str], *words: str) -> str:
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(place)
        os.execve(sys.executable, [sys.executable, "-m", "secateur", "run", *words], environment)
    said = b""
    while True:
        try:
            if not select.select([terminal], [], [], 120)[0]:
                break
            said += os.read(terminal, 1 << 16)
        except OSError:  # whoever wrote has left
            break
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0, said
    return said.decode()


def test_a_picture_is_drawn_on_a_terminal_alone(place: Path, environment: dict[str, str]) -> None:
    size = {"LINES": "24", "COLUMNS": "80"}
    shown = on_a_terminal(place, environment | size, "slow.py:wide", "x")
    assert "the latest of 301 thoughts: 301 kept" in shown
    assert "\x1b[1A" in shown  # it is drawn over
    code, out, err = Running(place, environment | {"FORCE_COLOR": "1"}, "slow.py:wide", "x").end()
    assert code == 0
    assert "the latest of" not in out + err
    assert "\x1b[1A" not in out + err


def thoughts(count: int) -> list[Thought]:
    root = Thought("0" * 16, "task", "task", text="x")
    made = [
        Thought(f"{n:016x}", "split", "split", ("0" * 16,), Place(0, 0, n), text=f"part {n}")
        for n in range(1, count)
    ]
    return [root, *made]


@pytest.mark.parametrize(("columns", "lines"), [(80, 24), (160, 50), (20, 5), (80, 3)])
@pytest.mark.parametrize("count", [1, 10, 22, 23, 60, 3_000])
def test_a_picture_fits_the_screen(columns: int, lines: int, count: int) -> None:
    console = Console(width=columns, height=lines, force_terminal=True, color_system=None)
    picture = GrowingPicture("agent")
    for thought in thoughts(count):
        picture.take(thought)
    with console.capture() as drawn:
        console.print(picture)
    shown = drawn.get().splitlines()
    assert len(shown) < max(lines, 4)
    assert all(len(line) <= columns for line in shown)
    if count <= lines - 2:
        assert sum("part" in line for line in shown) == count - 1
    elif columns > 20:
        assert f"the latest of {count} thoughts" in shown[-1]


def test_a_picture_shows_what_changed_last() -> None:
    console = Console(width=80, height=10, force_terminal=True, color_system=None)
    picture = GrowingPicture("agent")
    made = thoughts(100)
    for thought in made:
        picture.take(thought)
    assert picture.changed
    for thought in made[3:6]:
        lost = {"status": Status.DROPPED, "reason": "lost"}
        picture.take(Thought(thought.id, "split", "split", thought.parents, thought.path, **lost))
    with console.capture() as drawn:
        console.print(picture)
    assert not picture.changed
    assert re.search(r"100 thoughts: 97 kept, 3 dropped", drawn.get())
    assert "3 folded: 3 dropped" in drawn.get() or drawn.get().count("lost") == 3


LATE = '''
import time
from secateur import Agent, Call, Sampling, act, generate
from secateur.agents.tool import Tool


def slowly(word: str) -> str:
    """Look up now and then."""
    while True:
        time.sleep(0.001)


def calls(text):
    return Call("slowly", {"word": text})


plan = generate("{task}", calls=calls) >> act([Tool.of(slowly, timeout=0.1)], calls=calls)
agent = Agent("late", plan, sampling=Sampling(max_tokens=4))
'''


def test_a_tool_that_never_ends_does_not_change_how_the_command_ends(
    place: Path, environment: dict[str, str]
) -> None:
    (place / "late.py").write_text(LATE)
    code, out, err = Running(place, environment, "late.py:agent", "x", "--json").end()
    assert (code, err) == (1, "")
    assert json.loads(out)["status"] == "escalated"
