"""Reads a function's source as syntax: layout, comments and the version of Python do not count."""

import ast
import inspect
from collections.abc import Iterator
from functools import lru_cache
from types import CodeType, FunctionType
from typing import Any

__all__ = ["described_source"]

_Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda

_UNTOLD = frozenset({"ctx", "kind", "type_comment"})
"""Fields of syntax nodes that follow from the others, or that no program sees."""


def described_source(function: FunctionType) -> Any:
    """The syntax of a function as plain JSON data; of its bytecode where no source is at hand
    (typed at a prompt, made by ``exec``), which another version of Python compiles otherwise."""
    code = function.__code__
    try:
        lines, _ = inspect.findsource(code)
        found = _definition(_parsed("".join(lines)), code)
    except (OSError, SyntaxError):
        found = None
    return _bytecode(code, function.__doc__) if found is None else _syntax(found)


@lru_cache(maxsize=8)
def _parsed(source: str) -> ast.Module:
    return ast.parse(source)


def _definition(module: ast.Module, code: CodeType) -> _Definition | None:
    """The innermost definition around a code object's instructions; None where another one stands
    there now, because the file was changed since it was imported."""
    places = [(row, end, col, stop) for row, end, col, stop in code.co_positions() if stop]
    around = [
        node
        for node in ast.walk(module)
        if isinstance(node, _Definition)
        and all(_within(node, place) for place in places)
        and getattr(node, "name", "<lambda>") == code.co_name
        and _parameters(node.args) == code.co_varnames[: len(_parameters(node.args))]
    ]
    return max(around, key=lambda node: (node.lineno, node.col_offset), default=None)


def _within(node: _Definition, place: tuple[int | None, ...]) -> bool:
    row, end, col, stop = (part or 0 for part in place)
    after = (node.lineno, node.col_offset) <= (row, col)
    return after and (end, stop) <= (node.end_lineno or 0, node.end_col_offset or 0)


def _parameters(given: ast.arguments) -> tuple[str, ...]:
    named = [*given.posonlyargs, *given.args, *given.kwonlyargs, given.vararg, given.kwarg]
    return tuple(parameter.arg for parameter in named if parameter is not None)


def _syntax(node: Any) -> Any:
    """A node as plain data. What is empty is left out: newer Pythons add fields that are."""
    if isinstance(node, ast.Constant):
        return ["Constant", repr(node.value)]
    if isinstance(node, ast.AST):
        return [type(node).__name__, dict(_told(node))]
    if isinstance(node, list):
        return [_syntax(item) for item in node]
    return node


def _told(node: ast.AST) -> Iterator[tuple[str, Any]]:
    for name, value in ast.iter_fields(node):
        if name in _UNTOLD or value is None or value == []:
            continue
        if name == "body" and isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            value = value[1:] if ast.get_docstring(node, clean=False) is not None else value
        yield name, _syntax(value)


def _bytecode(code: CodeType, doc: str | None = None) -> Any:
    constants = [_constant(constant) for constant in code.co_consts if constant != doc]
    return [code.co_code.hex(), list(code.co_names), constants]


def _constant(constant: Any) -> Any:
    if isinstance(constant, CodeType):
        return _bytecode(constant)
    if isinstance(constant, frozenset):
        return sorted(map(repr, constant))
    return repr(constant)
