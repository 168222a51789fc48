"""Agents by name: the ready-made ones, and those in a user's own file."""

import sys
import traceback
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

from ..gates.errors import SecateurError
from .code import read_source
from .desk.agent import opsdesk
from .ready.intersect import intersect
from .ready.sort import sort
from .spec import AgentSpec

__all__ = ["BUILTIN", "AgentError", "file_of", "load_agent"]

BUILTIN: dict[str, AgentSpec] = {agent.name: agent for agent in (opsdesk, sort, intersect)}
"""The ready-made agents."""


class AgentError(SecateurError):
    """An agent could not be found or loaded."""


def load_agent(name: str) -> AgentSpec:
    """A built-in agent by its name, or one from a file: ``path/to/file.py:name``.

    Raises :class:`AgentError` in one line that names the remedy.
    """
    if name in BUILTIN:
        return BUILTIN[name]
    path, attribute = _parted(name)
    if not path.endswith(".py"):
        raise AgentError(
            f"there is no agent {name!r}; built in are {', '.join(BUILTIN)}, your own is "
            "path/to/file.py:name"
        )
    file = Path(path)
    if not file.is_file():
        raise AgentError(f"{path}: no such file; name an agent as path/to/file.py:name")
    module = _import(file)
    found = getattr(module, attribute, None) if attribute else None
    if isinstance(found, AgentSpec):
        return found
    there = [key for key, value in vars(module).items() if isinstance(value, AgentSpec)]
    remedy = f"it has: {', '.join(there)}" if there else 'make one with agent = Agent("name", …)'
    if not attribute:
        raise AgentError(f"{path}: which agent? write {path}:name; {remedy}")
    if not hasattr(module, attribute):
        raise AgentError(f"{path}: there is no {attribute!r}; {remedy}")
    raise AgentError(f"{path}: {attribute!r} is no agent, it is {found!r:.60}; {remedy}")


def file_of(name: str) -> Path | None:
    """The file of an agent that is named by one, whether it is there or not."""
    path, _ = _parted(name)
    return Path(path) if name not in BUILTIN and path.endswith(".py") else None


def _parted(name: str) -> tuple[str, str]:
    path, colon, attribute = name.rpartition(":")
    return (path, attribute) if colon else (name, "")


def _import(file: Path) -> ModuleType:
    """Run a user's file as Python runs a script: its own folder is searched for imports first, then
    and later, when its functions import."""
    name = f"secateur_agent_{file.stem}"
    spec = spec_from_file_location(name, file)
    if spec is None or spec.loader is None:
        raise AgentError(f"{file}: Python cannot load it; give a readable .py file")
    module = module_from_spec(spec)
    folder = str(file.parent.absolute())
    sys.modules[name] = module
    sys.path.insert(0, folder)
    try:
        code = compile(read_source(file), str(file.absolute()), "exec", dont_inherit=True)
        exec(code, vars(module))
    except (Exception, SystemExit) as error:
        del sys.modules[name]
        sys.path.remove(folder)
        raise AgentError(_blame(file, error)) from error
    return module


def _blame(file: Path, error: BaseException) -> str:
    """``file:line: what``, with the line in the user's file that the error came through last."""
    line: int | None = None
    if isinstance(error, SyntaxError):
        line = error.lineno
    else:
        frames = traceback.extract_tb(error.__traceback__)
        mine = [f.lineno for f in frames if Path(f.filename).absolute() == file.absolute()]
        line = mine[-1] if mine else None
    what = " ".join(str(error.msg if isinstance(error, SyntaxError) else error).split())
    if not isinstance(error, SecateurError):
        what = f"{type(error).__name__}: {what}" if what else type(error).__name__
    return f"{file}:{line or 1}: {what}"
