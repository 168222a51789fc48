"""The picture of a run: kept, cut and for what, merges under their first parent."""

import io

from rich.console import Console

from secateur.agents.thought import Status, Thought
from secateur.gates.verdict import Action, Broken, Crossing, Verdict
from secateur.runtime.cli.tree import render_tree, tree_svg
from secateur.runtime.ledger.audit import AuditLog


def drawn(thoughts, **options) -> str:
    console = Console(file=io.StringIO(), width=160)
    console.print(render_tree(thoughts, **options))
    return console.file.getvalue()


def line(picture: str, id: str) -> str:
    (found,) = [line for line in picture.splitlines() if line.rstrip().endswith(id)]
    return found


def test_a_run_of_the_ledger_shows_what_became_of_each_thought(told):
    with AuditLog(told.path) as audit:
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


def test_a_merge_stands_under_its_first_parent_and_names_the_others():
    thoughts = [
        Thought("a", "task", "task"),
        Thought("b", "part", "split", ("a",)),
        Thought("c", "part", "split", ("a",)),
        Thought("d", "merge", "aggregate", ("b", "c")),
    ]
    picture = drawn(thoughts)
    assert "+ from c" in line(picture, "d")
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


def test_the_svg_stands_alone(told):
    with AuditLog(told.path) as audit:
        svg = tree_svg(audit.thoughts(told.first), "opsdesk")
    assert svg.startswith("<svg")
    assert "deceit" in svg
    assert "url(https" not in svg
    assert "url('http" not in svg
    assert 'url("http' not in svg
    with AuditLog(told.path) as audit:
        assert tree_svg(audit.thoughts(told.first), "opsdesk") == svg
