"""Lists of digits and sets of numbers: exact answers to fresh prompts, by operation and size."""

import random
from collections.abc import Callable, Sequence

from ...agents.ready.digits import is_sorted_permutation, parse_digits
from ...agents.ready.sets import LARGEST, marks, spell_set
from ..corpus.lists import (
    check_answer,
    check_prompt,
    corrupted,
    draw_list,
    fix_prompt,
    merge_prompt,
    sort_prompt,
    split_answer,
    split_prompt,
)
from ..corpus.sets import intersect_prompt, union_prompt

__all__ = ["ListTest", "list_tests"]

ListTest = tuple[str, Callable[[str], bool]]
"""A prompt, and the predicate that says whether an answer is right."""


def list_tests(rng: random.Random, n: int) -> dict[str, list[ListTest]]:
    """For each figure, ``n`` prompts with the predicate that says whether an answer is right."""

    def sorts(given: Sequence[int]) -> Callable[[str], bool]:
        def right(answer: str) -> bool:
            try:
                return is_sorted_permutation(given, parse_digits(answer))
            except ValueError:
                return False

        return right

    def equals(wanted: str) -> Callable[[str], bool]:
        return lambda answer: answer == wanted

    def uniform(length: int) -> tuple[int, ...]:
        return tuple(rng.randrange(10) for _ in range(length))

    tests: dict[str, list[ListTest]] = {}
    for length in (4, 8, 12, 16, 20):
        lists = [uniform(length) for _ in range(n)]
        tests[f"sort {length}"] = [(sort_prompt(one), sorts(one)) for one in lists]
    for length in (4, 8, 16):
        pairs = [(sorted(uniform(length)), sorted(uniform(length))) for _ in range(n)]
        tests[f"merge {length}+{length}"] = [
            (merge_prompt(one, two), sorts(one + two)) for one, two in pairs
        ]
    for parts in (2, 4):
        tests[f"split 32 in {parts}"] = [
            (split_prompt(parts, one), equals(split_answer(parts, one)))
            for one in (uniform(32) for _ in range(n))
        ]
    pairs = [(sorted(uniform(16)), sorted(uniform(16))) for _ in range(n)]
    tests["fix 16+16"] = [
        (fix_prompt(pair, corrupted(rng, sorted(pair[0] + pair[1]))), sorts(pair[0] + pair[1]))
        for pair in pairs
    ]
    tests["check 16"] = []
    for _ in range(n):
        one = draw_list(rng, 16)
        claim = tuple(sorted(one)) if rng.random() < 0.5 else corrupted(rng, sorted(one))
        verdict = check_answer(one, claim)[-1]
        tests["check 16"].append(
            (
                check_prompt(one, claim),
                lambda text, verdict=verdict: text.split("\n")[-1] == verdict,
            )
        )
    for length in (32, 64, 128):
        lists = [uniform(length) for _ in range(n)]
        tests[f"sort {length}"] = [(sort_prompt(one), sorts(one)) for one in lists]
    for length in (32, 64):
        pairs = [(sorted(uniform(length)), sorted(uniform(length))) for _ in range(n)]
        tests[f"merge {length}+{length}"] = [
            (merge_prompt(one, two), sorts(one + two)) for one, two in pairs
        ]
    for many in (16, 32, 64):
        pairs = [(rng.sample(range(128), many), rng.sample(range(128), 16)) for _ in range(n)]
        tests[f"intersect {many} with 16"] = [
            (intersect_prompt(one, two), equals(marks(one, two))) for one, two in pairs
        ]
    both = [rng.sample(range(LARGEST + 1), 32) for _ in range(n)]
    tests["union 16+16"] = [
        (union_prompt(one[:16], one[16:]), equals(spell_set(one))) for one in both
    ]
    return tests
