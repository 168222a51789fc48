"""A run drawn as a tree: what was kept, what was cut and for what, what was dropped."""

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass

from rich.console import Console, ConsoleOptions, RenderResult

from ..runtime.pictures.folding import Fold, Item, Picture, picture
from ..runtime.pictures.looks import Drawn, Fate, because, fate_of, shortened
from ..runtime.screen import Words

__all__ = ["TreeView", "render_tree"]

_STYLES = {
    Fate.KEPT: "green",
    Fate.FLAGGED: "yellow",
    Fate.CUT: "red",
    Fate.AGAIN: "dim",
    Fate.FAILED: "magenta",
    Fate.WAITS: "yellow",
    Fate.DROPPED: "dim",
}
_LEAST = 12
"""Columns that a text or a reason keeps on a narrow terminal."""


def render_tree(
    thoughts: Iterable[Drawn],
    title: str = "run",
    *,
    width: int = 60,
    everything: bool = False,
    unfold: Collection[str] = (),
) -> "TreeView":
    """The graph as a tree, in the order given; ``width`` is how much of each text is shown.

    A line of thoughts is read downwards: what goes on from a thought stands straight below it, and
    what came to nothing beside it, or folded. A merge stands once, under its first parent, with a
    name (``M1``) to which its other parents point.
    """
    return TreeView(picture(thoughts, title, everything=everything, unfold=unfold), width)


@dataclass(frozen=True, slots=True)
class TreeView:
    """A picture as lines of a terminal; texts give way so that each keeps to one line."""

    picture: Picture
    width: int

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield Words(shortened(self.picture.title, options.max_width), style="bold")
        for guide, item in _placed(self.picture):
            if isinstance(item, Fold):
                line = Words(guide, style="dim").append(f"▸ {item.id[:8]}  {item.summary}")
                line.truncate(options.max_width, overflow="ellipsis")
            else:
                line = self._fitted(guide, item, options.max_width)
            line.no_wrap = True
            yield line

    def _fitted(self, guide: str, item: Drawn, columns: int) -> Words:
        """A thought's line. Where it is too long its text gives way, then its reason; why a loser
        lost goes first, and the id never."""
        id = Words(f"  {item.id[:8]}", style="dim")
        columns -= id.cell_len
        width, reason = self.width, 2 * self.width
        line = self._line(guide, item, width, reason)
        if line.cell_len > columns and fate_of(item) is Fate.DROPPED:
            reason = 0
            line = self._line(guide, item, width, reason)
        if (over := line.cell_len - columns) > 0:
            shown = len(shortened(item.text, width))
            width = max(shown - over, min(shown, _LEAST))
            line = self._line(guide, item, width, reason)
        if (over := line.cell_len - columns) > 0:
            shown = len(shortened(because(item) or "", reason)) if reason else 0
            line = self._line(guide, item, width, max(shown - over, min(shown, _LEAST)))
        line.truncate(columns, overflow="ellipsis")
        line.append_text(id)
        return line

    def _line(self, guide: str, item: Drawn, width: int, reason: int) -> Words:
        """The line but for its id, with so many characters of the text and of the reason."""
        line = Words()
        line.append(guide, style="dim")
        fate = fate_of(item)
        faint = fate in (Fate.DROPPED, Fate.AGAIN)
        merge = self.picture.merges.get(item.id)
        line.append(
            f"{fate.mark} {merge + ' ' if merge else ''}{shortened(item.operation, 40)}",
            style=_STYLES[fate],
        )
        if item.text.strip():
            line.append(f"  {shortened(item.text, width)}", style="dim" if faint else "")
        if item.attempt:
            line.append(f"  try {item.attempt + 1}", style="dim")
        if item.score is not None:
            line.append(f"  score {item.score:.4g}", style="dim" if faint else "cyan")
        if fate is not Fate.KEPT:
            why = because(item) if reason else None
            said = f"{fate}: {shortened(why, reason)}" if why else fate.value
            line.append(f"  {said}", _STYLES[fate])
        if merge:
            others = ", ".join(parent[:8] for parent in self.picture.parents[item.id][1:])
            line.append(f"  + from {others}", style="dim")
        if names := self.picture.into.get(item.id):
            line.append(f"  → {', '.join(names)}", style="cyan")
        return line


def _placed(drawn: Picture) -> Iterator[tuple[str, Item]]:
    """Every item with the guide lines before it."""
    todo = _below(drawn, None, "")
    todo.reverse()
    while todo:  # not recursion: a run may be deeper than Python's stack
        guide, rest, item = todo.pop()
        yield guide, item
        if not isinstance(item, Fold):
            todo += reversed(_below(drawn, item.id, rest))


def _below(drawn: Picture, id: str | None, rest: str) -> list[tuple[str, str, Item]]:
    """The items below a thought: each with its guide, and the guide of what stands below it."""
    items = drawn.children.get(id, ())
    straight = _straight(drawn, items)
    beside = [item for item in items if item is not straight]
    found: list[tuple[str, str, Item]] = []
    for place, item in enumerate(beside, 1):
        last = place == len(beside) and straight is None
        found.append((rest + ("└─ " if last else "├─ "), rest + ("   " if last else "│  "), item))
    return found if straight is None else [*found, (rest, rest, straight)]


def _straight(drawn: Picture, items: tuple[Item, ...]) -> Item | None:
    """The one item with which a line of thoughts goes on; None where it branches or ends."""
    if len(items) == 1:
        return None if isinstance(items[0], Fold) else items[0]
    living = [item for item in items if not isinstance(item, Fold) and item.id in drawn.living]
    return living[0] if len(living) == 1 else None
