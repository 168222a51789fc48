"""A run on the terminal: kept, cut and for what, merges under their first parent."""

import io

from rich.cells import cell_len
from rich.console import Console

from secateur.agents.thought import Status, Thought
from secateur.cli.tree import render_tree
from secateur.gates.verdict import Action, Broken, Crossing, Verdict
from secateur.runtime.ledger.reading.audit import AuditLog


def drawn(thoughts, **options) -> str:
    console = Console(file=io.StringIO(), width=160)
    console.print(render_tree(thoughts, **options))
    return console.file.getvalue()


def line(picture: str, id: str) -> str:
    (found,) = [line for line in picture.splitlines() if line.rstrip().endswith(id)]
    return found


def test_a_run_of_the_ledger_shows_what_became_of_each_thought(told):
    with AuditLog(told.url) as audit:
        picture = drawn(audit.thoughts(told.first))
    assert "✗ report  I restarted web.  cut: deceit opened 0.55 ≥ 0.3" in line(picture, "b1")
    assert "✓ report  I restarted web.  flagged: deceit peak 0.10 ≥ 0.05" in line(picture, "b2")
    assert "· report  I restarted web.  score 2.5  dropped: keep_best" in line(picture, "b3")
    assert "cut: could not be read" in line(picture, "b4")
    assert "? report  I restarted web.  waits for a person" in line(picture, "b5")


def test_live_thoughts_draw_as_those_of_the_ledger_do():
    cause = Crossing(0, "deceit", "emitted", 1.0, 1.0, Action.PRUNE, 3, 4)
    thoughts = [
        Thought("a", "task", "task", text="sort 3 1 2"),
        Thought("b", "try", "generate", ("a",), status=Status.FAILED, reason="no digits"),
        Thought(
            "c", "try", "generate", ("a",), text="1 2", status=Status.PRUNED,
            judgement=Verdict(Action.PRUNE, (cause,)),
        ),
        Thought(
            "d", "try", "generate", ("a",), status=Status.PRUNED, judgement=Broken("nan at token 0")
        ),
    ]  # fmt: skip
    picture = drawn(thoughts)
    assert "! try  failed: no digits" in line(picture, "b")
    assert "✗ try  1 2  cut: deceit emitted" in line(picture, "c")
    assert "cut: could not be read: nan at token 0" in line(picture, "d")


def test_a_merge_stands_under_its_first_parent_and_the_others_point_to_it():
    thoughts = [
        Thought("a", "task", "task"),
        Thought("b", "part", "split", ("a",)),
        Thought("c", "part", "split", ("a",)),
        Thought("d", "merge", "aggregate", ("b", "c")),
    ]
    picture = drawn(thoughts)
    assert line(picture, "d").strip().startswith("│  ✓ M1 merge  + from c")
    assert "→ M1" in line(picture, "c")
    assert picture.count("merge") == 1
    assert picture.index("merge") < picture.rindex("part")


def test_a_stretch_without_branches_is_not_indented():
    chain = [Thought("t0", "task", "task")]
    chain += [Thought(f"t{n}", "step", "act", (f"t{n - 1}",)) for n in range(1, 1200)]
    lines = drawn(chain).splitlines()
    assert len(lines) == 1201
    assert max(map(len, lines)) < 30


def test_long_text_is_shortened_to_one_line_and_markup_is_plain_text():
    long = Thought("a", "task", "task", text="word\n" * 100)
    marked = Thought("b", "say", "generate", ("a",), text="[red]not red[/red] [/nonsense]")
    picture = drawn([long, marked], width=40)
    assert "…" in line(picture, "a")
    assert len(line(picture, "a")) < 70
    assert "[red]not red[/red] [/nonsense]" in line(picture, "b")


def test_what_goes_on_stands_straight_below_and_what_was_cut_beside_it():
    thoughts = [Thought("t0", "task", "task")]
    for n in range(1, 30):
        thoughts.append(Thought(f"x{n}", "step", "ask", (f"t{n - 1}",), status=Status.PRUNED))
        thoughts.append(Thought(f"t{n}", "step", "ask", (f"t{n - 1}",)))
    picture = drawn(thoughts)
    assert all(line(picture, f"t{n}").startswith("✓") for n in range(30))
    assert all(line(picture, f"x{n}").startswith("├─ ✗") for n in range(1, 30))


def test_attempts_and_losers_are_dim():
    again = Verdict(
        Action.RESAMPLE, (Crossing(0, "deceit", "peak", 0.5, 0.2, Action.RESAMPLE, 0, 1),)
    )
    thoughts = [
        Thought("a", "task", "task"),
        Thought("b", "try", "generate", ("a",), status=Status.PRUNED, judgement=again, reason="r"),
        Thought("c", "try", "generate", ("a",), attempt=1, text="won"),
        Thought("d", "try", "generate", ("a",), status=Status.DROPPED, text="lost"),
    ]
    console = Console(file=io.StringIO(), width=100, force_terminal=True, color_system="standard")
    console.print(render_tree(thoughts))
    rows = {row.split("  ")[-1][:1]: row for row in console.file.getvalue().splitlines()}
    dim, green = "\x1b[2m", "\x1b[32m"
    assert f"{dim}↺ try" in rows["b"]
    assert f"{dim}· try" in rows["d"]
    assert f"{dim}  lost" in rows["d"]
    assert f"{green}✓ try" in rows["c"]


def test_no_line_is_wider_than_the_terminal_and_each_keeps_its_id(told):
    with AuditLog(told.url) as audit:
        thoughts = audit.thoughts(told.first)
    for width in (60, 80, 120):
        console = Console(file=io.StringIO(), width=width)
        console.print(render_tree(thoughts))
        rows = console.file.getvalue().splitlines()
        assert max(map(cell_len, rows)) <= width
        assert len(rows) == 1 + len(thoughts)
        assert all(row.rstrip().endswith(row.split()[-1]) for row in rows[1:])
        assert {row.split()[-1] for row in rows[1:]} == {thought.id for thought in thoughts}


def test_what_a_model_wrote_cannot_command_the_terminal():
    picture = drawn([Thought("a", "say", "generate", text="\x1b[2J\x1b]0;title\x07 cleared")])
    assert "\x1b" not in picture
    assert r"\u001b[2J" in picture
