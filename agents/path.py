"""Where a thought stands in the graph: numbers that lead there from the root."""

from collections.abc import Iterator
from typing import Self

__all__ = ["Path"]


class Path:
    """A sequence of numbers that shares all but its last with the one it was made from.

    It sorts and compares as the tuple of its numbers does; a chain of thoughts takes memory in
    proportion to its length, and siblings are compared in one step.
    """

    __slots__ = ("_above", "_last", "_length")

    def __init__(self, *numbers: int) -> None:
        above: Path | None = None
        for number in numbers[:-1]:
            above = _joined(above, number)
        self._above = above
        self._last = numbers[-1] if numbers else -1
        self._length = len(numbers)

    def below(self, *numbers: int) -> "Path":
        """The path that goes on from here."""
        path: Path = self
        for number in numbers:
            path = _joined(path if path._length else None, number)
        return path

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[int]:
        numbers: list[int] = []
        path: Path | None = self if self._length else None
        while path is not None:
            numbers.append(path._last)
            path = path._above
        return reversed(numbers)

    def __getitem__(self, index: int) -> int:
        if not -self._length <= index < self._length:
            raise IndexError(f"a path of {self._length} numbers has no number {index}")
        return self._up(-index - 1 if index < 0 else self._length - 1 - index)._last

    def __eq__(self, other: object) -> bool:
        if isinstance(other, tuple):
            return tuple(self) == other
        if not isinstance(other, Path) or self._length != other._length:
            return False
        one, two = self, other
        while one is not two:
            if one._last != two._last or one._above is None or two._above is None:
                return one._last == two._last
            one, two = one._above, two._above
        return True

    def __lt__(self, other: Self) -> bool:
        shorter = min(self._length, other._length)
        if not shorter:
            return self._length < other._length
        one, two = self._up(self._length - shorter), other._up(other._length - shorter)
        differ: tuple[int, int] | None = None
        while one is not two:
            if one._last != two._last:
                differ = one._last, two._last
            if one._above is None or two._above is None:
                break
            one, two = one._above, two._above
        return self._length < other._length if differ is None else differ[0] < differ[1]

    def __hash__(self) -> int:
        return hash(tuple(self))

    def __repr__(self) -> str:
        return f"Path{tuple(self)}"

    def _up(self, steps: int) -> "Path":
        path = self
        for _ in range(steps):
            assert path._above is not None
            path = path._above
        return path


def _joined(above: Path | None, number: int) -> Path:
    path = Path.__new__(Path)
    path._above, path._last = above, number
    path._length = 1 if above is None else above._length + 1
    return path
