"""A run drawn as a tree: what was kept, what was cut and for what, what was dropped."""

import io
import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, assert_never

from rich.console import Console, ConsoleOptions, RenderResult
from rich.text import Text
from rich.tree import Tree

from ...agents.thought import Status
from ...gates.verdict import Action, Broken, Crossing, Judgement, Verdict

__all__ = ["Drawn", "because", "render_tree", "shortened", "tree_svg"]

_FONT_FACE = re.compile(r"\s*@font-face \{.*?\}", re.DOTALL)


class Drawn(Protocol):
    """What the picture needs of a thought; both a live one and a row of the ledger have it."""

    @property
    def id(self) -> str: ...
    @property
    def parents(self) -> tuple[str, ...]: ...
    @property
    def operation(self) -> str: ...
    @property
    def status(self) -> Status: ...
    @property
    def text(self) -> str: ...
    @property
    def score(self) -> float | None: ...
    @property
    def reason(self) -> str | None: ...
    @property
    def attempt(self) -> int: ...
    @property
    def judgement(self) -> Judgement | None: ...


def render_tree(thoughts: Sequence[Drawn], title: str = "run", *, width: int = 60) -> Tree:
    """The graph as a tree, in the order given; ``width`` is how much of each text is shown.

    A stretch without branches is one node of several lines, read downwards. A merge stands under
    its first parent and names the others.
    """
    known = {thought.id for thought in thoughts}
    children: dict[str | None, list[Drawn]] = defaultdict(list)
    for thought in thoughts:
        parent = thought.parents[0] if thought.parents else None
        children[parent if parent in known else None].append(thought)
    root = Tree(Text(title, style="bold"), guide_style="dim")
    todo = [(root, child) for child in reversed(children[None])]
    while todo:  # not recursion: a run may be deeper than Python's stack
        above, thought = todo.pop()
        stretch = [thought]
        while len(children[thought.id]) == 1:
            thought = children[thought.id][0]
            stretch.append(thought)
        node = above.add(_Stretch(tuple(stretch), width))
        todo += [(node, child) for child in reversed(children[thought.id])]
    return root


def tree_svg(thoughts: Sequence[Drawn], title: str = "run", *, width: int = 60) -> str:
    """The same tree as a picture that stands alone: no fonts or scripts from elsewhere."""
    console = Console(record=True, file=io.StringIO(), width=width + 60, force_terminal=True)
    console.print(render_tree(thoughts, title, width=width))
    return _FONT_FACE.sub("", console.export_svg(title="secateur", unique_id="tree"))


def because(thought: Drawn) -> str | None:
    """Why the thought is not simply kept, in a few words; None when there is nothing to say."""
    judgement = thought.judgement
    if thought.status is Status.FAILED:
        return thought.reason
    match judgement:
        case Broken():
            return f"could not be read: {judgement.reason}"
        case Verdict(cause=Crossing() as cause):
            if cause.reading == "emitted":  # always 1 against 1; what it stood at says more
                peak = judgement.scores.get(cause.tag, {}).get("peak")
                return f"{cause.tag} emitted" + ("" if peak is None else f", at p {peak:.2f}")
            return f"{cause.tag} {cause.reading} {cause.score:.2f} ≥ {cause.threshold:g}"
        case _:
            return thought.reason


def shortened(text: str, width: int) -> str:
    """On one line, with an ellipsis where it was cut."""
    line = " ".join(text.split())
    return line if len(line) <= width else line[: width - 1].rstrip() + "…"


@dataclass(frozen=True, slots=True)
class _Stretch:
    """Thoughts below each other; texts give way so that each keeps to one line of the screen."""

    thoughts: tuple[Drawn, ...]
    width: int

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        for thought in self.thoughts:
            line = _line(thought, self.width)
            if (over := line.cell_len - options.max_width) > 0:
                shown = len(shortened(thought.text, self.width))
                line = _line(thought, max(shown - over, 12))
            yield line


def _line(thought: Drawn, width: int) -> Text:
    mark, style, word = _look(thought)
    line = Text(overflow="fold")
    line.append(f"{mark} {thought.operation}", style=style)
    if thought.text.strip():
        dimmed = "dim" if thought.status is Status.DROPPED else ""
        line.append(f"  {shortened(thought.text, width)}", style=dimmed)
    if thought.attempt:
        line.append(f"  try {thought.attempt + 1}", style="dim")
    if thought.score is not None:
        line.append(f"  score {thought.score:g}", style="cyan")
    if word:
        reason = because(thought)
        said = f"{word}: {shortened(reason, 2 * width)}" if reason else word
        line.append(f"  {said}", style=style)
    if len(thought.parents) > 1:
        others = ", ".join(parent[:8] for parent in thought.parents[1:])
        line.append(f"  + from {others}", style="dim")
    line.append(f"  {thought.id[:8]}", style="dim")
    return line


def _look(thought: Drawn) -> tuple[str, str, str]:
    """Mark, colour, and the word for what became of it."""
    match thought.status:
        case Status.KEPT:
            crossed = isinstance(thought.judgement, Verdict) and thought.judgement.cause
            return ("✓", "yellow", "flagged") if crossed else ("✓", "green", "")
        case Status.PRUNED:
            # A try that gave way to another has a reason; one that no budget was left for has none.
            judged = thought.judgement
            asked = isinstance(judged, Verdict) and judged.action is Action.RESAMPLE
            retried = asked and thought.reason is not None
            return ("↺", "yellow", "tried again") if retried else ("✗", "red", "cut")
        case Status.FAILED:
            return "!", "magenta", "failed"
        case Status.ESCALATED:
            return "?", "yellow", "waits for a person"
        case Status.DROPPED:
            return "·", "dim", "dropped"
        case unknown:
            assert_never(unknown)
