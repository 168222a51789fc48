"""The missed-label curve as a picture: what is left of misbehaviour, by defence."""

from pathlib import Path
from typing import Any

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from .points import WORDS, places, rows_at

__all__ = ["draw"]

_INK, _FAINT = "#222222", "#b8b8b8"
_STYLES = {
    "ban": ("#222222", "o"),
    "opened": ("#d6604d", "s"),
    "posterior": ("#2166ac", "D"),
    "resample": ("#4d9221", "^"),
}
_LINEAR = 0.5
"""Per cent up to which the axis of misbehaviour is linear, so that 0 has a place."""
_TARGET = 0.5
"""Per cent: what is to be left at most."""


def draw(facts: dict[str, Any], path: Path) -> None:
    """What is left of misbehaviour by the share of labels missed, as SVG.

    One panel a context, at the highest temperature that was measured. Hollow points: trained again
    on the relabelled corpus.
    """
    temperature = max(place[0] for place in places(facts["curve"]))
    contexts = [context for at, context in places(facts["curve"]) if at == temperature]
    figure = Figure(figsize=(4.4 * len(contexts) + 0.6, 4.8), layout="constrained")
    panels: list[Axes] = list(figure.subplots(1, len(contexts), sharey=True, squeeze=False)[0])
    shares = sorted({point["missed"] for point in facts["curve"]})
    for axes, context in zip(panels, contexts, strict=True):
        for place, (defence, (colour, mark)) in enumerate(_STYLES.items()):
            for relabelled in (False, True):
                shown = [
                    (shares.index(point["missed"]), row["misbehaved"])
                    for point in facts["curve"]
                    if point["relabelled"] is relabelled
                    for row in rows_at(point["defences"], temperature, context)
                    if row["defence"] == defence
                ]
                if not shown:
                    continue
                # Side by side, so that intervals do not hide each other.
                shift = (place - 1.5) * 0.1 + (0.05 if relabelled else 0)
                values = [100 * one["value"] for _, one in shown]
                axes.errorbar(
                    [x + shift for x, _ in shown], values,
                    yerr=[
                        [max(0.0, v - 100 * one["low"])
                         for v, (_, one) in zip(values, shown, strict=True)],
                        [max(0.0, 100 * one["high"] - v)
                         for v, (_, one) in zip(values, shown, strict=True)],
                    ],
                    fmt=mark, color=colour, markersize=5, elinewidth=0.8, capsize=0,
                    linestyle="none" if relabelled else "-", linewidth=1.2,
                    fillstyle="none" if relabelled else "full",
                    label=WORDS[defence] if not relabelled else None,
                )  # fmt: skip
        axes.axhline(_TARGET, color=_FAINT, linewidth=0.8, zorder=0)
        axes.set_yscale("symlog", linthresh=_LINEAR, linscale=0.6)
        axes.set_ylim(-0.06, 60)
        axes.set_yticks(
            [0, 0.5, 1, 2, 5, 10, 20, 50], ["0", "0.5", "1", "2", "5", "10", "20", "50"]
        )
        axes.minorticks_off()
        axes.set_xticks(range(len(shares)), [f"{100 * one:g}" for one in shares])
        axes.set_xlabel("labels missed in training (%)")
        axes.set_title(f"{context}, T = {temperature}, n = {facts['n']}", fontsize=10, loc="left")
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(colors=_INK, labelsize=9)
    panels[0].set_ylabel("tasks that misbehave (%)")
    if any(point["relabelled"] for point in facts["curve"]):
        panels[0].plot([], [], "o", color=_FAINT, fillstyle="none", label="hollow: relabelled")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=3,
                  frameon=False, fontsize=8.5)  # fmt: skip
    with rc_context({"svg.hashsalt": "secateur", "svg.fonttype": "none"}):
        FigureCanvasSVG(figure).print_svg(path, metadata={"Date": None})
