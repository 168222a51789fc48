"""What an agent's file is made of: its own bytes, and the files beside it that it imports."""

import ast
import hashlib
from collections.abc import Iterator
from importlib.util import decode_source
from pathlib import Path

from ..gates.encoding import decoded, marked

__all__ = ["code_of", "read_source"]


def read_source(file: Path) -> str:
    """The text of a Python file, by its byte order mark or its coding line.

    Raises :class:`OSError`, :class:`SyntaxError` and :class:`UnicodeDecodeError`.
    """
    raw = file.read_bytes()
    return decode_source(raw) if marked(raw) in (None, "utf-8-sig") else decoded(raw)


def code_of(file: Path) -> dict[str, str]:
    """The SHA-256 of the file and of each Python file of its folder that it or they import, by the
    paths from that folder.

    Imports count wherever they stand, inside functions too, as far as they are written out: what a
    program makes up while it runs is not known here. Raises :class:`OSError`.
    """
    folder, todo, found = file.parent, [file], dict[str, str]()
    while todo:
        path = todo.pop()
        name = path.relative_to(folder).as_posix()
        if name not in found:
            found[name] = hashlib.sha256(path.read_bytes()).hexdigest()
            todo += _beside(folder, path)
    return dict(sorted(found.items()))


def _beside(folder: Path, path: Path) -> Iterator[Path]:
    """The files of the folder that a file's imports may mean."""
    for parts in _imported(folder, path):
        if not parts or parts[0] == "secateur":  # is imported already, wherever it lies
            continue
        for end in range(1, len(parts) + 1):
            place = folder.joinpath(*parts[:end])
            for file in (place.with_name(f"{place.name}.py"), place / "__init__.py"):
                if file.is_file():
                    yield file


def _imported(folder: Path, path: Path) -> Iterator[tuple[str, ...]]:
    try:
        tree = ast.parse(read_source(path))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return  # importing it will say what is wrong
    package = path.relative_to(folder).parent.parts
    for node in ast.walk(tree):
        match node:
            case ast.Import(names=names):
                yield from (tuple(each.name.split(".")) for each in names)
            case ast.ImportFrom(module=module, names=names, level=level):
                base = package[: len(package) - level + 1] if level else ()
                base = (*base, *(module.split(".") if module else ()))
                yield from ((*base, each.name) for each in names)
            case ast.Call(
                func=ast.Name(id="import_module" | "__import__")
                | ast.Attribute(attr="import_module"),
                args=[ast.Constant(value=str(name)), *_],
            ):
                yield tuple(name.strip(".").split("."))
            case _:
                pass
