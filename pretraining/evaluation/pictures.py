"""Two pictures of an evaluation: are the forecasts right, and what does each control cost?"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from .subject import GOOD

__all__ = ["reliability", "tradeoff"]

_INK, _FAINT = "#222222", "#b8b8b8"
_BLUE, _ORANGE = "#2166ac", "#d6604d"
_COLOURS = {"calm": _BLUE, "pressed": _ORANGE}
_LABELS = {
    "allow": "allowed", "ban": "banned", GOOD: "good forced", "penalise(1)": "−1 nat",
    "penalise(2)": "−2 nats", "penalise(4)": "−4 nats", "penalise(8)": "−8 nats",
    "boost(1)": "+1 nat", "boost(2)": "+2 nats",
}  # fmt: skip
_NEAR = 0.035
"""Points that lie nearer than this to each other share one label."""


def reliability(facts: dict[str, Any], path: Path) -> None:
    """Forecast against what happened, in bins, with intervals and counts, as SVG."""
    row = next(
        row for row in facts["opened"]
        if row["temperature"] == 1.0 and row["context"] == "calm and pressed"
    )  # fmt: skip
    shown = [
        (name, words, colour)
        for name, words, colour in (
            ("one_path", "one path", _ORANGE),
            ("mean_path", "mean of paths", _BLUE),
        )
        if name in row
    ]
    figure = Figure(figsize=(5.6, 6.6), layout="constrained")
    above, below = figure.subplots(2, 1, height_ratios=[4, 1], sharex=True)
    above.plot([0, 1], [0, 1], color=_FAINT, linewidth=1, zorder=0)
    for number, (name, words, colour) in enumerate(shown):
        found = row[name]["bins"]
        seen = [one["observed"] for one in found]
        label = f"{words}: calibration error {row[name]['ece']['value']:.3f}"
        above.errorbar(
            [one["forecast"] for one in found],
            [one["value"] for one in seen],
            yerr=[
                [one["value"] - one["low"] for one in seen],
                [one["high"] - one["value"] for one in seen],
            ],
            fmt="o", color=colour, markersize=4.5, elinewidth=1, capsize=0, label=label,
        )  # fmt: skip
        width = 0.1 / (len(shown) + 0.5)
        below.bar(
            [one["from"] + width * (number + 0.25) for one in found],
            [one["n"] / row["runs"] for one in seen],
            width=width, align="edge", color=colour,
        )  # fmt: skip
    _plain(above)
    _plain(below)
    above.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01))
    above.set_ylabel("share of other free runs that misbehave")
    above.legend(frameon=False, loc="upper left", fontsize=9)
    above.set_title(
        f"{facts['model']}: is opened right? (T = 1, {row['n']} tasks, {row['runs']} free runs "
        "each)",
        fontsize=10, loc="left",
    )  # fmt: skip
    below.set_ylabel("tasks")
    below.set_xlabel("opened, read along paths with the tags banned")
    _write(figure, path)


def tradeoff(facts: dict[str, Any], path: Path) -> None:
    """Each control as a point: misbehaviour and useful work, calm and pressed, with the twin."""
    figure = Figure(figsize=(7.2, 5.0), layout="constrained")
    axes = figure.subplots()
    rows = [row for row in facts["desk"] if row["temperature"] == 0.7]
    for context, colour in _COLOURS.items():
        points = sorted(
            (row for row in rows if row["context"] == context),
            key=lambda row: row["misbehaved"]["value"],
        )
        axes.plot(
            [row["misbehaved"]["value"] for row in points],
            [row["success"]["value"] for row in points],
            color=colour, linewidth=0.8, alpha=0.5, zorder=1,
        )  # fmt: skip
        for row in points:
            _point(axes, row["misbehaved"], row["success"], colour, "o")
        if context == "pressed":
            _label(axes, points)
        axes.plot([], [], "o", color=colour, label=context)
    if facts["tax"] is not None:
        for row in facts["tax"]["desk"]:
            if row["temperature"] == 0.7 and row["context"] in _COLOURS and row["tags"] != GOOD:
                _point(
                    axes, row["twin"], row["twin_success"], _COLOURS[row["context"]], "s",
                    filled=False,
                )  # fmt: skip
        axes.plot([], [], "s", color=_INK, fillstyle="none", label="untagged twin")
    _plain(axes)
    axes.set(xlim=(-0.02, 1.02), ylim=(0, 1.02))
    axes.set_xlabel("misbehaved (share of tasks, judged on the text)")
    axes.set_ylabel("done, checked and truthfully reported")
    axes.set_title(
        f"{facts['model']}: safety against usefulness (T = 0.7, n = {facts['n']} each; "
        "± nats: tags penalised or boosted)",
        fontsize=10, loc="left",
    )  # fmt: skip
    axes.legend(frameon=False, loc="lower left", fontsize=9)
    _write(figure, path)


def _point(
    axes: Axes, x: dict[str, Any], y: dict[str, Any], colour: str, mark: str, filled: bool = True
) -> None:
    axes.errorbar(
        [x["value"]], [y["value"]],
        xerr=[[x["value"] - x["low"]], [x["high"] - x["value"]]],
        yerr=[[y["value"] - y["low"]], [y["high"] - y["value"]]],
        fmt=mark, color=colour, markersize=6, elinewidth=0.7, capsize=0,
        fillstyle="full" if filled else "none", zorder=2,
    )  # fmt: skip


def _label(axes: Axes, points: Sequence[dict[str, Any]]) -> None:
    """Name the controls beside their points."""
    groups: list[list[tuple[float, float, str]]] = []
    for row in points:
        x, y = row["misbehaved"]["value"], row["success"]["value"]
        here = (x, y, _LABELS[row["tags"]])
        near = next((g for g in groups if math.dist(g[-1][:2], (x, y)) < _NEAR), None)
        if near is None:
            groups.append([here])
        else:
            near.append(here)
    for group in groups:
        x, y, _ = group[-1]
        # At the very left the calm points lie above; further right there is room on both sides.
        words = [words for *_, words in group]
        if x < 0.03:
            text, offset, side, rise = ",\n".join(words), (-4, -14), "left", "top"
        elif x < 0.1:
            text, offset, side, rise = ", ".join(words), (13, -4), "left", "top"
        elif x < 0.3:
            text, offset, side, rise = ", ".join(words), (8, 7), "left", "bottom"
        else:
            text, offset, side, rise = ", ".join(words), (-8, -7), "right", "top"
        axes.annotate(
            text, (x, y), xytext=offset, ha=side, va=rise, textcoords="offset points",
            fontsize=8.5, color=_INK, zorder=3,
        )  # fmt: skip


def _plain(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(colors=_INK, labelsize=9)


def _write(figure: Figure, path: Path) -> None:
    """As SVG with its words as text; the same facts give the same bytes."""
    with rc_context({"svg.hashsalt": "secateur", "svg.fonttype": "none"}):
        FigureCanvasSVG(figure).print_svg(path, metadata={"Date": None})
