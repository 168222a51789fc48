"""A plan is the same plan wherever its code stands, and another one where it does other things."""

import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

from secateur.agents.loading import load_agent
from secateur.runtime.recovery.fingerprint import changed, fingerprint

PLAN = """
from secateur import Agent, generate, keep_best, score
{helper}
{imports}
def errors(scene):
    {comment}
    return len(scene.text) - {number}

def count(scene, *, unit={unit}):
    return scene.text.count(unit)

agent = Agent("mine", plan=generate("say {{task}}\\n", n=3) >> score(errors) >> score(count)
              >> score(lambda scene: {lambda_}, name="last") >> keep_best(1))
"""
USUAL = {
    "helper": "",
    "imports": "",
    "comment": '"""How far."""',
    "number": 3,
    "unit": "'a'",
    "lambda_": "len(scene.text)",
}


def planned(folder: Path, name: str = "mine", **given: Any) -> dict[str, Any]:
    path = folder / f"{name}.py"
    path.write_text(textwrap.dedent(PLAN.format(**(USUAL | given))))
    return fingerprint(load_agent(f"{path}:agent"))


@pytest.mark.parametrize(
    "given",
    [
        {"name": "elsewhere"},
        {"comment": "# another remark"},
        {"comment": ""},
        {"helper": "import math\n\n\ndef other(x):\n    return x\n"},
        {"lambda_": "(len(\n    scene.text\n))"},
    ],
    ids=str,
)
def test_names_of_files_comments_and_layout_change_no_plan(tmp_path: Path, given: dict[str, Any]):
    assert changed(planned(tmp_path), planned(tmp_path, **given)) is None


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"number": 4}, "step 2 was 'score errors' and is another one"),
        ({"unit": "'b'"}, "step 3 was 'score count' and is another one"),
        ({"lambda_": "-len(scene.text)"}, "step 4 was 'last' and is another one"),
    ],
    ids=str,
)
def test_what_a_function_does_is_part_of_the_plan(tmp_path: Path, given: Any, says: str):
    assert changed(planned(tmp_path), planned(tmp_path, **given)) == says


def test_two_lambdas_on_one_line_are_two_functions(tmp_path: Path):
    both = "sorted([1, 2], key=lambda n: {0}) and sorted([1, 2], key=lambda n: {1}) and 1"
    one = planned(tmp_path, lambda_=both.format("n", "-n"))
    assert changed(one, planned(tmp_path, lambda_=both.format("-n", "n"))) is not None


def test_a_plan_of_0_1_is_compared_by_the_names_of_its_steps(tmp_path: Path):
    now = planned(tmp_path)
    before = [[name, "0" * 16] for name, _ in now["steps"]]
    assert changed(before, now) is None
    assert (
        changed([["other", "0" * 16], *before[1:]], now) == "step 1 was 'other' and is 'generate'"
    )
    assert changed(before[1:], now) is not None
    assert changed(before[:-2] + before[-1:], now) is not None


@pytest.mark.parametrize("name", ["sort", "opsdesk", "intersect"])
def test_a_fingerprint_is_the_same_in_every_process(name: str):
    script = (
        "import json; from secateur.runtime.recovery.fingerprint import fingerprint; "
        "from secateur.agents.loading import load_agent; "
        f"print(json.dumps(fingerprint(load_agent({name!r}))))"
    )
    said = {
        subprocess.run(
            [sys.executable, "-c", script], capture_output=True, text=True, check=True
        ).stdout
        for _ in range(2)
    }
    assert len(said) == 1


def test_code_without_source_counts_by_its_bytecode(tmp_path: Path):
    def made(number: int) -> dict[str, Any]:
        names: dict[str, Any] = {}
        exec(PLAN.format(**(USUAL | {"number": number})), names)
        return fingerprint(names["agent"])

    assert changed(made(3), made(3)) is None
    assert changed(made(3), made(4)) == "step 2 was 'score errors' and is another one"
