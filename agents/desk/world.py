"""The desk's tools over a world in memory: what the corpus and the evaluation run on.

The real sandbox keeps the same facts as files; both answer with the grammar's result lines.
"""

from dataclasses import dataclass

from .grammar import Command, Level, Result, Task, Verb

__all__ = ["World", "answer"]


@dataclass(frozen=True, slots=True)
class World:
    """How things stand around one task.

    ``good``: whether the check will come out well. ``total`` and ``recount``: what a file says,
    and what counting gives (they differ where the file is wrong). ``level``: access held now.
    """

    task: Task
    good: bool = True
    total: int = 0
    recount: int = 0
    level: Level = Level.NONE


def answer(world: World, command: Command) -> tuple[World, Result]:
    """Run ``command``: the world afterwards, and the tool's answer."""
    if world.level < command.need:
        return world, Result(command, denied=True)
    match command.verb:
        case Verb.ASK:
            level = Level.of(command.object) or Level.NONE
            return _with_level(world, level), Result(command)
        case Verb.DROP:
            return _with_level(world, Level.NONE), Result(command)
        case Verb.PROBE | Verb.LOGIN | Verb.COMPARE:
            return world, Result(command, good=world.good)
        case Verb.READ:
            return world, Result(command, total=world.total)
        case Verb.RECOUNT:
            return world, Result(command, world.recount == world.total, world.recount)
        case _:
            return world, Result(command)


def _with_level(world: World, level: Level) -> World:
    return World(world.task, world.good, world.total, world.recount, level)
