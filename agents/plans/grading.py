"""Machines that let the model judge, or a function find fault: grades, votes, improvement."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from statistics import fmean
from typing import Any

from ..functions import called
from ..thought import Scene, Thought
from .leaves import AskLeaf, Leaf
from .machines import Group, Growth, in_order
from .numbers import read_vote
from .operations import Ask, Check, Fail, KeepValid, Score

__all__ = ["GradeMachine", "ImproveMachine", "VoteMachine"]


class GradeMachine(Group):
    """The model grades every thought n times; the mean is its score."""

    def __init__(self, growth: Growth, ask: Ask, score: Score, number: int) -> None:
        super().__init__(growth)
        self.ask, self.score, self.number = ask, score, number

    def push(self, thought: Thought) -> None:
        grades: list[Thought] = []
        asking = AskLeaf(self.growth, self.ask, self.number)
        self.adopt(asking, grades.append, lambda: self._score(thought, grades))
        asking.push(thought)
        asking.close()

    def _score(self, thought: Thought, grades: Sequence[Thought]) -> None:
        if grades:
            mean = fmean(grade.value for grade in in_order(grades))
            operation = replace(self.score, by=_always(mean))
        else:
            operation = _no_answer(self.score, f"none of {self.ask.n} grades came")
        scoring = Leaf(self.growth, operation, self.number + 1)
        self.adopt(scoring, lambda t: self.out(t))
        scoring.push(thought)
        scoring.close()


class VoteMachine(Group):
    """The model votes n times among all thoughts; each one's score is its share of the votes."""

    def __init__(self, growth: Growth, ask: Ask, score: Score, number: int) -> None:
        super().__init__(growth)
        self.ask, self.score, self.number = ask, score, number
        self.candidates: list[Thought] = []
        self.votes: list[Thought] = []

    def push(self, thought: Thought) -> None:
        if all(thought.id != candidate.id for candidate in self.candidates):
            self.candidates.append(thought)

    def close(self) -> None:
        if not self.closed and self.candidates:
            among = in_order(self.candidates)
            parse = partial(_among, self.ask.parse or read_vote, len(among))
            asking = AskLeaf(self.growth, replace(self.ask, parse=parse), self.number)
            self.adopt(asking, self.votes.append, lambda: self._score(among))
            for candidate in among:
                asking.push(candidate)
            asking.close()
        super().close()

    def _score(self, among: Sequence[Thought]) -> None:
        count = Counter(vote.value for vote in self.votes)
        for place, candidate in enumerate(among, 1):
            if self.votes:
                share = count[place] / len(self.votes)
                operation = replace(self.score, by=_always(share))
            else:
                operation = _no_answer(self.score, f"none of {self.ask.n} votes came")
            scoring = Leaf(self.growth, operation, self.number + 1)
            self.adopt(scoring, lambda t: self.out(t))
            scoring.push(candidate)
            scoring.close()


class ImproveMachine(Group):
    """What a function finds fault with is mended by the model, for so many rounds."""

    def __init__(
        self, growth: Growth, check: Check, mend: Ask, drop: KeepValid, rounds: int, number: int
    ) -> None:
        super().__init__(growth)
        self.check, self.mend, self.drop, self.rounds = check, mend, drop, rounds
        self.number = number

    def push(self, thought: Thought) -> None:
        self._check(thought, self.rounds)

    def _check(self, thought: Thought, left: int) -> None:
        def checked(result: Thought) -> None:
            if result.id == thought.id:
                self.out(thought)
            elif left:
                self._mend(thought, result, left)
            else:
                self._drop(thought)

        self._leaf(Leaf(self.growth, self.check, self.number), checked, thought)

    def _mend(self, thought: Thought, critique: Thought, left: int) -> None:
        asking = AskLeaf(self.growth, self.mend, self.number + 1)
        self._leaf(asking, lambda mended: self._check(mended, left - 1), thought, critique)

    def _drop(self, thought: Thought) -> None:
        self._leaf(Leaf(self.growth, self.drop, self.number + 2), lambda t: self.out(t), thought)

    def _leaf(self, leaf: Leaf, out: Callable[[Thought], None], *parents: Thought) -> None:
        self.adopt(leaf, out)
        leaf.start(parents)
        leaf.close()


def _among(parse: Callable[[str], Any], count: int, text: str) -> int:
    vote = called(parse, text)
    if isinstance(vote, bool) or not isinstance(vote, int) or not 1 <= vote <= count:
        raise ValueError(f"the vote is {vote!r}, and there are candidates 1 to {count}")
    return vote


def _always(score: float) -> Callable[[Scene], float]:
    return lambda scene: score


def _no_answer(score: Score, why: str) -> Fail:
    return Fail(name=score.name, kind=score.kind, reason=why)
