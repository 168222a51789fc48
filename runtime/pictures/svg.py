"""A picture as SVG that stands alone: no fonts, scripts or styles from elsewhere."""

from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from typing import assert_never

from rich.cells import cell_len

from ...gates.visible import visible
from .folding import Fold, Item, Picture
from .layout import Layout, Point, layered
from .looks import Drawn, Fate, because, fate_of, shortened

__all__ = ["svg"]

_FONT = 11.0
_CELL = 0.602 * _FONT
"""Width of one column of the monospaced text."""
_LINE = 14.0
_PAD = 7.0
_BADGE = 18.0
"""Width of the strip that carries the mark."""
_COLUMNS = 34
"""Characters of each line of a box."""
_TOOLTIP = 600
"""Characters of a thought's text in its tooltip."""
_MARGIN = 18.0
_HEAD = 62.0
"""Height of the title and the legend."""
_SLACK = 0.01
"""How much a dead branch holds its place, where a living one holds it by 1."""
_WIDE = 1.6
"""The shape that a picture should have: width to height."""

_COLOURS = {
    Fate.KEPT: "#1a7f37",
    Fate.FLAGGED: "#9a6700",
    Fate.CUT: "#cf222e",
    Fate.AGAIN: "#bc4c00",
    Fate.FAILED: "#8250df",
    Fate.WAITS: "#0969da",
    Fate.DROPPED: "#6e7781",
}
_MARKS = {
    Fate.KEPT: "M-4 0l3 3 5-6",
    Fate.FLAGGED: "M-3 5v-10l7 3-7 3",
    Fate.CUT: "M-4-4l8 8m0-8l-8 8",
    Fate.AGAIN: "M4 0a4 4 0 1 1-1.5-3.1m.3-2.4v2.6h-2.6",
    Fate.FAILED: "M0-5v6m0 3v.6",
    Fate.WAITS: "M-2.6-2.4a2.6 2.6 0 1 1 3.6 2.4q-1 .5-1 1.6m0 2.8v.6",
    Fate.DROPPED: "M-3.5 0h7",
}
"""Drawn rather than written, so that they do not hang on a font."""
_FAINT = (Fate.DROPPED, Fate.AGAIN)
_NAMES = {fate: fate.name.lower() for fate in Fate}


@dataclass(frozen=True, slots=True)
class _Box:
    """What stands in one box."""

    name: str
    """The class of its style."""
    lines: tuple[tuple[str, str], ...]
    """Class and words of each line."""
    tooltip: str
    width: float
    height: float


def svg(drawn: Picture) -> str:
    """The picture, layer by layer, downwards or to the right, whichever suits a screen better.

    Each box has a colour, a mark and an outline of its own kind, the reason of a cut in words, and
    the thought's text as its tooltip.
    """
    items = _balanced(drawn)
    number = {item.id: n for n, item in enumerate(items)}
    boxes = [_box(drawn, item) for item in items]
    edges: list[tuple[int, int]] = []
    for n, item in enumerate(items):
        above = (item.under,) if isinstance(item, Fold) else drawn.parents[item.id]
        edges += [(number[parent], n) for parent in above if parent is not None]
    pulls = [
        1.0 if item.id in drawn.living and not isinstance(item, Fold) else _SLACK for item in items
    ]
    down = layered([(b.height, b.width) for b in boxes], edges, pulls, gap=14, layer_gap=34)
    right = layered([(b.width, b.height) for b in boxes], edges, pulls, gap=9, layer_gap=44)
    falls = max(down.across / _WIDE, down.along) < max(right.along / _WIDE, right.across)
    layout = down if falls else right

    def at(point: Point) -> Point:
        along, across = point
        x, y = (across, along) if falls else (along, across)
        return x + _MARGIN, y + _MARGIN + _HEAD

    wide, high = (layout.across, layout.along) if falls else (layout.along, layout.across)
    legend, legend_width = _legend(drawn, items)
    title = shortened(drawn.title, 120)
    width = round(max(wide, legend_width, len(title) * 8.5) + 2 * _MARGIN)
    height = round(high + 2 * _MARGIN + _HEAD)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
        f'width="{width}" height="{height}" role="img" aria-label="{escape(title)}">',
        f"<style>{_style()}</style>",
        f'<rect class="page" x=".5" y=".5" width="{width - 1}" height="{height - 1}" rx="8"/>',
        f'<text class="title" x="{_MARGIN:g}" y="30">{escape(title)}</text>',
        legend,
        *_threads(drawn, items, edges, layout, at, falls),
    ]
    for box, place in zip(boxes, layout.boxes, strict=True):
        x, y = at(place)
        parts.append(_draw(box, x - box.width / 2, y - box.height / 2))
    return "\n".join([*parts, "</svg>"]) + "\n"


def _balanced(drawn: Picture) -> list[Item]:
    """All that is shown, a parent before its children, with what came to nothing on both sides of
    what goes on."""
    found: list[Item] = []
    todo = list(reversed(drawn.children.get(None, ())))
    while todo:
        item = todo.pop()
        found.append(item)
        if isinstance(item, Fold):
            continue
        below = drawn.children.get(item.id, ())
        living = [one for one in below if not isinstance(one, Fold) and one.id in drawn.living]
        dead = [one for one in below if one not in living]
        half = len(dead) // 2
        todo += reversed([*dead[:half], *living, *dead[half:]] if living else dead)
    return found


def _box(drawn: Picture, item: Item) -> _Box:
    if isinstance(item, Fold):
        count, _, kinds = item.summary.partition(": ")
        lines = [("op", f"▸ {count}"), *(("t", line) for line in _wrapped(kinds))]
        return _sized("fold", lines, "\n".join(_told(thought) for thought in item.thoughts[:8]))
    fate = fate_of(item)
    merge = drawn.merges.get(item.id)
    operation = shortened(item.operation, _COLUMNS - 10)
    lines = [("op", f"{merge + ' ' if merge else ''}{operation}")]
    if item.text.strip():
        lines.append(("t", shortened(item.text, _COLUMNS)))
    if fate in (Fate.KEPT, Fate.DROPPED):  # the mark says which; a loser's reason is its score
        if item.score is not None:
            lines.append(("t", f"score {item.score:.4g}"))
    else:
        lines += [("why", line) for line in _wrapped(because(item) or fate.value)]
    lines[0] = ("op", f"{lines[0][1]}{' ' * 2}{item.id[:8]}")
    return _sized(_NAMES[fate], lines, _told(item))


def _sized(name: str, lines: Sequence[tuple[str, str]], tooltip: str) -> _Box:
    widest = max(cell_len(words) * (1.02 if kind == "op" else 1.0) for kind, words in lines)
    return _Box(
        name,
        tuple((kind, visible(words)) for kind, words in lines),
        visible(tooltip),
        round(_BADGE + widest * _CELL + 2 * _PAD + (7 if name in ("failed", "waits") else 0)),
        round(len(lines) * _LINE + _PAD + 2),
    )


def _wrapped(words: str) -> list[str]:
    """On up to three lines."""
    lines = [""]
    for word in words.split():
        word = shortened(word, _COLUMNS)
        if len(lines[-1]) + len(word) + 1 > _COLUMNS and lines[-1]:
            lines.append("")
        lines[-1] += f" {word}" if lines[-1] else word
    if len(lines) > 3:
        lines = [*lines[:2], shortened(" ".join(lines[2:]), _COLUMNS)]
    return lines


def _told(thought: Drawn) -> str:
    """A thought in full, as far as a tooltip goes."""
    text = thought.text.strip()
    said = [f"{thought.operation} {thought.id}: {fate_of(thought)}"]
    if why := because(thought):
        said.append(why)
    if thought.attempt:
        said.append(f"try {thought.attempt + 1}")
    if text:
        said.append(text if len(text) <= _TOOLTIP else text[: _TOOLTIP - 1] + "…")
    return "\n".join(said)


def _draw(box: _Box, x: float, y: float) -> str:
    w, h = box.width, box.height
    said = [f'<g class="{box.name}" transform="translate({x:.0f} {y:.0f})">']
    said.append(f"<title>{escape(box.tooltip, quote=False)}</title>")
    if box.name == "fold":  # a stack of cards
        said.append(f'<path d="M6 0v-3h{w:g}v{h:g}h-3"/>')
    said.append(f'<path d="{_outline(box.name, w, h)}"/>')
    if box.name != "fold":
        said.append(f'<use href="#{box.name}" x="12" y="{h / 2:g}"/>')
    left = _PAD + (0 if box.name == "fold" else _BADGE)
    for place, (kind, words) in enumerate(box.lines, 1):
        named = "" if kind == "t" else f' class="{kind}"'
        if kind == "op" and box.name != "fold":
            head, _, id_ = words.rpartition("  ")
            words_ = f'{escape(head, quote=False)}<tspan class="id">  {escape(id_)}</tspan>'
        else:
            words_ = escape(words, quote=False)
        said.append(f'<text{named} x="{left:g}" y="{place * _LINE:g}">{words_}</text>')
    return "".join([*said, "</g>"])


def _outline(name: str, w: float, h: float) -> str:
    """The outline tells the kind too: cut corners for a cut, a point for what waits …"""
    match name:
        case "cut" | "again":
            return f"M6 0h{w - 12:g}l6 6v{h - 12:g}l-6 6h-{w - 12:g}l-6-6v-{h - 12:g}z"
        case "failed":
            return f"M0 0h{w:g}l-6 {h / 2:g} 6 {h / 2:g}h-{w:g}z"
        case "waits":
            return f"M0 0h{w - 7:g}l7 {h / 2:g}-7 {h / 2:g}h-{w - 7:g}z"
        case "dropped" | "fold":
            return f"M0 0h{w:g}v{h:g}h-{w:g}z"
        case _:
            return (
                f"M5 0h{w - 10:g}q5 0 5 5v{h - 10:g}q0 5-5 5h-{w - 10:g}q-5 0-5-5v-{h - 10:g}"
                "q0-5 5-5z"
            )


def _threads(
    drawn: Picture,
    items: Sequence[Item],
    edges: Sequence[tuple[int, int]],
    layout: Layout,
    at: Callable[[Point], Point],
    falls: bool,
) -> list[str]:
    """The edges, all of one kind in one path: what lives in ink, what came to nothing faint."""
    paths: dict[str, list[str]] = defaultdict(list)
    for (start, end), points in zip(edges, layout.edges, strict=True):
        first, last = items[start], items[end]
        alive = not isinstance(last, Fold) and {first.id, last.id} <= drawn.living
        if isinstance(last, Fold):
            kind = "faint"
        else:
            kind = "e" if alive else "gone" if fate_of(last) is Fate.CUT else "faint"
        paths[kind].append(_curve([at(point) for point in points], falls))
    return [f'<path class="{kind}" d="{"".join(paths[kind])}"/>' for kind in sorted(paths)]


def _curve(points: Sequence[Point], falls: bool) -> str:
    """A line that leaves and arrives square to the layers."""
    x, y = points[0]
    said = [f"M{x:.0f} {y:.0f}"]
    for u, v in points[1:]:
        if falls:
            said.append(f"C{x:.0f} {(y + v) / 2:.0f} {u:.0f} {(y + v) / 2:.0f} {u:.0f} {v:.0f}")
        else:
            said.append(f"C{(x + u) / 2:.0f} {y:.0f} {(x + u) / 2:.0f} {v:.0f} {u:.0f} {v:.0f}")
        x, y = u, v
    return "".join(said)


def _legend(drawn: Picture, items: Sequence[Item]) -> tuple[str, float]:
    """The marks that occur with their words and counts, over all thoughts."""
    counts = Counter(fate_of(thought) for thought in drawn.thoughts)
    said: list[str] = ['<g class="legend">']
    marks = [f'<path id="{_NAMES[fate]}" d="{_MARKS[fate]}"/>' for fate in Fate if counts[fate]]
    x = _MARGIN
    for fate in Fate:
        if not counts[fate]:
            continue
        words = f"{counts[fate]} {fate}"
        said.append(
            f'<g class="{_NAMES[fate]}"><use href="#{_NAMES[fate]}" x="{x + 6:.0f}" y="50"/></g>'
            f'<text x="{x + 16:.0f}" y="54">{words}</text>'
        )
        x += 16 + len(words) * _CELL + 18
    if drawn.folded:
        words = f"{drawn.folded} of them folded (▸)"
        said.append(f'<text x="{x:.0f}" y="54">{words}</text>')
        x += len(words) * _CELL + 18
    return f"<defs>{''.join(marks)}</defs>" + "".join([*said, "</g>"]), x


def _style() -> str:
    mono = 'ui-monospace,SFMono-Regular,Menlo,Consolas,"DejaVu Sans Mono",monospace'
    rules = [
        ".page{fill:#fff;stroke:#d0d7de}",
        f"text{{font:{_FONT:g}px {mono};fill:#1f2328;white-space:pre}}",
        ".title{font-size:15px;font-weight:600}",
        ".op{font-weight:600}.id{font-weight:400;fill:#818b98}",
        "path,use{fill:none;stroke-width:1.3}",
        "use{stroke-width:2;stroke-linecap:round;stroke-linejoin:round}",
        ".e{stroke:#57606a}.gone{stroke:#cf222e;stroke-dasharray:4 3;opacity:.7}",
        ".faint{stroke:#afb8c1;stroke-dasharray:3 3}",
        ".fold path{fill:#f6f8fa;stroke:#afb8c1}.fold text{fill:#59636e}",
    ]
    for fate in Fate:
        name, colour = _NAMES[fate], _COLOURS[fate]
        rules.append(f".{name} path,.{name} use{{stroke:{colour}}}.{name} .why{{fill:{colour}}}")
        rules.append(f".{name} path{{fill:{_fill(fate)}}}")
    faint = ",".join(f".{_NAMES[fate]}" for fate in _FAINT)
    rules.append(f"{faint}{{opacity:.75}}")
    rules.append(",".join(f".{_NAMES[fate]} path" for fate in _FAINT) + "{stroke-dasharray:4 3}")
    return "".join(rules)


def _fill(fate: Fate) -> str:
    match fate:
        case Fate.KEPT:
            return "#f3fbf5"
        case Fate.FLAGGED:
            return "#fff8c5"
        case Fate.CUT:
            return "#ffebe9"
        case Fate.FAILED:
            return "#fbefff"
        case Fate.WAITS:
            return "#ddf4ff"
        case Fate.AGAIN | Fate.DROPPED:
            return "#fff"
        case unknown:
            assert_never(unknown)
