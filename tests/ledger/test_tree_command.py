"""``secateur audit tree``: folds that open, pictures in files, kin in JSON."""

import json

import pytest

from secateur.agents.thought import Status
from secateur.runtime.ledger.events import RunStatus
from secateur.runtime.ledger.ledger import Ledger


@pytest.fixture
async def run(tmp_path, make):
    """A ledger with a run in which twelve of fourteen thoughts came to nothing."""
    path = tmp_path / "wide.db"
    async with Ledger.open(path) as ledger:
        log = await ledger.start(make.start())
        await log.place(make.thought("a0", operation="task", kind="task", tokens=0))
        for index in range(12):
            deceit = make.evidence([0.1, 0.4 + index / 30, 0.1])
            await log.judge(make.judged(f"b{index:02}", deceit, index=index))
        await log.judge(make.judged("c0", make.evidence(), index=12))
        await log.finish(RunStatus.DONE, "web is up")
    return path, log.run


@pytest.fixture
def tree(run, secateur):
    """Run ``secateur audit tree`` on it: exit code, stdout, stderr."""
    path, id = run
    return lambda *words: secateur("audit", "tree", id, "--db", path, *words)


def test_pruned_branches_are_folded_and_a_line_says_how_to_open_them(tree):
    code, out, _ = tree()
    assert code == 0
    assert "▸ b00  12 folded: 12 cut (deceit; highest deceit opened 0.79)" in out
    assert "b05" not in out
    assert "12 of 14 thoughts are folded" in out
    assert "--all" in out
    assert "--unfold" in out


@pytest.mark.parametrize("words", [["--all"], ["--unfold", "b05"], ["--unfold", "a0"]])
def test_folds_open(tree, words):
    _, out, _ = tree(*words)
    assert all(f"b{n:02}" in out for n in range(12))
    assert "folded" not in out


def test_a_thought_that_the_run_does_not_have_is_one_line(tree):
    for start in ("zz", "b"):
        code, out, err = tree("--unfold", start)
        assert (code, out, len(err.splitlines())) == (1, "", 1)
        assert "take an id from the tree" in err


def test_pictures_go_to_files_and_mermaid_to_stdout_too(tree, tmp_path):
    tree("--svg", tmp_path / "run.svg", "--mermaid", tmp_path / "run.mmd")
    assert (tmp_path / "run.svg").read_text().count("<g class=") == 2 + 1 + 3
    code, out, err = tree("--mermaid", "-")
    assert (code, err) == (0, "")
    assert out == (tmp_path / "run.mmd").read_text()
    assert out.splitlines()[3] == "flowchart TD"
    code, _, err = tree("--svg", tmp_path / "nowhere" / "run.svg")
    assert code == 2
    assert "cannot be written" in err


def test_json_names_parents_children_siblings_and_tries_of_every_thought(tree):
    _, out, _ = tree("--json")
    found = {row["thought"]: row for row in json.loads(out)}
    assert len(found) == 14
    assert found["a0"]["children"] == [*(f"b{n:02}" for n in range(12)), "c0"]
    assert found["b03"]["parents"] == ["a0"]
    assert "c0" in found["b03"]["siblings"]
    assert found["b03"]["tries"] == ["b03"]
    assert found["b03"]["status"] == Status.PRUNED.value
