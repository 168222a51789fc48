"""Whatever one task of a file does, the others run, and what failed is listed at the end."""

import json
from pathlib import Path

import pytest

AGENT = r"""
import asyncio
import sys

from secateur import Agent, ReadTask, Sampling, generate


class OwnError(Exception):
    def __str__(self):
        raise KeyError("no words")


class Bare(BaseException):
    pass


def deep(n=0):
    return deep(n + 1)


async def later():
    return ReadTask()


FAULTS = {
    "exit": lambda: sys.exit(3),
    "bare": lambda: (_ for _ in ()).throw(Bare("bare")),
    "cancel": lambda: (_ for _ in ()).throw(asyncio.CancelledError()),
    "press": lambda: (_ for _ in ()).throw(KeyboardInterrupt()),
    "own": lambda: (_ for _ in ()).throw(OwnError()),
    "value": lambda: int("no number"),
    "deep": deep,
    "later": later,
    "nothing": lambda: None,
    "unhashable": lambda: ReadTask(context=["a"]),
    "unrecordable": lambda: ReadTask({1, 2}),
    "not a number": lambda: ReadTask(float("nan")),
}


def read(task):
    where, _, fault = task.partition(":")
    return FAULTS[fault]() if where == "read" else ReadTask()


def prompt(scene):
    where, _, fault = scene.task.partition(":")
    return FAULTS[fault]() if where == "prompt" else "sort 31\\n"


def answer(scene):
    where, _, fault = scene.task.partition(":")
    return FAULTS[fault]() if where == "answer" else scene.text


def prepare(folder, task, seed):
    where, _, fault = task.partition(":")
    if where == "prepare":
        FAULTS[fault]()


agent = Agent(
    "mine",
    plan=generate(prompt),
    read=read,
    answer=answer,
    prepare=prepare,
    policy="observe",
    sampling=Sampling(temperature=1.0, max_tokens=6),
)
"""

FAULTS = ("exit", "bare", "cancel", "press", "own", "value", "deep", "later")
BAD = [
    *[f"{where}:{fault}" for where in ("read", "prompt", "answer") for fault in FAULTS],
    *[f"prepare:{fault}" for fault in FAULTS if fault != "later"],
    *[f"read:{fault}" for fault in ("nothing", "unhashable", "unrecordable", "not a number")],
    "",
    "   ",
]
LINES = [
    "no json",
    "[1]",
    "3",
    "null",
    '{"task": 3}',
    '{"task": null}',
    '{"task": ["a"]}',
    '{"seed": 3}',
    '{"task": "fine", "seed": "x"}',
    '{"task": "fine", "seed": 1.5}',
    '{"task": "fine", "seed": true}',
    '{"task": "fine", "seed": null}',
    "[" * 5_000,
]
"""Lines that hold no task, or none that can be run."""


@pytest.fixture(autouse=True)
def place(tmp_path: Path, tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder with a user's agent in it, and the random model as the default."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SECATEUR_MODEL", str(tiny_checkpoint))
    (tmp_path / "mine.py").write_text(AGENT)
    return tmp_path


def test_every_other_task_runs_and_what_failed_is_said(secateur, place: Path) -> None:
    lines = [
        b'{"task": "first"}',
        *[json.dumps({"task": task}).encode() for task in BAD],
        *[line.encode() for line in LINES],
        b'{"task": "caf\xe9"}',
        json.dumps({"task": "a lone \ud800 surrogate"}).encode(),
        json.dumps({"task": "long " * 100_000}).encode(),
        b'{"task": "last"}',
    ]
    (place / "tasks.jsonl").write_bytes(b"\n".join(lines))
    code, out, _ = secateur("run", "mine.py:agent", "--tasks", "tasks.jsonl", "--json")
    assert code == 1
    said = [json.loads(line) for line in out.splitlines()]
    assert len(said) == len(lines)
    assert (said[0]["task"], said[0]["status"]) == ("first", "done")
    assert (said[-1]["task"], said[-1]["status"]) == ("last", "done")
    wrong = said[1 : 1 + len(BAD) + len(LINES) + 1]
    for number, each in enumerate(wrong, 2):
        why = each.get("error") or each["reason"]
        assert each["status"] not in ("done", None), each
        assert why
        assert "\n" not in why
        if "error" in each:
            assert each["line"] == number


def test_the_batch_ends_with_a_table_of_what_failed(secateur, place: Path) -> None:
    tasks = ["fine", "read:value", "prompt:exit", "answer:own", "fine too"]
    lines = [json.dumps({"task": task}) for task in tasks]
    (place / "tasks.jsonl").write_text("\n".join([*lines, "no json"]))
    code, out, err = secateur("run", "mine.py:agent", "--tasks", "tasks.jsonl")
    assert code == 1
    assert "Traceback" not in err
    runs, _, table = out.partition("\n\n")
    assert len(runs.splitlines()) == 6
    head, columns, *rows = table.splitlines()
    assert head == "4 of 6 tasks failed:"
    assert columns.split() == ["line", "run", "status", "task", "why"]
    assert [row.split()[0] for row in rows] == ["2", "3", "4", "6"]
    for row, why in zip(
        rows, ("invalid literal", "SystemExit", "OwnError", "no task"), strict=True
    ):
        assert why in row


def test_a_batch_without_a_fault_has_no_table(secateur, place: Path) -> None:
    (place / "tasks.jsonl").write_text('{"task": "a"}\n{"task": "b"}\n')
    code, out, _ = secateur("run", "mine.py:agent", "--tasks", "tasks.jsonl")
    assert code == 0
    assert len(out.splitlines()) == 2
