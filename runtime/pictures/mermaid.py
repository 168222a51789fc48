"""A picture as a Mermaid flowchart, which GitHub and many editors draw."""

from typing import assert_never

from ...gates.visible import spelt
from .folding import Fold, Item, Picture
from .looks import Fate, because, fate_of, shortened

__all__ = ["MOST_EDGES", "mermaid"]

MOST_EDGES = 500
"""Edges that GitHub's Mermaid draws; a chart with more shows an error there."""

_TEXT = 40
_CLASSES = {
    Fate.KEPT: ("kept", "fill:#dafbe1,stroke:#1a7f37,color:#1f2328"),
    Fate.FLAGGED: ("flagged", "fill:#fff8c5,stroke:#9a6700,color:#1f2328"),
    Fate.CUT: ("cut", "fill:#ffebe9,stroke:#cf222e,color:#1f2328,stroke-width:2px"),
    Fate.AGAIN: ("again", "fill:#f6f8fa,stroke:#9a6700,color:#59636e,stroke-dasharray:4 3"),
    Fate.FAILED: ("failed", "fill:#fbefff,stroke:#8250df,color:#1f2328"),
    Fate.WAITS: ("waits", "fill:#ddf4ff,stroke:#0969da,color:#1f2328"),
    Fate.DROPPED: ("dropped", "fill:#f6f8fa,stroke:#818b98,color:#59636e,stroke-dasharray:4 3"),
}
_FOLD = "fill:#f6f8fa,stroke:#818b98,color:#59636e"


def mermaid(drawn: Picture) -> tuple[str, int]:
    """The flowchart's text, and how many edges it has. Node ids are numbers, so that no id of a
    thought can be mistaken for a word of Mermaid's; the thoughts' own ids stand in the labels."""
    items = drawn.items()
    number = {item.id: n for n, item in enumerate(items)}
    lines = ["---", f"title: {_quoted(drawn.title)}", "---", "flowchart TD"]
    used: dict[str, str] = {}
    for n, item in enumerate(items):
        if isinstance(item, Fold):
            name, style = "fold", _FOLD
        else:
            name, style = _CLASSES[fate_of(item)]
        used[name] = style
        lines.append(f"  n{n}{_shape(drawn, item)}:::{name}")
    edges = 0
    for n, item in enumerate(items):
        above = (item.under,) if isinstance(item, Fold) else drawn.parents[item.id]
        alive = not isinstance(item, Fold) and item.id in drawn.living
        for parent in above:
            if parent is not None:
                lines.append(f"  n{number[parent]} {'-->' if alive else '-.->'} n{n}")
                edges += 1
    lines += [f"  classDef {name} {style}" for name, style in used.items()]
    return "\n".join(lines) + "\n", edges


def _shape(drawn: Picture, item: Item) -> str:
    if isinstance(item, Fold):
        return f'[["{_escaped("▸ " + item.summary)}"]]'
    fate = fate_of(item)
    merge = drawn.merges.get(item.id)
    head = f"{fate.mark} {merge + ' ' if merge else ''}{shortened(item.operation, 40)}"
    said = [_escaped(head)]
    if item.text.strip():
        said.append(_escaped(shortened(item.text, _TEXT)))
    if fate is not Fate.KEPT:
        why = because(item)
        said.append(_escaped(f"{fate}: {shortened(why, 2 * _TEXT)}" if why else str(fate)))
    score = "" if item.score is None else f"score {item.score:.4g}, "
    said.append(_escaped(score + item.id[:8]))
    label = "<br/>".join(said)
    match fate:
        case Fate.KEPT | Fate.FLAGGED:
            return f'["{label}"]'
        case Fate.CUT:
            return f'{{{{"{label}"}}}}'
        case Fate.FAILED:
            return f'>"{label}"]'
        case Fate.WAITS:
            return f'[/"{label}"/]'
        case Fate.AGAIN | Fate.DROPPED:
            return f'("{label}")'
        case unknown:
            assert_never(unknown)


def _escaped(text: str) -> str:
    """Text with all that Mermaid, Markdown or HTML could read as its own spelt as entities."""
    return "".join(f"#{ord(char)};" if char in _THEIRS else char for char in text)


_THEIRS = "\"#&;<>`*_~\\|{}[]()%$:@/'"


def _quoted(title: str) -> str:
    """A YAML string in single quotes; entities are not read in a title, so what Mermaid, Markdown
    or HTML could read as its own is spelt."""
    plain = "".join(
        spelt(char) if char in _NOT_IN_TITLES else char for char in shortened(title, 200)
    )
    return "'" + plain.replace("'", "''") + "'"


_NOT_IN_TITLES = "<>`{}%&#;"
