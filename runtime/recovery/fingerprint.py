"""Describes a plan in a few digits, to tell whether a resumed run still walks the plan it began."""

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import MISSING, Field, fields, is_dataclass
from enum import Enum
from typing import Any

from ...agents.functions import Plain
from ...agents.spec import AgentSpec
from ...gates.canonical import canonical_json, digest
from .syntax import described_source

__all__ = ["changed", "fingerprint"]

_OURS = __name__.partition(".")[0]


def fingerprint(agent: AgentSpec) -> dict[str, Any]:
    """``{"by": "source", "steps": [[name, digest], …]}``: each operation of the plan in order, and
    last, without a name, the plan as a whole with the agent's sampling.

    Our own classes and functions count by their names and by the values that differ from their
    defaults, a user's function by its source, its defaults and the constants that it closes over.
    Where a module stands, how code is laid out, comments, docstrings, the version of Python, and
    the functions that a user's function calls do not count.
    """
    steps = [[step.name, _short(_described(step))] for step in agent.plan.steps()]
    whole = [_described(agent.plan), _described(agent.sampling)]
    return {"by": "source", "steps": [*steps, ["", _short(whole)]]}


def changed(before: Any, now: Mapping[str, Any]) -> str | None:
    """The first difference between two fingerprints in words; None where there is none.

    Fingerprints of version 0.1 are lists of steps whose digests depend on Python's bytecode and on
    where modules stood: only the names of their steps can be compared.
    """
    by_name = isinstance(before, Sequence)
    was = [list(step)[: 1 if by_name else 2] for step in (before if by_name else before["steps"])]
    is_ = [list(step)[: 1 if by_name else 2] for step in now["steps"]]
    if was == is_:
        return None
    for number, (old, new) in enumerate(zip(was, is_, strict=False), 1):
        if old == new:
            continue
        if old[0] and new[0]:
            now_is = "another one" if old[0] == new[0] else repr(new[0])
            return f"step {number} was {old[0]!r} and is {now_is}"
        break
    if len(was) != len(is_):
        return f"it had {len(was) - 1} steps and has {len(is_) - 1}"
    return "its steps are put together otherwise, or sample otherwise"


def _short(value: Any) -> str:
    return digest(value)[:16]


def _described(value: Any, seen: tuple[int, ...] = ()) -> Any:
    """A value as plain JSON data, the same in every process."""
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return repr(value)
    if isinstance(value, Enum):
        return [_name(type(value)), value.name]
    if id(value) in seen:
        return "again"
    seen = (*seen, id(value))
    if isinstance(value, Plain):
        return _described(value.function, seen)
    if isinstance(value, functools.partial):
        return ["partial", *(_described(v, seen) for v in (value.func, value.args, value.keywords))]
    if isinstance(value, type):
        return ["type", _name(value)]
    if is_dataclass(value):
        given = {f.name: getattr(value, f.name) for f in fields(value) if not _is_default(f, value)}
        return [_name(type(value)), {name: _described(part, seen) for name, part in given.items()}]
    if isinstance(value, Mapping):
        return {str(key): _described(item, seen) for key, item in value.items()}
    if isinstance(value, Set):
        return sorted(canonical_json(_described(item, seen)).hex() for item in value)
    if isinstance(value, Sequence) and not isinstance(value, bytes | bytearray):
        return [_described(item, seen) for item in value]
    if callable(value):
        return _function(value, seen)
    return _name(type(value))


def _is_default(field: "Field[Any]", owner: Any) -> bool:
    """Whether a field says nothing: one that a later version adds changes no older plan."""
    value, default = getattr(owner, field.name), field.default
    if default is MISSING and field.default_factory is not MISSING:
        default = field.default_factory()
    return type(default) is type(value) and bool(default == value)


def _function(value: Callable[..., Any], seen: tuple[int, ...]) -> Any:
    plain = inspect.unwrap(value)
    plain = getattr(plain, "__func__", plain)
    if not inspect.isfunction(plain):
        return _name(plain if hasattr(plain, "__qualname__") else type(plain))
    ours = (plain.__module__ or "").partition(".")[0] == _OURS
    return [
        plain.__qualname__,
        None if ours else described_source(plain),
        _described(plain.__defaults__, seen),
        _described(plain.__kwdefaults__, seen),
        [_closed_over(cell, seen) for cell in plain.__closure__ or ()],
    ]


def _closed_over(cell: Any, seen: tuple[int, ...]) -> Any:
    try:
        value = cell.cell_contents
    except ValueError:  # not bound yet
        return None
    # What can change while a run goes on is no part of its plan.
    fixed = value is None or isinstance(value, bool | int | float | str | Enum | tuple | type)
    fixed |= callable(value) or (is_dataclass(value) and type(value).__hash__ is not None)
    return _described(value, seen) if fixed else _name(type(value))


def _name(thing: Any) -> str:
    return str(getattr(thing, "__qualname__", ""))
