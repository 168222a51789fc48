"""The picture of a run while it grows: its latest thoughts, as many as the screen has lines for."""

import asyncio
import sys
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import islice
from typing import Final

from rich.console import Console as RichConsole
from rich.console import ConsoleOptions, Group, RenderResult
from rich.live import Live

from ..agents.thought import Thought
from ..runtime.pictures.looks import Fate, fate_of
from ..runtime.screen import Console, Words
from .tree import render_tree

__all__ = ["GrowingPicture", "shown_live"]

_PAUSE: Final = 1 / 8
"""Seconds between two drawings."""


class GrowingPicture:
    """What is there of a run. Taking a thought costs the same however many there are, and so does
    drawing: only the thoughts that changed last, and no more of them than fit, are looked at."""

    def __init__(self, title: str) -> None:
        self.title = title
        self.changed = False
        self._seen: dict[str, Thought] = {}
        """By id; what changed last stands last."""
        self._fates: Counter[Fate] = Counter()

    def take(self, thought: Thought) -> None:
        """A thought that is new, or of which something changed."""
        before = self._seen.pop(thought.id, None)
        if before is not None:
            self._fates[fate_of(before)] -= 1
        self._seen[thought.id] = thought
        self._fates[fate_of(thought)] += 1
        self.changed = True

    def latest(self, most: int) -> list[Thought]:
        """Those that changed last, in the graph's order."""
        found = list(islice(reversed(self._seen.values()), most))
        return sorted(found, key=lambda thought: (thought.path, thought.attempt))

    def __rich_console__(self, console: RichConsole, options: ConsoleOptions) -> RenderResult:
        self.changed = False
        lines = max(console.size.height - 2, 2)  # without the title, and where the cursor stands
        if len(self._seen) <= lines:
            yield render_tree(self.latest(lines), self.title)
            return
        fates = [f"{count} {fate}" for fate, count in self._fates.items() if count]
        yield render_tree(self.latest(lines - 1), self.title)
        said = f"the latest of {len(self._seen)} thoughts: {', '.join(fates)}"
        yield Words(said, style="dim", no_wrap=True, overflow="ellipsis")


@asynccontextmanager
async def shown_live(title: str) -> AsyncIterator[GrowingPicture]:
    """A picture that is drawn again while it changes, on a terminal; anywhere else it is not."""
    picture = GrowingPicture(title)
    console = Console()
    if not sys.stdout.isatty() or not console.is_terminal or console.is_dumb_terminal:
        yield picture
        return
    with Live(Group(picture), console=console, auto_refresh=False, transient=True) as live:
        drawing = asyncio.create_task(_draw(live, picture))
        try:
            yield picture
        finally:
            drawing.cancel()


async def _draw(live: Live, picture: GrowingPicture) -> None:
    while True:
        if picture.changed:
            live.refresh()
        await asyncio.sleep(_PAUSE)
