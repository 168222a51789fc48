"""LangChain's tools as ours. LangChain is never imported here: whoever has such a tool has it."""

import sys
from collections.abc import Callable, Mapping
from typing import Any

from ..gates.errors import SecateurError

__all__ = ["adapted", "is_tool"]

_JSON_TYPES: dict[str, tuple[type, ...]] = {
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "array": (list,),
    "object": (dict,),
    "null": (type(None),),
}


class ArgumentError(SecateurError):
    """A LangChain tool was called with arguments that its schema does not have."""


def is_tool(value: Any) -> bool:
    """Whether this is a LangChain tool: a ``BaseTool``, or what ``@langchain_core.tools.tool``
    makes of a function."""
    module = sys.modules.get("langchain_core.tools")
    return module is not None and isinstance(value, module.BaseTool)


def adapted(tool: Any) -> tuple[Callable[..., Any], bool]:
    """A function that checks its arguments and runs the tool, and whether it is asynchronous.

    A tool with a way of its own to wait is awaited; any other runs as a plain function.
    """

    def act(**arguments: Any) -> Any:
        _check(tool, arguments)
        return tool.invoke(arguments)

    async def wait(**arguments: Any) -> Any:
        _check(tool, arguments)
        return await tool.ainvoke(arguments)

    waits = _waits(tool)
    return (wait if waits else act), waits


def _waits(tool: Any) -> bool:
    if hasattr(tool, "coroutine"):  # made of functions: the asynchronous one, if it was given
        return tool.coroutine is not None
    base = sys.modules["langchain_core.tools"].BaseTool
    return type(tool)._arun is not base._arun


def _check(tool: Any, arguments: Mapping[str, Any]) -> None:
    """What LangChain lets pass: names that the schema does not have, and, where the schema is
    JSON rather than a model, everything. Arguments that LangChain injects are nobody's to give."""
    schema = tool.tool_call_schema
    whole = schema if isinstance(schema, dict) else None
    known: Mapping[str, Any] = tool.args if whole is None else whole.get("properties", {})
    if whole is None:
        known = {name: known.get(name, {}) for name in _fields(schema)}
    for name in arguments:
        if name not in known:
            raise ArgumentError(f"tool {tool.name!r}: argument {name!r}: Unexpected argument")
    if whole is None:
        return
    for name in whole.get("required", ()):
        if name not in arguments:
            raise ArgumentError(f"tool {tool.name!r}: argument {name!r}: Missing argument")
    for name, value in arguments.items():
        wanted = known[name].get("type") if isinstance(known[name], dict) else None
        if isinstance(wanted, str) and not _fits(value, wanted):
            raise ArgumentError(f"tool {tool.name!r}: argument {name!r}: give a JSON {wanted}")


def _fields(schema: Any) -> Mapping[str, Any]:
    return getattr(schema, "model_fields", None) or getattr(schema, "__fields__", {})


def _fits(value: Any, wanted: str) -> bool:
    if isinstance(value, bool):  # to Python it is an integer too
        return wanted == "boolean"
    return isinstance(value, _JSON_TYPES.get(wanted, object))
