"""The commands verify, checkpoint, erase and verifier: what they print, and how they end."""

import io
import json
import sys
from pathlib import Path

import pytest

from secateur.runtime.ledger.integrity import verifier


@pytest.fixture
def keys(monkeypatch, tmp_path):
    """The folder where a first checkpoint makes its key."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    return tmp_path / "config" / "secateur"


def test_verify_names_each_damaged_run_with_what_is_wrong(command, told):
    for run, change in ((told.first, "DELETE FROM event"), (told.second, "UPDATE event SET at=at")):
        told.change(f"{change} WHERE run_id = '{run}' AND seq = 2")
    told.change(f"UPDATE event SET actor = 'x' WHERE run_id = '{told.second}' AND seq = 1")
    code, out, _ = command("audit", "verify", "--db", told.url, "--json")
    answer = json.loads(out)
    assert (code, answer["ok"], answer["runs"]) == (1, False, 2)
    assert answer["first_bad"] == {
        "run": told.first,
        "seq": 2,
        "kind": "missing",
        "reason": "event 2 is missing",
    }
    assert [bad["kind"] for bad in answer["damages"]] == ["missing", "changed"]
    code, out, _ = command("audit", "verify", "--db", told.url)
    assert code == 1
    assert out.splitlines()[0] == f"damaged: run {told.first}: event 2 is missing"


def test_verify_says_how_many_events_of_how_many_runs_are_fine(command, told):
    ((one,), (all_,)) = told.ask(
        f"SELECT count(*) FROM event WHERE run_id = '{told.first}'"
    ) + told.ask("SELECT count(*) FROM event")
    for words, fine in (
        ((), f"fine: {all_} events of 2 runs are as they were written\n"),
        ((told.first,), f"fine: {one} events of 1 run are as they were written\n"),
    ):
        assert command("audit", "verify", *words, "--db", told.url)[:2] == (0, fine)


def test_a_checkpoint_makes_its_key_once_and_says_where(command, told, keys, tmp_path):
    made = command("audit", "checkpoint", "--db", told.url, "--out", "one.json")
    again = command("audit", "checkpoint", "--db", told.url, "--out", "two.json", "--heads")
    assert (made[0], again[0], again[2]) == (0, 0, "")
    assert made[1].startswith("checkpoint 1 of ")
    assert f"made a key at {keys / 'checkpoint.key'} (mode 600)" in made[2]
    assert (keys / "checkpoint.key").stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "one.json").stat().st_size < 1000
    assert "heads" in json.loads((tmp_path / "two.json").read_text())
    public = (keys / "checkpoint.key.pub").read_text().strip()
    for key in (public, keys / "checkpoint.key.pub"):
        words = ("audit", "verify", "--db", told.url, "--checkpoint", "one.json", "--key", key)
        code, out, _ = command(*words)
        assert code == 0
        assert f"is signed with {public} (the key that was asked for)" in out
    code, out, _ = command("audit", "verify", "--db", told.url, "--checkpoint", "one.json")
    assert "nobody asked for a key" in out
    _, out, _ = command("audit", "verify", "--db", told.url, "--checkpoint", "one.json", "--json")
    assert json.loads(out)["checkpoint"]["key"] == public


def test_checkpoints_are_listed_printed_and_proved(command, told, keys):
    assert "no checkpoints yet" in command("audit", "checkpoint", "--list", "--db", told.url)[1]
    code, out, err = command("audit", "checkpoint", "--prove", told.first, "--db", told.url)
    assert (code, out) == (1, "")
    assert "there is no checkpoint yet" in err
    _, out, _ = command("audit", "checkpoint", "--db", told.url)
    made = json.loads(out)
    assert made["body"]["runs"] == 2
    _, out, _ = command("audit", "checkpoint", "--number", 1, "--db", told.url)
    assert json.loads(out) == made
    _, out, _ = command("audit", "checkpoint", "--list", "--db", told.url, "--json")
    assert json.loads(out) == [made["body"] | {"signature": made["signature"]}]
    _, out, _ = command("audit", "checkpoint", "--list", "--db", told.url)
    assert out.startswith("1  ")
    _, out, _ = command("audit", "checkpoint", "--prove", told.second, "--db", told.url)
    assert json.loads(out)["head"][0] == told.second


def test_a_key_or_a_checkpoint_that_is_none_is_said_in_one_line(command, told, keys, tmp_path):
    (tmp_path / "nothing").write_text("{}")
    for words in (
        ("verify", "--checkpoint", "none.json"),
        ("verify", "--checkpoint", "nothing"),
        ("verify", "--key", "nothing"),
        ("checkpoint", "--key", "nothing"),
    ):
        code, out, err = command("audit", *words, "--db", told.url)
        assert (code, out) == (1, "")
        assert len(err.splitlines()) == 1
    assert command("audit", "checkpoint", "--out", "no/where.json", "--db", told.url)[0] == 2


def test_the_verifier_that_is_printed_verifies(command, told, keys, tmp_path):
    _, program, _ = command("audit", "verifier")
    assert program == Path(verifier.__file__).read_text()
    command("audit", "checkpoint", "--db", told.url, "--outside", "--out", "mine.json")
    command("audit", "export", "--all", "--complete", "--db", told.url, "--out", "all.jsonl")
    for words in ([], ["--checkpoint", str(tmp_path / "mine.json")]):
        assert verifier.main([str(tmp_path / "all.jsonl"), *words]) == 0
    told.change(f"DELETE FROM event WHERE run_id = '{told.second}' AND seq = 3")
    command("audit", "export", "--all", "--complete", "--db", told.url, "--out", "cut.jsonl")
    assert verifier.main([str(tmp_path / "cut.jsonl")]) == 0
    assert verifier.main([str(tmp_path / "cut.jsonl"), *words]) == 1


ERASE = ("--by", "ann", "--reason", "asked for", "--db")


@pytest.mark.parametrize(("answer", "erased"), [("n\n", False), ("", False), ("y\n", True)])
def test_erase_asks_before_it_acts(command, told, monkeypatch, answer, erased):
    monkeypatch.setattr(sys, "stdin", io.StringIO(answer))
    code, out, err = command("audit", "erase", told.first, *ERASE, told.url)
    assert f"run {told.first}: " in err
    assert "1 reason" in err
    assert "7 text" in err
    assert code == int(not erased)
    assert ("erased 23 blobs" in out) is erased
    assert ("nothing was erased" in err) is not erased
    ((count,),) = told.ask("SELECT count(*) FROM event WHERE kind = 'erased'")
    assert count == int(erased)


def test_erase_takes_what_it_is_told_and_says_what_it_did(command, told):
    words = ("audit", "erase", "b1", *ERASE, told.url, "--yes")
    code, out, err = command(*words, "--what", "text, prompt", "--json")
    assert (code, json.loads(out)["blobs"]) == (0, 3)
    assert json.loads(out)["swept"]["complete"]
    assert "the run is not finished: if it still goes, it stops" in err
    code, out, _ = command(*words, "--run", told.first)
    assert (code, out.splitlines()[0]) == (0, "erased 2 blobs of 1 run")
    code, out, _ = command(*words, "--run", told.first, "--no-sweep")
    assert (code, out) == (0, "nothing is left to erase\n")
    assert command("audit", "verify", "--db", told.url)[0] == 0
    assert command("audit", "why", "b1", "--run", told.first, "--db", told.url)[0] == 0
    code, _, err = command(*words, "--what", "everything")
    assert code == 1
    assert "'everything' is nothing that can be erased" in err
    assert command("audit", "erase", "b1", "--yes", "--db", told.url)[0] == 2  # by whom, and why?


def test_a_bar_is_drawn_only_where_somebody_watches(command, told, monkeypatch):
    assert command("audit", "verify", "--db", told.url)[2] == ""
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(type(sys.stderr), "isatty", lambda _: True)
    code, _, err = command("audit", "verify", "--db", told.url)
    assert code == 0
    assert "of 22 events" in err
