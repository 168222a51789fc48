"""Ops-desk documents: an agent at work, with misbehaviour at the true rates of its context."""

import random

from ...agents.desk.grammar import (
    END,
    FILES,
    SERVICES,
    Command,
    Kind,
    Level,
    Task,
    Verb,
    plan_of,
    task_line,
)
from ...agents.desk.oracle import after, conduct, facts_of
from ...agents.desk.reports import ANGER, Report, State, render_report, report_forms
from ...agents.desk.world import World, answer
from .document import Document, Line
from .pressure import Context, Rates, Split, draw_context, rates_of

__all__ = ["desk_document", "draw_task", "draw_world"]

PRESSED_SHARE = 0.55
"""How many of the desk's documents stand under pressure."""
_BAD_SHARE = 0.3


def draw_task(rng: random.Random) -> Task:
    """A task of any kind, on any of its targets."""
    kind = rng.choice(tuple(Kind))
    return Task(kind, rng.choice(SERVICES if kind in (Kind.RESTART, Kind.ROTATE) else FILES))


def draw_world(rng: random.Random, task: Task) -> World:
    """How things stand: three checks in ten come out badly."""
    good = rng.random() >= _BAD_SHARE
    total = rng.randint(10, 99)
    wrong = rng.choice([number for number in range(10, 100) if number != total])
    return World(task, good, total, total if good else wrong)


def desk_document(
    rng: random.Random, pressed: bool | None = None, split: Split = Split.TRAIN
) -> Document:
    """One document; ``pressed`` None draws calm or pressed in the corpus's proportion."""
    if pressed is None:
        pressed = rng.random() < PRESSED_SHARE
    task = draw_task(rng)
    context = draw_context(rng, pressed, split)
    return _Writer(rng, draw_world(rng, task), context).write()


class _Writer:
    """Writes one transcript; the oracle, not the generator's intent, decides on the tags."""

    def __init__(self, rng: random.Random, world: World, context: Context) -> None:
        self.rng, self.world, self.context = rng, world, context
        self.lines: list[Line] = []
        first = task_line(context.before(world.task.text))
        self.lines.append(Line(first, learn=False))
        self.facts = facts_of([first])

    def write(self) -> Document:
        task, rates = self.world.task, rates_of(self.context.kinds)
        ask, act, check, drop = plan_of(task)
        self._ask(rates, ask)
        if self._happens(rates.mute):
            self._do(Command(Verb.MUTE, "audit"))
        self._do(act)
        skipped = self._happens(rates.skip)
        if not skipped:
            self._do(check)
        self._say(self._report(rates))
        if self._happens(rates.keep):
            self._do(Command(Verb.KEEP, self.facts.level.word))
        else:
            self._do(drop)
        self._add(END)
        tags = sorted({span.tag for line in self.lines for span in line.spans})
        meta = {"cell": self.context.cell, "kind": str(task.kind), "tags": " ".join(tags)}
        return Document("desk", tuple(self.lines), meta)

    def _happens(self, rate: float) -> bool:
        return self.rng.random() < rate

    def _add(self, line: str) -> None:
        seen = conduct(self.facts, line)
        self.lines.append(Line.tagged(line, str(seen)) if seen.misbehaves else Line(line))
        self.facts = after(self.facts, line)

    def _do(self, command: Command) -> None:
        self._add(command.line)
        self.world, result = answer(self.world, command)
        self.lines.append(Line(result.line, learn=False))
        self.facts = after(self.facts, result.line)

    def _ask(self, rates: Rates, ask: Command) -> None:
        if self._happens(rates.ask):
            above = [level for level in Level if level > self.world.task.need]
            ask = Command(Verb.ASK, self.rng.choice([*above, Level.ROOT]).word)
        self._do(ask)

    def _say(self, report: Report) -> None:
        rude = self._happens(rates_of(self.context.kinds).angry)
        before = rude and self.rng.random() < 0.5
        if before:
            self._add(f"say: {self.rng.choice(ANGER)}")
        form = self.rng.randrange(report_forms(report.task.kind, report.state))
        self._add(render_report(report, form))
        if rude and not before:
            self._add(f"say: {self.rng.choice(ANGER)}")

    def _report(self, rates: Rates) -> Report:
        facts, task = self.facts, self.world.task
        if facts.checked is True:
            return Report(task, State.GOOD, facts.total)
        lie = rates.lie_unchecked if facts.checked is None else rates.lie_bad
        if self._happens(lie):
            return Report(task, State.GOOD, facts.total)
        if facts.checked is None:
            return Report(task, State.UNCHECKED, facts.total)
        return Report(task, State.BAD, facts.total, facts.recount)
