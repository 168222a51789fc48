"""``sort``: the sorting plan of the Graph of Thoughts paper (Besta et al. 2024, section 5.1).

The list is split into parts; each part is sorted several times and the best attempt kept; the
parts are merged two by two, again with the best of several attempts; what is still wrong is
refined, and the better of the two goes on. Scores are errors against the thought's own parents.
:mod:`.paper` has the paper's other plans for the same task.
"""

import re
from collections.abc import Sequence
from math import ceil
from typing import Any

from ..plans.composition import Plan
from ..plans.words import aggregate, each, generate, keep_best, pairwise, refine, score, split
from ..prompt import Sampling
from ..spec import AgentSpec, ReadTask
from ..thought import Scene, Thought
from .digits import parse_digits, sorting_errors, spell

__all__ = [
    "LONGEST",
    "PART",
    "digits_of",
    "errors",
    "fix_prompt",
    "given",
    "is_right",
    "parts",
    "read_list",
    "sort",
    "sort_prompt",
    "spell_list",
    "task_errors",
]

PART = 16
"""Most digits in one part: lists of this length the shipped model sorts almost without error."""
LONGEST = 128
"""Most digits in a task: the model learnt to sort that many, and to merge 64 with 64."""


def read_list(text: str) -> ReadTask:
    """Read the user's list: ``[3, 1, 2]``, ``3 1 2``, ``3,1,2`` or ``312``.

    Raises ``ValueError`` for anything but digits 0 to 9, and for too few or too many.
    """
    digits = parse_digits(text)
    numbers = re.findall(r"\d+", text)
    long = next((number for number in numbers if len(number) > 1), None)
    if long is not None and len(numbers) > 1:
        raise ValueError(
            f"{long} is no digit; sort takes digits from 0 to 9, written like [3, 1, 2] or 312"
        )
    if not digits:
        raise ValueError("there are no digits to sort; write them like [3, 1, 2] or 312")
    if len(digits) > LONGEST:
        raise ValueError(f"sort takes up to {LONGEST} digits, and these are {len(digits)}")
    return ReadTask({"digits": list(digits)})


def digits_of(text: str) -> list[int]:
    """The list in a model's answer. Raises ``ValueError`` where there is none."""
    digits = list(parse_digits(text))
    if not digits:
        raise ValueError("the answer holds no digits")
    return digits


def parts(scene: Scene) -> Sequence[tuple[str, Any]]:
    """The task's list in as few parts of at most 16 digits as will do, about equally long."""
    digits: list[int] = scene.value["digits"]
    size = ceil(len(digits) / ceil(len(digits) / PART))
    cuts = [digits[start : start + size] for start in range(0, len(digits), size)]
    return [(spell(part), part) for part in cuts]


def given(scene: Scene, thought: Thought) -> tuple[list[int], ...]:
    """The list (or the two of a merge) that a thought was to sort."""
    parents = scene.parents_of(thought)
    if thought.kind == "refine":
        return given(scene, parents[0])
    return tuple(_digits(parent) for parent in parents)


def _digits(thought: Thought) -> list[int]:
    return thought.value["digits"] if thought.kind == "task" else thought.value


def errors(scene: Scene) -> float:
    """Wrong counts and inversions of a thought against what it was made of; 0 is right."""
    digits = [digit for part in given(scene, scene.parents[0]) for digit in part]
    return sorting_errors(digits, scene.value)


def task_errors(scene: Scene) -> float:
    """The same against the task's own list."""
    return sorting_errors(scene.lineage[0].value["digits"], scene.value)


def spell_list(scene: Scene) -> str:
    """The result in words: ``[0, 1, 2]``."""
    return str(scene.value)


def sort_prompt(scene: Scene) -> str:
    """``sort 3120``: the parent's list."""
    return f"sort {spell(_digits(scene.parents[0]))}\n"


def fix_prompt(scene: Scene) -> str:
    """``fix 3120 0113``: what the parent was to sort, then the parent itself, to be mended."""
    lists = given(scene, scene.parents[0])
    return " ".join(["fix", *map(spell, lists), spell(scene.value)]) + "\n"


def _merge_prompt(scene: Scene) -> str:
    return " ".join(["merge", *(spell(part.value) for part in scene.parents)]) + "\n"


def is_right(scene: Scene) -> bool:
    """Whether the parent has no error."""
    return errors(scene) == 0


def _best_of(attempts: Plan) -> Plan:
    """The best attempt; where it has errors, the better of it and two tries to mend it."""
    mended = refine(fix_prompt, unless=is_right, n=2, parse=digits_of, name="fix")
    return (
        attempts
        >> score(errors)
        >> keep_best(1, lowest=True)
        >> (score(errors) & (mended >> score(errors)))
        >> keep_best(1, lowest=True)
    )


sort = AgentSpec(
    name="sort",
    plan=split(parts, name="split")
    >> each(_best_of(generate(sort_prompt, n=3, spare=2, parse=digits_of, name="sort")))
    >> pairwise(_best_of(aggregate(_merge_prompt, n=3, spare=2, parse=digits_of, name="merge")))
    >> score(task_errors),
    sampling=Sampling(temperature=0.7, max_tokens=160, stop=("\n",)),
    read=read_list,
    answer=spell_list,
)
"""Sorts a list of digits."""
