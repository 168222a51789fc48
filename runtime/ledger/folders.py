"""The folder in which a run's tools acted: it holds what they wrote, and is erased with the run."""

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from . import tables
from .chain import as_text, from_text
from .events import EventKind

__all__ = ["Folder", "folder_of"]

_SLACK_S = 2.0
"""By which a file system's clock may lag behind."""


@dataclass(frozen=True, slots=True)
class Folder:
    """Where one run acted, as far as it can be told from its ledger and from the disk."""

    path: Path
    files: int
    stays: str | None = None
    """Why it is not erased, in words; None where all of it is the run's own."""

    def __str__(self) -> str:
        if self.stays is not None:
            return f"its folder {self.path} stays: {self.stays}"
        return f"its folder {self.path} with {self.files} files"

    def erase(self) -> str | None:
        """Remove it with all that it holds; what is left of it, in words."""
        if self.stays is not None:
            return str(self)
        for each in _laid_out(self.path):
            try:
                shutil.rmtree(each)
            except OSError as error:
                return f"{each} could not be removed ({error.strerror}): remove it by hand"
        return None


def folder_of(connection: Connection, run: str) -> Folder | None:
    """The folder of a run's tools; None where there is none, or is none any more."""
    event = tables.event.c
    first = connection.execute(
        sa.select(event.body, event.at).where(event.run_id == run, event.seq == 0)
    ).first()
    options: dict[str, Any] = {} if first is None else from_text(first.body)["options"]
    if first is None or "sandbox" not in options:
        return None
    path = Path(options["sandbox"])
    if not any(_laid_out(path)):
        acted = event.kind == EventKind.TOOL_INTENDED.value
        called = sa.select(event.seq).where(event.run_id == run, acted).limit(1)
        if connection.execute(called).first() is None:
            return None
        return Folder(path, 0, "it is not on this machine, or was removed already")
    files = [each for found in _laid_out(path) for each in found.rglob("*") if not each.is_dir()]
    began = datetime.fromisoformat(first.at).timestamp()
    return Folder(path, len(files), _stays(connection, run, path, options, began))


def _stays(
    connection: Connection, run: str, path: Path, options: dict[str, Any], began: float
) -> str | None:
    """Why a folder may hold what is not the run's. The ledger's word is not enough: whoever may
    append can name any folder."""
    if path.is_symlink():
        return "it is a link to another one"
    if not options.get("fresh"):
        return "it held files before the run began; look through it by hand"
    if connection.dialect.name == "sqlite":
        ledger = Path(str(connection.engine.url.database)).absolute()
        if path in ledger.parents:
            return "the ledger lies in it"
    if path in (Path.home(), *Path.home().parents, Path.cwd(), *Path.cwd().parents):
        return "you stand in it, or it is your home"
    for each in path.rglob("*"):
        if each.lstat().st_mtime < began - _SLACK_S:
            return f"{each.name!r} in it is older than the run; look through it by hand"
    if path.name != run:  # a name that was given: others may have got it too
        event = tables.event.c
        spelt = as_text(options["sandbox"])
        named = event.body.contains(f'"sandbox":{spelt}', autoescape=True)
        others = sa.select(event.run_id).where(event.seq == 0, event.run_id != run, named)
        other = connection.execute(others.limit(1)).scalar()
        if other is not None:
            return f"run {other} acted in it too; look through it by hand"
    return None


def _laid_out(path: Path) -> Iterator[Path]:
    """The folder, and what was laid out for it by a process that was killed."""
    try:
        if path.is_dir():
            yield path
        yield from sorted(path.parent.glob(f"{path.name}.unfinished-*"))
    except (OSError, ValueError):  # a name of another system, or a folder that may not be read
        return
