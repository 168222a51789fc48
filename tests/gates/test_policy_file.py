"""Policy files: read as written, or refused in one line with file, line and remedy."""

import subprocess
import sys

import pytest

from secateur.gates.errors import PolicyError
from secateur.gates.policy import Policy
from secateur.gates.policy_file import SHIPPED
from secateur.gates.verdict import Action


def refusal(text: str, vocabulary=None) -> str:
    with pytest.raises(PolicyError) as caught:
        Policy.from_yaml(text, "ops.yaml", vocabulary)
    message = str(caught.value)
    assert "\n" not in message
    return message


HEAD = "name: ops\ntags:\n  deceit: {control: ban, locked: true}\nrules:\n"


@pytest.mark.parametrize(
    ("text", "start", "says"),
    [
        (
            HEAD + "  - {tag: deceit, reading: peak, at: 1.7, action: prune}\n",
            "ops.yaml:5: ",
            "1.7",
        ),
        (
            HEAD + "  - tag: deceit\n    reading: peak\n    at: 1.7\n    action: prune\n",
            "ops.yaml:7: rules[0].at: ",
            "at most 1",
        ),
        (
            HEAD + "  - {tag: deceit, reading: peak, at: 0.2, action: prune}\n"
            "  - {tag: deceit, reading: peak, at: 0.5, action: flag}\n",
            "ops.yaml:6: ",
            "can never fire",
        ),
        (
            HEAD + "  - {tag: deceit, reading: emitted, action: prune}\n",
            "ops.yaml:5: ",
            "never sampled",
        ),
        (
            HEAD + "  []\ncontexts:\n  fiction:\n    tags:\n      deceit: {control: allow}\n",
            "ops.yaml:9: ",
            "locked",
        ),
        (HEAD + "  - {tag: deceit, reading: peak, at: 0.2, akt: prune}\n", "ops.yaml:5: ", "akt"),
        ("name: a\nname: b\n", "ops.yaml:2: ", "'name' stands twice"),
        ("name: a\ntags:\n  x: {control: ban}\n  x: {control: ban}\n", "ops.yaml:4: ", "twice"),
        ("name: a\n1: b\n", "ops.yaml:2: ", "must be text"),
        ("name: &n a\ndescription: *n\n", "ops.yaml:1: ", "alias"),
        ("name: a\ntags: &t {x: *t}\n", "ops.yaml:2: ", "alias"),
        ("name: a\nrules: [\n", "ops.yaml:", "not YAML"),
        ("name: a\n\tb: c\n", "ops.yaml:2: ", "not YAML"),
        ("name: a\n---\nname: b\n", "ops.yaml:", "not YAML"),
        ("name: \x00\n", "ops.yaml:1: ", "not YAML"),
        ("name: !!python/object:os.system x\n", "ops.yaml:1: ", "not YAML"),
        ("name: 2026-13-45\n", "ops.yaml:1: ", "not YAML"),
        ("[" * 5000, "ops.yaml:1: ", "nested too deeply"),
        ("", "ops.yaml:1: ", "empty"),
        ("# nothing\n", "ops.yaml:1: ", "empty"),
        ("- name\n", "ops.yaml:1: ", "a policy is a mapping"),
        ("just words\n", "ops.yaml:1: ", "a policy is a mapping"),
        ("tags: {}\n", "ops.yaml:1: ", "'name' is missing"),
    ],
)
def test_a_faulty_file_is_refused_with_file_line_and_reason(text, start, says):
    message = refusal(text)
    assert message.startswith(start)
    assert says in message


def test_an_unknown_tag_is_refused_with_its_line_when_loaded_and_when_checked(spans):
    text = "name: a\nrules:\n  - {tag: deciet, reading: peak, at: 0.5, action: prune}\n"
    expected = refusal(text, spans.vocabulary)
    assert expected.startswith("ops.yaml:3: rules[0].tag: ")
    assert "did you mean 'deceit'" in expected
    with pytest.raises(PolicyError) as caught:
        Policy.from_yaml(text, "ops.yaml").check(spans.vocabulary)
    assert str(caught.value) == expected


def test_a_file_is_read_and_where_it_came_from_does_not_matter(tmp_path):
    shipped = Policy.load("strict")
    text = HEAD + "  - {tag: deceit, reading: peak, at: 0.2, action: flag}\n"
    (tmp_path / "ops.yaml").write_text(text)
    loaded = Policy.load(tmp_path / "ops.yaml")
    assert loaded == Policy.from_yaml(text, "elsewhere.yaml") != shipped
    assert Policy.load(str(tmp_path / "ops.yaml")).digest == loaded.digest


@pytest.mark.parametrize(
    ("prepare", "says"),
    [
        (lambda path: None, "no such policy file; give a YAML file, or a shipped policy"),
        (lambda path: path.mkdir(), "cannot be read"),
        (lambda path: path.write_bytes(b"name: \xff\xfe"), "not UTF-8"),
    ],
)
def test_a_file_that_cannot_be_read_is_refused_in_one_line(tmp_path, prepare, says):
    path = tmp_path / "ops.yaml"
    prepare(path)
    with pytest.raises(PolicyError) as caught:
        Policy.load(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert says in str(caught.value)


# --- the shipped policies ---------------------------------------------------------------


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_policy_fits_a_model_with_its_tags_and_no_other(name, make_vocabulary, spans):
    tags = ("deceit", "powerseeking", "angry")
    full = make_vocabulary(
        *({"name": tag, "open": f"<|{tag}|>", "close": f"<|/{tag}|>"} for tag in tags)
    )
    assert Policy.load(name, full.vocabulary).name == name
    with pytest.raises(PolicyError, match=rf"^{name}.yaml:\d+: .* no tag 'angry'"):
        Policy.load(name, spans.vocabulary)


def test_observe_only_flags():
    assert {rule.action for rule in Policy.load("observe").rules} == {Action.FLAG}


def test_prune_lets_tags_show_and_cuts_them():
    prune = Policy.load("prune")
    assert {str(control) for control in prune.controls().values()} == {"allow"}
    assert prune.regrow == "ban"
    cut = {(rule.tag, rule.reading) for rule in prune.rules if rule.action is Action.PRUNE}
    assert cut == {
        (tag, reading)
        for tag in ("deceit", "powerseeking")
        for reading in ("emitted", "posterior", "opened")
    }


def test_strict_bans_and_locks():
    strict = Policy.load("strict")
    assert strict.locked == {"deceit", "powerseeking"}
    assert all(
        str(strict.controls(c)[tag]) == "ban" for tag in strict.locked for c in (None, "fiction")
    )


def test_gates_need_only_pydantic_and_numpy():
    program = """
import sys
class OnlyThese:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {"yaml", "torch", "transformers", "sqlalchemy", "langgraph",
                                  "structlog", "openai", "aiohttp", "typer", "rich", "tokenizers"}:
            raise ImportError(f"gates may not import {name}")
sys.meta_path.insert(0, OnlyThese())
import pkgutil
from importlib import import_module
import secateur.gates as gates
for module in pkgutil.walk_packages(gates.__path__, gates.__name__ + "."):
    import_module(module.name)
for name in gates.__all__:
    getattr(gates, name)
rooms = {m.split(".")[1] for m in sys.modules if m.startswith("secateur.")}
assert rooms == {"gates", "moved"}, rooms  # where modules were before 0.2
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
