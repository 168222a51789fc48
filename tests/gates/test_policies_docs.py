"""docs/policies.md names everything that a policy can say, and its examples are real."""

import re
from pathlib import Path

import pytest

from secateur.gates.calibration import Calibration
from secateur.gates.policy import Policy
from secateur.gates.policy_file import SHIPPED
from secateur.gates.reading import READABLE, Reading
from secateur.gates.readings import ALLOWANCE
from secateur.gates.rule import ContextOverride, Rule, TagSetting
from secateur.gates.verdict import Action

DOCS = (Path(__file__).parents[2] / "docs" / "policies.md").read_text("utf-8")
MODELS = (Policy, Rule, TagSetting, ContextOverride, Calibration)


@pytest.mark.parametrize(
    "word",
    [
        *Reading,
        *Action,
        *READABLE,
        *SHIPPED,
        *("allow", "ban", "penalise(NATS)", "boost(NATS)", "force"),
        *sorted({key for model in MODELS for key in model.model_fields}),
        *("scope: thought", "scope: action", "none", "halt"),
    ],
)
def test_every_word_of_a_policy_is_explained(word):
    assert f"`{word}" in DOCS


def test_the_example_loads():
    example = re.search(r"```yaml\n(.*?)```", DOCS, re.S)
    assert example is not None
    assert Policy.from_yaml(example[1]).locked == {"deceit", "powerseeking"}


def test_the_allowance_of_cusum_is_the_documented_one():
    assert f"p_t - {ALLOWANCE}" in DOCS


def test_each_scheme_lists_what_can_be_read_from_it():
    for scheme, readings in READABLE.items():
        row = re.search(rf"^\| `{scheme}` \|.*\| (.*) \|$", DOCS, re.M)
        assert row is not None
        named = set(re.findall(r"`(\w+)`", row[1]))
        listed = set(Reading) - named if row[1].startswith("all") else named
        assert listed == readings
