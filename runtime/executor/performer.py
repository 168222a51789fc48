"""Performing one piece of work: ask the model, or score, select, split, act."""

import inspect
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ...agents.errors import PlanError, reason
from ...agents.functions import called, contained, waits
from ...agents.plans.machines import Work
from ...agents.plans.operations import (
    Act,
    Apply,
    Ask,
    Check,
    Choose,
    Expand,
    Fail,
    KeepBest,
    KeepValid,
    Operation,
    Score,
    Select,
    Split,
    Truth,
)
from ...agents.plans.ranking import ranked
from ...agents.thought import Scene, Thought
from ...gates.canonical import recordable, recordable_text
from ..generation.attempts import Attempts
from .recording import Recording
from .threads import OverdueError, aside, awaited
from .tools import Acting

__all__ = ["Performer"]


@dataclass(frozen=True, slots=True)
class Performer:
    """Performs the work of one run, each step recorded before it is acted upon."""

    attempts: Attempts
    """Asks the model."""
    recording: Recording
    """The run's thoughts, and its log."""
    acting: Acting
    """Runs tools."""

    async def perform(self, work: Work) -> Sequence[Thought]:
        """What comes of the work. A branch that fails is a result; only the ledger and a verdict
        to halt stop the run. Cancelled with a reason, it records what it leaves behind."""
        match work.operation:
            case Ask() as operation:
                return await self.attempts.ask(work, operation)
            case Act() as operation:
                return await self.acting.act(work, operation)
            case Choose() as operation:
                return await self._choose(work, operation)
            case KeepBest() as operation:
                return await self._keep_best(work, operation)
            case Fail() as operation:
                return [await self.recording.failed(work, operation.reason)]
            case _:
                return await self._call(work)

    async def _call(self, work: Work) -> Sequence[Thought]:
        """An operation of a user's function, which may raise anything or give rubbish: that fails
        its own branch, with its reason, and no other."""
        recalled = await self._recalled(work)
        if recalled is not None:
            return recalled
        scene = self.recording.scene(work.parents)
        try:
            made = await self._made(work, scene)
        except Exception as error:
            return [await self.recording.failed(work, reason(error))]
        return await made()

    async def _recalled(self, work: Work) -> Sequence[Thought] | None:
        """What the function gave before the run was resumed; None where it is to be called."""
        recall, recording = self.recording.recall, self.recording
        if not recall:
            return None
        failed = recording.made(work, content="failed")
        if failed.id in recall:
            return [recording.remember(recall.thought(failed))]
        match work.operation:
            case Score() as operation:
                score = recall.score(work.parents[0].id, operation.name)
                return None if score is None else await self._score(work, score)
            case Split() | Apply() as operation:
                there = recall.litter(lambda place: recording.made(work, index=place))
                parts = [(thought.text, thought.value) for thought in there]
                alone = isinstance(operation, Apply)
                return await self._place(work, parts, one_is_one=alone) if parts else None
            case _:
                return None

    async def _made(self, work: Work, scene: Scene) -> Callable[[], Any]:
        """Call the function and check what it gives; what is returned records it."""
        match work.operation:
            case Expand() as operation:
                called(operation.by, scene)
                return lambda: _pass(work.parents)
            case Truth() as operation:
                return await self._compared(work, operation, scene)
            case Score() | KeepValid() | Select() | Split() | Apply() | Check() as operation:
                given = await self._answer(operation, operation.by, scene)
                with contained():  # what a function gives may run a user's code in its turn
                    return self._taken(work, given)
            case unknown:
                raise TypeError(f"{type(unknown).__name__} is no operation that can be performed")

    def _taken(self, work: Work, given: Any) -> Callable[[], Any]:
        """What records that a function gave this; raises where it cannot be taken."""
        match work.operation:
            case Score() as operation:
                score = float(given)
                if not math.isfinite(score):
                    raise PlanError(f"{operation.name} gave {score}, not a number")
                return lambda: self._score(work, score)
            case KeepValid() as operation:
                if inspect.isgenerator(given):
                    raise PlanError(f"{operation.name} gave a generator, which is always true")
                valid = bool(given)
                return lambda: self._select(work, work.parents if valid else (), operation.name)
            case Select() as operation:
                chosen = {thought.id for thought in given}
                kept = [thought for thought in work.parents if thought.id in chosen]
                if len(kept) != len(chosen):
                    raise PlanError(f"{operation.name} chose what is not among the parents")
                return lambda: self._select(work, kept, operation.name)
            case Split():
                parts = [(str(text), value) for text, value in given]
                self._check(parts)
                return lambda: self._place(work, parts, one_is_one=False)
            case Apply() as operation:
                parts = _outcomes(given, operation.name)
                self._check(parts)
                return lambda: self._place(work, parts, one_is_one=True)
            case operation:
                if given is None:
                    return lambda: _pass(work.parents)
                if not isinstance(given, str) or not given.strip():
                    raise PlanError(f"{operation.name} gave {given!r}; say what is wrong, or None")
                recordable_text(given)
                return lambda: self._place(work, [(given, None)], one_is_one=True)

    async def _score(self, work: Work, score: float) -> Sequence[Thought]:
        scored = replace(work.parents[0], score=score)
        await self.recording.log.score(scored.id, score, work.operation.name)
        return [self.recording.remember(scored)]

    async def _keep_best(self, work: Work, operation: KeepBest) -> Sequence[Thought]:
        best = {thought.id for thought in ranked(work.parents, operation.lowest)[: operation.n]}
        kept = [thought for thought in work.parents if thought.id in best]
        return await self._select(work, kept, operation.name)

    async def _select(self, work: Work, kept: Sequence[Thought], why: str) -> Sequence[Thought]:
        there = {thought.id for thought in kept}
        dropped = [thought for thought in work.parents if thought.id not in there]
        lost = f"lost to a better one: {why}" if kept else f"not kept: {why}"
        await self.recording.select(kept, dropped, lost)
        return kept

    async def _choose(self, work: Work, operation: Choose) -> Sequence[Thought]:
        if operation.about is not None:
            chosen = [thought.id for thought in work.parents]
            await self.recording.settle(operation.about, chosen, operation.name)
        dropped = sorted(operation.dropped(), key=lambda thought: thought.path)
        gone = {thought.id for thought in dropped}
        kept = [thought for thought in work.parents if thought.id not in gone]
        await self.recording.select(kept, dropped, operation.name)
        return kept

    def _check(self, parts: Sequence[tuple[str, Any]]) -> None:
        """Raises for what the ledger cannot hold, or the budget has no room for."""
        for text, value in parts:
            recordable_text(text)
            recordable(value)
        if not self.recording.spending.admits_thoughts(len(parts)):
            raise PlanError(f"{len(parts)} thoughts are more than what is left of the budget")

    async def _place(
        self, work: Work, parts: Sequence[tuple[str, Any]], *, one_is_one: bool
    ) -> Sequence[Thought]:
        """Record what a function made; ``one_is_one``: alone it stands where the work does."""
        made: list[Thought] = []
        alone = one_is_one and len(parts) == 1
        for place, (text, value) in enumerate(parts):
            path = work.path if alone else work.path.below(place)
            thought = self.recording.made(work, index=place, text=text, value=value, path=path)
            made.append(await self.recording.place(thought, place, siblings=len(parts)))
        return made

    async def _compared(self, work: Work, operation: Truth, scene: Scene) -> Callable[[], Any]:
        """Ground truth is recorded apart, and cannot fail a branch: no plan may learn of it."""
        try:
            found = await self._answer(operation, operation.by, scene)
            with contained():
                if not isinstance(found, bool | int | float) or not math.isfinite(found):
                    raise PlanError(f"{operation.name} gave {found!r}; return a number or a bool")
        except Exception as error:
            found = reason(error)

        async def record() -> Sequence[Thought]:
            thought = work.parents[0]
            self.recording.truths[thought.id] = found
            why = found if isinstance(found, str) else None
            said = {"operation": operation.name, "found": None if why is not None else found}
            await self.recording.log.note("ground_truth", said, thought.id, why)
            return work.parents

        return record

    async def _answer(
        self, operation: Operation, function: Callable[[Scene], Any], scene: Scene
    ) -> Any:
        """What a user's function gives, awaited where it has to be, within the operation's time."""
        began, patience = time.monotonic(), operation.timeout
        try:
            if patience is not None and not waits(function):
                given = await aside(lambda: function(scene), patience, operation.name)
            else:
                with contained():
                    given = function(scene)
            if inspect.isawaitable(given):
                given = await awaited(given, self._left(operation, began))
        except OverdueError:
            raise PlanError(f"{operation.name} gave no answer{_within(operation)}") from None
        if inspect.isasyncgen(given):
            raise PlanError(f"{operation.name} gave an async generator; return what it yields")
        return given

    def _left(self, operation: Operation, began: float) -> float | None:
        """Seconds that a function may still be awaited. What counts as free is not cancelled when
        the run's time is up, so that it is held to that here."""
        deadline = self.recording.spending.deadline if operation.free else None
        if operation.timeout is not None:
            deadline = began + operation.timeout
        return None if deadline is None else max(deadline - time.monotonic(), 0.0)


async def _pass(thoughts: Sequence[Thought]) -> Sequence[Thought]:
    return thoughts


def _within(operation: Operation) -> str:
    limit = operation.timeout
    return " before the run's time was up" if limit is None else f" within {limit:g} s"


def _outcomes(given: Any, name: str) -> list[tuple[str, Any]]:
    """Texts with their values, from whatever a user's operation may return."""
    match given:
        case None:
            return []
        case str():
            return [(given, None)]
        case (str() as text, value) if isinstance(given, tuple):
            return [(text, value)]
        case list():
            return [outcome for item in given for outcome in _outcomes(item, name)]
        case _:
            raise PlanError(
                f"{name} gave a {type(given).__name__}; return a text, a (text, value) pair, a "
                "list of these, or None"
            )
