"""A part of a long answer: its rows, where the next part begins, and the same as a data frame."""

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar, overload

from ..errors import LedgerError

if TYPE_CHECKING:
    import pandas
    import pyarrow

__all__ = ["Cursor", "Page", "frame", "one_more", "page", "table"]


_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z$")


class _Row(Protocol):
    def as_json(self) -> dict[str, Any]: ...


T = TypeVar("T", bound=_Row)


class Cursor(tuple[str, ...]):
    """The place of the last row that was seen: its time, run and thought, as far as it has them.

    Rows are ordered by it, newest first, so what arrives later changes nothing of what follows it.
    """

    @classmethod
    def read(cls, text: str, parts: int) -> "Cursor":
        """Read ``TIME,RUN`` or ``TIME,RUN,THOUGHT``. Raises :class:`LedgerError`."""
        found = tuple(part.strip() for part in text.split(","))
        if len(found) != parts or not all(found) or not _TIME.match(found[0]):
            shape = ",".join(("TIME", "RUN", "THOUGHT")[:parts])
            raise LedgerError(f"{text!r} is no place to go on from: write {shape} of the last row")
        return cls(found)

    def __str__(self) -> str:
        return ",".join(self)


class Page(Sequence[T], Generic[T]):
    """Rows of an answer, newest first; ``next`` is where to go on, None at its end."""

    def __init__(
        self,
        rows: Sequence[T],
        next: str | None = None,
        follow: "Callable[[str], Page[T]] | None" = None,
    ) -> None:
        self._rows = tuple(rows)
        self.next = next
        self._follow = follow

    def onward(self) -> Iterator[T]:
        """These rows and all that follow, asked for part by part as they are needed."""
        page: Page[T] = self
        while True:
            yield from page
            if page.next is None or page._follow is None:
                return
            page = page._follow(page.next)

    def to_arrow(self) -> "pyarrow.Table":
        """The rows as an Arrow table; what is not a plain value becomes JSON text.

        Raises :class:`LedgerError` where pyarrow is not installed.
        """
        return table([row.as_json() for row in self])

    def to_pandas(self) -> "pandas.DataFrame":
        """The rows as a pandas data frame; what is not a plain value becomes JSON text.

        Raises :class:`LedgerError` where pandas is not installed.
        """
        return frame([row.as_json() for row in self])

    @overload
    def __getitem__(self, index: int) -> T: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[T]: ...
    def __getitem__(self, index: int | slice) -> T | Sequence[T]:
        return self._rows[index]

    def __len__(self) -> int:
        return len(self._rows)

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Page):
            return self._rows == other._rows
        return isinstance(other, (list, tuple)) and self._rows == tuple(other)

    __hash__ = None  # pyright: ignore[reportAssignmentType]

    def __repr__(self) -> str:
        return f"Page({list(self._rows)!r}, next={self.next!r})"


def table(rows: Sequence[Mapping[str, Any]]) -> "pyarrow.Table":
    """Plain rows as an Arrow table. Raises :class:`LedgerError` without pyarrow."""
    try:
        import pyarrow
    except ImportError:
        raise LedgerError("Arrow needs pyarrow: pip install 'secateur[frames]'") from None
    return pyarrow.Table.from_pylist([_flat(row) for row in rows])


def frame(rows: Sequence[Mapping[str, Any]]) -> "pandas.DataFrame":
    """Plain rows as a pandas data frame. Raises :class:`LedgerError` without pandas."""
    try:
        import pandas
    except ImportError:
        raise LedgerError("data frames need pandas: pip install 'secateur[frames]'") from None
    return pandas.DataFrame([_flat(row) for row in rows])


def _flat(row: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: json.dumps(value, ensure_ascii=False) if isinstance(value, (dict, list)) else value
        for name, value in row.items()
    }


def one_more(limit: int | None) -> int | None:
    """How many rows to ask for, to know whether there are more than ``limit``.

    Raises :class:`LedgerError` for a limit that would leave nothing.
    """
    if limit is not None and limit < 1:
        raise LedgerError(f"limit {limit} leaves nothing: give 1 or more, or None for all")
    return None if limit is None else limit + 1


def page(
    rows: Sequence[T],
    limit: int | None,
    place: Callable[[T], str],
    follow: Callable[[str], Page[T]],
) -> Page[T]:
    """A page of at most ``limit`` of these rows, of which there may be one more."""
    if limit is None or len(rows) <= limit:
        return Page(rows)
    return Page(rows[:limit], place(rows[limit - 1]), follow)
