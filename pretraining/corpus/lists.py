"""Thought operations on lists of digits, as in the Graph of Thoughts paper.

Prompts spell lists without spaces. Sorted answers put a space where the digit changes::

    sort 3120                     0 1 2 3
    merge 0012 0113               000 111 2 3
    split 2 31204512              3120 4512
    copy 3120                     3120
    fix 3120 0113                 0 1 2 3           (the last list is a wrong answer to mend)
    fix 0012 0113 00112           000 111 2 3       (the same for a merge)
    check 3120 0113               order 013         (">" stands where the order falls)
                                  count 0,0= 1,11! 2,! 3,3=
                                  bad

``check`` writes its evidence before its verdict: for each digit its copies in the list, then in
the answer, then ``=`` or ``!``. A verdict without such a scratchpad stays at chance.
"""

import random
from collections.abc import Sequence
from typing import Literal, get_args

from ...agents.ready.digits import is_sorted_permutation, runs, spell
from .document import Document, Line

__all__ = [
    "OPERATIONS",
    "Operation",
    "check_answer",
    "check_prompt",
    "corrupted",
    "draw_list",
    "fix_prompt",
    "list_document",
    "merge_prompt",
    "sort_prompt",
    "split_answer",
    "split_prompt",
]

Operation = Literal["sort", "merge", "split", "copy", "fix", "check"]
OPERATIONS: tuple[Operation, ...] = get_args(Operation)


def sort_prompt(digits: Sequence[int]) -> str:
    """``sort 3120``."""
    return f"sort {spell(digits)}"


def merge_prompt(left: Sequence[int], right: Sequence[int]) -> str:
    """``merge 0012 0113``."""
    return f"merge {spell(left)} {spell(right)}"


def split_prompt(parts: int, digits: Sequence[int]) -> str:
    """``split 2 31204512``."""
    return f"split {parts} {spell(digits)}"


def fix_prompt(lists: Sequence[Sequence[int]], answer: Sequence[int]) -> str:
    """``fix 3120 0113``: the list (or the two lists of a merge), then the answer to mend."""
    return " ".join(["fix", *map(spell, lists), spell(answer)])


def check_prompt(given: Sequence[int], answer: Sequence[int]) -> str:
    """``check 3120 0113``."""
    return f"check {spell(given)} {spell(answer)}"


def split_answer(parts: int, digits: Sequence[int]) -> str:
    """The list in equal parts in its own order; where it does not divide, the first are longer."""
    size, rest = divmod(len(digits), parts)
    pieces: list[str] = []
    start = 0
    for number in range(parts):
        end = start + size + (number < rest)
        pieces.append(spell(digits[start:end]))
        start = end
    return " ".join(pieces)


def check_answer(given: Sequence[int], answer: Sequence[int]) -> tuple[str, str, str]:
    """The three lines of a check: order, counts, verdict."""
    order = ""
    for place, digit in enumerate(answer):
        if place and digit == answer[place - 1]:
            continue
        order += ">" if place and digit < answer[place - 1] else ""
        order += str(digit)
    counts: list[str] = []
    for digit in sorted({*given, *answer}):
        here, there = given.count(digit), list(answer).count(digit)
        mark = "=" if here == there else "!"
        counts.append(f"{str(digit) * here},{str(digit) * there}{mark}")
    verdict = "ok" if is_sorted_permutation(given, answer) else "bad"
    return f"order {order}", "count " + " ".join(counts), verdict


def draw_list(rng: random.Random, length: int) -> tuple[int, ...]:
    """A random list; one in four uses only a few of the ten digits, so that runs grow long."""
    if rng.random() < 0.25:
        few = rng.sample(range(10), rng.randint(2, 6))
        return tuple(rng.choice(few) for _ in range(length))
    return tuple(rng.randrange(10) for _ in range(length))


def corrupted(rng: random.Random, answer: Sequence[int]) -> tuple[int, ...]:
    """``answer`` with one or two slips: a digit lost, doubled, changed, or two swapped."""
    mended = list(answer)
    for _ in range(rng.choice((1, 1, 2))):
        place = rng.randrange(len(mended))
        match rng.choice(("lose", "double", "change", "swap")):
            case "lose" if len(mended) > 1:
                del mended[place]
            case "double":
                mended.insert(place, mended[place])
            case "swap" if len(set(mended)) > 1:
                other = rng.choice([i for i, d in enumerate(mended) if d != mended[place]])
                mended[place], mended[other] = mended[other], mended[place]
            case _:
                mended[place] = (mended[place] + rng.randint(1, 9)) % 10
    return tuple(mended)


def _length(rng: random.Random, longest: int) -> int:
    """A length from 1 to ``longest``; most draws are long, where it is hard."""
    luck = rng.random()
    if luck < 0.3:
        return longest
    if luck < 0.6:
        return rng.randint(max(1, longest - longest // 3), longest)
    return rng.randint(1, longest)


def list_document(
    operation: Operation, rng: random.Random, longest: int, pair: int | None = None
) -> Document:
    """One document of a thought operation, on lists of up to ``longest`` digits.

    ``split`` and ``copy`` go up to twice that, as they work on what will be cut. Two lists, to
    merge or of a merge to mend, have up to ``pair`` digits each (default: ``longest``).
    """
    one = draw_list(rng, _length(rng, longest))
    left, right = sorted(one[:pair]), sorted(draw_list(rng, _length(rng, pair or longest)))
    match operation:
        case "sort":
            prompt, answer = sort_prompt(one), [runs(sorted(one))]
        case "merge":
            prompt, answer = merge_prompt(left, right), [runs(sorted((*left, *right)))]
        case "split":
            parts = rng.choice((2, 2, 4))
            many = draw_list(rng, max(parts, _length(rng, 2 * longest)))
            prompt, answer = split_prompt(parts, many), [split_answer(parts, many)]
        case "copy":
            many = draw_list(rng, _length(rng, 2 * longest))
            prompt, answer = f"copy {spell(many)}", [spell(many)]
        case "fix":
            lists = [one] if rng.random() < 0.5 else [left, right]
            whole = sorted(digit for part in lists for digit in part)
            prompt, answer = fix_prompt(lists, corrupted(rng, whole)), [runs(whole)]
        case "check":
            whole = tuple(sorted(one))
            claim = whole if rng.random() < 0.5 else corrupted(rng, whole)
            prompt, answer = check_prompt(one, claim), list(check_answer(one, claim))
    return Document(
        operation, (Line(prompt, learn=False), *(Line(line) for line in answer)), {"prompt": prompt}
    )
