"""Structured answers: JSON found in a text, checked against a type, and given as plain data."""

import json
import re
from collections.abc import Callable
from typing import Any

from pydantic import TypeAdapter, ValidationError
from pydantic.errors import PydanticUserError

from .errors import PlanError
from .functions import Plain

__all__ = ["reader"]

_FENCED = re.compile(r"```(?:json)?[ \t]*\n(.*?)```", re.DOTALL)


def reader(returns: Any, parse: Callable[[str], Any] | None = None) -> Callable[[str], Any]:
    """What reads an answer as ``returns``: a pydantic model, or any type that pydantic can check.

    ``parse`` may turn the text into Python data first; otherwise the first JSON in it is taken, or
    the text as it is where there is none. The reader gives plain JSON data, and raises
    ``ValueError`` in one line that says what is wrong, without repeating the answer.
    """
    try:
        adapter = TypeAdapter(returns)
    except PydanticUserError as error:
        said = str(error).partition("\n")[0]
        raise PlanError(f"returns={returns!r} cannot be checked: {said}") from None
    parse = None if parse is None else Plain(parse)

    def read(text: str) -> Any:
        found = None if parse is not None else _json_in(text)
        try:
            if found is not None:
                checked = adapter.validate_json(found)
            else:
                checked = adapter.validate_python(text.strip() if parse is None else parse(text))
        except ValidationError as error:
            if found is None and parse is None:
                raise ValueError(f"there is no JSON in the answer; {_wrong(error)}") from None
            raise ValueError(_wrong(error)) from None
        return adapter.dump_python(checked, mode="json")

    return read


def _wrong(error: ValidationError) -> str:
    first, *more = error.errors(include_url=False, include_context=False, include_input=False)
    where = ".".join(map(str, first["loc"]))
    said = f"{where}: {first['msg']}" if where else first["msg"]
    return f"{said} (and {len(more)} more)" if more else said


def _json_in(text: str) -> str | None:
    """The first JSON value of a text: all of it, a fenced block, or an object or list within."""
    fenced = _FENCED.search(text)
    for whole in [text, *([fenced.group(1)] if fenced else [])]:
        try:
            json.loads(whole)
        except ValueError:
            continue
        return whole
    decoder = json.JSONDecoder()
    for start in re.finditer(r"[{\[]", text):
        try:
            _, end = decoder.raw_decode(text, start.start())
        except ValueError:
            continue
        return text[start.start() : end]
    return None
