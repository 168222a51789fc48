"""``intersect``: the set intersection of the Graph of Thoughts paper (Besta et al. 2024, section
5.2).

The shorter set is cut into parts; each part is looked up in the other set several times and the
best answer kept; what is still wrong is mended; the parts' answers, which share nothing, are joined
two by two. Scores are errors against the thought's own parents. :mod:`.paper` has the paper's other
plans for the same task.
"""

from collections.abc import Sequence
from math import ceil
from typing import Any

from ..plans.composition import Plan
from ..plans.words import (
    aggregate,
    each,
    generate,
    keep_best,
    keep_valid,
    operation,
    pairwise,
    refine,
    repeat,
    score,
    split,
)
from ..prompt import Sampling
from ..spec import AgentSpec, ReadTask
from ..thought import Scene, Thought
from .sets import LARGEST, parse_marks, parse_sets, parse_union, set_errors, spell_set

__all__ = [
    "LONGEST",
    "PART",
    "errors",
    "intersect",
    "intersect_prompt",
    "mended",
    "parts",
    "read_sets",
    "recheck",
    "search",
    "spell_result",
    "task_errors",
]

PART = 16
"""Most numbers in one part."""
LONGEST = 64
"""Most numbers in a set: the model learnt sets of up to 64."""


def read_sets(text: str) -> ReadTask:
    """Read the user's two sets: ``[3, 27, 5] [27, 8]``, ``{3, 27} & {27, 5}``.

    Raises ``ValueError`` for anything else, and for more than 64 numbers in a set.
    """
    left, right = parse_sets(text)
    for numbers in (left, right):
        if len(numbers) > LONGEST:
            raise ValueError(
                f"intersect takes sets of up to {LONGEST} numbers from 0 to {LARGEST}, and this "
                f"one has {len(numbers)}"
            )
    # The longer set is searched for the numbers of the shorter one.
    left, right = sorted((left, right), key=len, reverse=True)
    return ReadTask({"left": left, "right": right})


def parts(scene: Scene) -> Sequence[tuple[str, Any]]:
    """The longer set with each part of the other, in as few parts of at most 16 numbers as will
    do, about equally long."""
    left, right = scene.value["left"], scene.value["right"]
    size = ceil(len(right) / ceil(len(right) / PART))
    cuts = [right[start : start + size] for start in range(0, len(right), size)]
    return [
        (spell_set(cut), {"left": left, "right": cut, "first": place == 0})
        for place, cut in enumerate(cuts)
    ]


def _asked(scene: Scene, thought: Thought) -> dict[str, Any]:
    """The two sets that a thought is an answer to."""
    while "right" not in (thought.value if isinstance(thought.value, dict) else ()):
        (thought,) = scene.parents_of(thought)
    return thought.value


def _wanted(scene: Scene, thought: Thought) -> list[int]:
    """What a thought should hold, by its own parents."""
    if thought.kind == "aggregate":
        return [number for parent in scene.parents_of(thought) for number in parent.value]
    sets = _asked(scene, thought)
    there = set(sets["left"])
    return [number for number in sets["right"] if number in there]


def errors(scene: Scene) -> float:
    """Numbers that a thought misses or has too many, by what it was made of; 0 is right."""
    thought = scene.parents[0]
    return set_errors(_wanted(scene, thought), thought.value)


def task_errors(scene: Scene) -> float:
    """The same against the task's own sets."""
    sets = scene.lineage[0].value
    return set_errors(sorted({*sets["left"]} & {*sets["right"]}), scene.value)


def spell_result(scene: Scene) -> str:
    """The result in words, in order: ``[3, 27]``."""
    return str(sorted(scene.value))


def intersect_prompt(scene: Scene) -> str:
    """``intersect A3C7 C7B1``: which of the second set's numbers has the first?"""
    return f"intersect {spell_set(scene.value['left'])} {spell_set(scene.value['right'])}\n"


def _recheck_prompt(scene: Scene) -> str:
    """The same question about the numbers that the parent found: wrong ones shall go."""
    left = _asked(scene, scene.parents[0])["left"]
    return f"intersect {spell_set(left)} {spell_set(scene.value)}\n"


def _search_prompt(scene: Scene) -> str:
    """The same question about the numbers that the parent left out: missed ones shall come."""
    left = _asked(scene, scene.parents[0])["left"]
    return f"intersect {spell_set(left)} {spell_set(_left_out(scene))}\n"


def _left_out(scene: Scene) -> list[int]:
    right = _asked(scene, scene.parents[0])["right"]
    return [number for number in right if number not in scene.value]


def _with_parent(scene: Scene) -> tuple[str, list[int]]:
    """What a search found, together with what was known before."""
    found = scene.parents[0]
    if found.operation != "search":  # nothing was left to search
        return found.text, found.value
    (before,) = scene.parents_of(found)
    both = [*before.value, *found.value]
    return spell_set(both), both


def recheck(n: int = 1) -> Plan:
    """Ask again about the numbers that were found."""
    return refine(
        _recheck_prompt,
        unless=lambda scene: not scene.value,
        n=n,
        parse=parse_marks,
        name="recheck",
    )


def search(n: int = 1) -> Plan:
    """Ask again about the numbers that were left out, and add what is found."""
    asked = refine(
        _search_prompt,
        unless=lambda scene: not _left_out(scene),
        n=n,
        parse=parse_marks,
        name="search",
    )
    return asked >> operation(_with_parent, name="with what was found")


def mended(n: int, rounds: int) -> Plan:
    """The thought, or a better one: checked again and searched again, n times a round."""
    again = (
        score(errors) & (recheck(n) >> score(errors)) & (search(n) >> score(errors))
    ) >> keep_best(1, lowest=True)
    return repeat(again, until=lambda thought: thought.score == 0, at_most=rounds)


def _shares(scene: Scene) -> bool:
    """Whether there is something to join; the first part stays, lest nothing be left."""
    return bool(scene.value) or _asked(scene, scene.parents[0])["first"]


def _union_prompt(scene: Scene) -> str:
    left, right = (spell_set(part.value) or "-" for part in scene.parents)
    return f"union {left} {right}\n"


def _best_of(attempts: Plan) -> Plan:
    return attempts >> score(errors) >> keep_best(1, lowest=True)


intersect = AgentSpec(
    name="intersect",
    plan=split(parts, name="split")
    >> each(
        _best_of(generate(intersect_prompt, n=3, spare=2, parse=parse_marks, name="intersect"))
        >> mended(1, rounds=2)
        >> keep_valid(_shares, name="something to join")
    )
    >> pairwise(_best_of(aggregate(_union_prompt, n=3, spare=2, parse=parse_union, name="union")))
    >> score(task_errors),
    sampling=Sampling(temperature=0.7, max_tokens=200, stop=("\n",)),
    read=read_sets,
    answer=spell_result,
)
"""Finds the numbers that two sets share."""
