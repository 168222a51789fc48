"""What a plan is, in a few digits: whether a resumed run still walks the plan that it began."""

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import fields, is_dataclass
from enum import Enum
from types import CodeType
from typing import Any

from ..agents.functions import Plain
from ..agents.spec import AgentSpec
from ..gates.canonical import canonical_json, digest

__all__ = ["changed", "fingerprint"]


def fingerprint(agent: AgentSpec) -> list[list[str]]:
    """``[name, digest]`` for each operation of the plan in order, and last for the plan as a whole
    with the agent's sampling.

    A function counts by its name, its code, its defaults and the constants that it closes over;
    comments, and the functions that it calls, do not.
    """
    steps = [[step.name, _short(_described(step))] for step in agent.plan.steps()]
    whole = [_described(agent.plan), _described(agent.sampling)]
    return [*steps, ["", _short(whole)]]


def changed(before: Sequence[Sequence[str]], now: Sequence[Sequence[str]]) -> str | None:
    """The first difference between two fingerprints in words; None where there is none."""
    for number, (was, is_) in enumerate(zip(before, now, strict=False), 1):
        if list(was) == list(is_):
            continue
        if was[0] and is_[0]:
            now_is = "another one" if was[0] == is_[0] else repr(is_[0])
            return f"step {number} was {was[0]!r} and is {now_is}"
        break
    if [list(step) for step in before] == [list(step) for step in now]:
        return None
    if len(before) != len(now):
        return f"it had {len(before) - 1} steps and has {len(now) - 1}"
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
        parts = {f.name: _described(getattr(value, f.name), seen) for f in fields(value)}
        return [_name(type(value)), parts]
    if isinstance(value, Mapping):
        return {str(key): _described(item, seen) for key, item in value.items()}
    if isinstance(value, Set):
        return sorted(canonical_json(_described(item, seen)).hex() for item in value)
    if isinstance(value, Sequence) and not isinstance(value, bytes | bytearray):
        return [_described(item, seen) for item in value]
    if callable(value):
        return _function(value, seen)
    return _name(type(value))


def _function(value: Callable[..., Any], seen: tuple[int, ...]) -> Any:
    plain = inspect.unwrap(value)
    plain = getattr(plain, "__func__", plain)
    code = getattr(plain, "__code__", None)
    if not isinstance(code, CodeType):
        return _name(type(value)) if not hasattr(value, "__qualname__") else _name(value)
    return [
        plain.__qualname__,
        _code(code, plain.__doc__),
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


def _code(code: CodeType, doc: str | None = None) -> Any:
    constants = [_constant(constant) for constant in code.co_consts if constant != doc]
    return [code.co_code.hex(), list(code.co_names), constants]


def _constant(constant: Any) -> Any:
    if isinstance(constant, CodeType):
        return _code(constant)
    if isinstance(constant, frozenset):
        return sorted(map(repr, constant))
    return repr(constant)


def _name(thing: Any) -> str:
    return f"{getattr(thing, '__module__', '')}.{getattr(thing, '__qualname__', '')}"
