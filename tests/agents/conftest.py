"""The real model, loaded once, and gardens in which plans grow without any."""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import pytest
import torch

from secateur.agents.path import Path
from secateur.agents.plans.composition import Plan
from secateur.agents.plans.machines import Growth, Work
from secateur.agents.plans.operations import (
    Apply,
    Ask,
    Check,
    Choose,
    Expand,
    Fail,
    KeepBest,
    KeepValid,
    Score,
    Select,
    Split,
)
from secateur.agents.thought import Scene, Status, Thought, thought_id
from secateur.runtime.engines.opening import open_engine
from secateur.runtime.engines.protocol import Engine
from secateur.runtime.settings import Settings


@pytest.fixture(scope="session")
def engine() -> Engine:
    """The shipped model, or the one that ``SECATEUR_MODEL`` names."""
    torch.set_num_threads(1)
    return open_engine("local", Settings().model)


Fate = Callable[[Work], Status]


def kept_always(work: Work) -> Status:
    return Status.KEPT


@dataclass
class Garden:
    """Grows a plan; what comes of a piece of work depends on its place in the graph alone."""

    fate: Fate = kept_always
    regrow: bool = False
    done: list[Work] = field(default_factory=list)
    made: dict[str, Thought] = field(default_factory=dict)

    def grow(
        self, plan: Plan, root: str = "root", order: random.Random | None = None
    ) -> list[Thought]:
        """The plan's output in the graph's order; ``order`` shuffles which work ends first."""
        out: list[Thought] = []
        growth = Growth(self.regrow)
        machine = plan.start(growth, 0)
        machine.out = out.append
        seed = Thought("0" * 16, "task", "task", text=root, value=root)
        self.made[seed.id] = seed
        machine.push(seed)
        machine.close()
        running = growth.ask()
        while running:
            work = running.pop(order.randrange(len(running)) if order else 0)
            self.done.append(work)
            growth.tell(work, self.perform(work))
            running += growth.ask()
        return sorted(out, key=lambda thought: thought.path)

    def perform(self, work: Work) -> Sequence[Thought]:
        scene = Scene(work.parents[0].text, work.parents, work.parents, self.made)
        match work.operation:
            case Ask(unless=unless) if unless is not None and unless(scene):
                return work.parents
            case Ask(kind="grade" | "vote", parse=parse) if parse is not None:
                answer = str(1 + work.index % 2)
                try:
                    value, fate = parse(answer), self.fate(work)
                except ValueError:
                    value, fate = None, Status.FAILED
                return [self._new(work, work.index, answer, fate, value=value)]
            case Ask(name=name):
                text = name + "(" + ",".join(parent.text for parent in work.parents) + ")"
                return [self._new(work, work.index, text, self.fate(work))]
            case Apply(by=by):
                return [self._new(work, work.index, by(scene), Status.KEPT)]
            case Check(by=by):
                said = by(scene)
                wrong = isinstance(said, str)
                return [self._new(work, 0, said, Status.KEPT)] if wrong else work.parents
            case Select(by=by):
                return list(by(scene))  # pyright: ignore[reportArgumentType]
            case Choose(dropped=dropped):
                gone = {thought.id for thought in dropped()}
                return [thought for thought in work.parents if thought.id not in gone]
            case Expand(by=by):
                by(scene)
                return work.parents
            case Fail(reason=why):
                return [self._new(work, work.index, why, Status.FAILED)]
            case Score(by=by):
                return [replace(work.parents[0], score=by(scene))]
            case KeepBest(n=n, lowest=lowest):
                sign = 1 if lowest else -1
                ranked = sorted(work.parents, key=lambda t: sign * (t.score or 0))
                return ranked[:n]
            case KeepValid(by=by):
                return work.parents if by(scene) else []
            case Split(by=by):
                return [
                    self._new(work, i, text, Status.KEPT, work.path.below(i))
                    for i, (text, _) in enumerate(by(scene))
                ]
            case other:
                raise AssertionError(other)

    def _new(
        self,
        work: Work,
        index: int,
        text: str,
        status: Status,
        path: Path | None = None,
        value: object = None,
    ) -> Thought:
        parents = tuple(parent.id for parent in work.parents)
        id = thought_id(work.step, parents, index=index, prompt=str(work.banned))
        thought = Thought(
            id,
            work.operation.name,
            work.operation.kind,
            parents,
            path or work.path,
            text=text,
            value=value,
            status=status,
        )
        self.made[id] = thought
        return thought

    def count(self, name: str) -> int:
        return sum(work.operation.name == name for work in self.done)


@pytest.fixture(scope="session")
def plant() -> type[Garden]:
    """Lay out a garden: ``plant(fate, regrow)``."""
    return Garden
