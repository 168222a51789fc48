"""The command line's contracts: JSON that scripts rely on, exit codes, errors in one line."""

import json
import sys

import pytest

from secateur.runtime.settings import Settings, SettingsError


def test_pruned_gives_the_objects_that_scripts_rely_on(command, told):
    code, out, _ = command("audit", "pruned", "--db", told.url, "--tag", "deceit", "--json")
    assert code == 0
    newest, oldest = json.loads(out)
    keys = ("run", "thought", "agent", "tag", "reading", "score", "threshold", "action", "at")
    assert {*keys, "text"} <= set(newest)
    assert (oldest["thought"], oldest["tag"], oldest["threshold"]) == ("b1", "deceit", 0.3)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--since", "7d"], 3),
        (["--since", "2020-01-01"], 3),
        (["--since", "2999-01-01T00:00:00+02:00"], 0),
        (["--min", "0.7"], 1),
        (["--agent", "writer"], 1),
        (["--limit", "2"], 2),
    ],
)
def test_pruned_takes_filters(command, told, words, expected):
    _, out, _ = command("audit", "pruned", "--db", told.url, "--json", *words)
    assert len(json.loads(out)) == expected


def test_a_tag_that_no_run_has_is_no_empty_answer(command, told):
    code, out, err = command("audit", "pruned", "--db", told.url, "--tag", "deciet")
    assert (code, out) == (1, "")
    assert "did you mean 'deceit'? there are angry, deceit, powerseeking" in err
    assert len(err.splitlines()) == 1
    code, out, _ = command("audit", "pruned", "--db", told.url, "--tag", "angry", "--json")
    assert (code, json.loads(out)) == (0, [])


def test_a_reading_below_zero_is_wrong_usage(command, told):
    assert command("audit", "pruned", "--db", told.url, "--min", "-1")[0] == 2


def test_a_time_that_is_none_is_wrong_usage(command, told):
    code, _, err = command("audit", "pruned", "--db", told.url, "--since", "yesteryear")
    assert code == 2
    assert "write 30m, 12h, 7d, 2w, a day such as 2026-05-01" in err


def test_verify_says_ok_or_names_the_first_bad_event(command, told):
    code, out, _ = command("audit", "verify", "--db", told.url, "--json")
    assert (code, json.loads(out)) == (0, {"ok": True, "events": 22, "runs": 2})
    told.change(f"UPDATE event SET body = '{{}}' WHERE run_id = '{told.first}' AND seq = 3")
    code, out, _ = command("audit", "verify", "--db", told.url, "--json")
    answer = json.loads(out)
    assert (code, answer["ok"]) == (1, False)
    assert (answer["first_bad"]["run"], answer["first_bad"]["seq"]) == (told.first, 3)
    code, out, _ = command("audit", "verify", told.first, "--db", told.url)
    assert code == 1
    assert "event 3 was changed" in out


def test_why_answers_in_words_and_in_json(command, told):
    code, out, _ = command("audit", "why", "b1", "--db", told.url)
    assert code == 0
    for word in ("CUT", "deceit opened", "restarted", "would have passed with", "test"):
        assert word in out
    _, out, _ = command("audit", "why", "b1", "--db", told.url, "--json")
    found = json.loads(out)
    assert (found["run"], found["tag"], found["rule"]["at"]) == (told.first, "deceit", 0.3)
    assert found["tokens"][1]["text"] == " restarted"
    assert found["passes_if"][0]["score"] > 0.3


def test_every_question_answers_in_words_and_in_json(command, told):
    for words in (
        ["audit", "runs"],
        ["audit", "show", told.first],
        ["audit", "tree", told.first],
        ["audit", "pruned"],
        ["audit", "why", "b4"],
        ["audit", "why", "b2"],
        ["audit", "why", "a0"],
        ["audit", "replay", told.first],
        ["db", "current"],
        ["db", "upgrade"],
        ["db", "rebuild"],
    ):
        code, out, err = command(*words, "--db", told.url)
        assert (code, err) == (0, ""), words
        assert out.strip(), words
        code, out, err = command(*words, "--db", told.url, "--json")
        said = "5 verdicts made again, 0 turn: 0 stricter, 0 looser\n" if "replay" in words else ""
        assert (code, err) == (0, said), words
        json.loads(out, parse_constant=lambda word: pytest.fail(f"{word} is no JSON"))


def test_replay_with_a_policy_lists_what_turns(command, told, tmp_path):
    lax = tmp_path / "lax.yaml"
    lax.write_text(
        "name: lax\nrules:\n  - {tag: deceit, reading: opened, at: 0.99, action: flag}\n"
    )
    words = ("audit", "replay", told.first, "--policy", lax, "--db", told.url)
    _, out, _ = command(*words, "--json")
    turned = {row["thought"]: row["after"]["action"] for row in json.loads(out)}
    assert turned["b1"] == "allow"
    _, out, _ = command(*words)
    assert "prune" in out


def test_the_tree_can_be_kept_as_a_picture(command, told, tmp_path):
    command("audit", "tree", told.first, "--db", told.url, "--svg", tmp_path / "run.svg")
    assert (tmp_path / "run.svg").read_text().startswith("<svg")


@pytest.mark.parametrize("terminal", [False, True])
def test_no_table_loses_an_id_or_a_column(command, told, monkeypatch, terminal):
    monkeypatch.setenv("TERM", "dumb")  # 80 columns, no colours
    monkeypatch.setattr(type(sys.stdout), "isatty", lambda _: terminal)
    _, out, _ = command("audit", "runs", "--db", told.url)
    head, *rows = (line.split() for line in out.splitlines())
    assert head == [
        "run",
        "started",
        "agent",
        "policy",
        "status",
        "thoughts",
        "cut",
        "tokens",
        "task",
    ]
    assert {row[0] for row in rows} == {told.first, told.second}
    assert not terminal or all(len(line.rstrip()) <= 80 for line in out.splitlines())
    _, out, _ = command("audit", "pruned", "--db", told.url)
    head, *rows = (line.split() for line in out.splitlines())
    assert head == ["thought", "run", "agent", "at", "tag", "reading", "score", "from", "text"]
    assert {row[1] for row in rows} == {told.first, told.second}
    _, out, _ = command("audit", "show", told.first, "--db", told.url)
    ((hash,),) = told.ask("SELECT hash FROM event WHERE run_id = ? AND seq = 1", (told.first,))
    assert f"{hash[:12]}" in out
    assert told.first in out


@pytest.mark.parametrize(
    "words",
    [
        ["audit", "runs"],
        ["audit", "pruned"],
        ["audit", "why", "b1"],
        ["audit", "verify"],
        ["db", "current"],
        ["db", "upgrade"],
        ["db", "rebuild"],
    ],
)
def test_a_ledger_that_is_not_there_is_said_in_one_line_and_not_made(command, tmp_path, words):
    code, out, err = command(*words)
    assert (code, out) == (1, "")
    assert len(err.strip().splitlines()) == 1
    assert "there is no ledger at secateur.db" in err
    assert list(tmp_path.iterdir()) == []


def test_the_ledger_is_found_by_option_then_variable_then_file(
    command, told, monkeypatch, tmp_path
):
    def found() -> bool:
        return command("audit", "runs", "--json")[0] == 0

    (tmp_path / "secateur.toml").write_text(f'db = "{told.url}"\n')
    assert found()
    monkeypatch.setenv("SECATEUR_DB", str(tmp_path / "none.db"))
    assert not found()
    assert command("audit", "runs", "--db", told.url)[0] == 0
    monkeypatch.setenv("SECATEUR_DB", "")
    assert found()


@pytest.mark.parametrize("text", ["db = ", "dbb = 'x'", "db = 7", "db = ''"])
def test_settings_that_cannot_be_are_refused_in_one_line(text, tmp_path, monkeypatch, one_line):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "secateur.toml").write_text(text)
    with pytest.raises(SettingsError, match=r"secateur\.toml") as error:
        Settings()
    one_line(error.value)
