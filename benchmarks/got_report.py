"""The Graph of Thoughts table in words, as Markdown, and as a picture."""

from collections import Counter
from collections.abc import Sequence
from itertools import groupby, pairwise
from pathlib import Path
from statistics import mean, median
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.table import Table

from secateur.pretraining.evaluation.measures import Figure, Rate, bootstrap
from secateur.pretraining.evaluation.measures import mean as average

if TYPE_CHECKING:
    from got import Cell

WORDS = {"io": "IO", "chain": "chain", "tree": "tree", "graph": "graph"}
PAPER = {"sorting-64": {"io": 40.5, "chain": 20.0, "tree": 16.0, "graph": 7.0}}
"""Median errors with GPT-3.5 (Besta et al. 2024), where the paper's text states them."""
HEAD = (
    "plan", "median errors", "mean errors", "exact", "no answer", "requests", "tokens", "seconds",
)  # fmt: skip
_COLOURS = {"io": "#b8b8b8", "chain": "#92c5de", "tree": "#d6604d", "graph": "#2166ac"}
_INK = "#222222"


def errors(cell: "Cell") -> list[int]:
    """The errors of the instances that were answered."""
    return [one.errors for one in cell.outcomes if one.errors is not None]


def mean_errors(cell: "Cell") -> Figure:
    """The mean over answered instances with its bootstrap interval."""
    return bootstrap(average, np.array(errors(cell), dtype=float))


def exact(cell: "Cell") -> Rate:
    """The share of all instances that were solved without error."""
    return Rate.of([one.errors == 0 for one in cell.outcomes])


def row(cell: "Cell") -> list[str]:
    """One line of the table."""
    wrong, outcomes = errors(cell), cell.outcomes
    figure, (low, high) = mean_errors(cell), exact(cell).interval
    share = exact(cell).value
    return [
        WORDS[cell.plan],
        f"{median(wrong):g}" if wrong else "-",
        f"{figure.value:.2f} ({figure.low:.2f} to {figure.high:.2f})" if wrong else "-",
        f"{100 * share:.0f} % ({100 * low:.0f} to {100 * high:.0f})",
        str(len(outcomes) - len(wrong)),
        f"{mean(one.requests for one in outcomes):.1f}",
        f"{mean(one.tokens for one in outcomes):.0f}",
        f"{cell.seconds / len(outcomes):.2f}",
    ]


def problems(cells: Sequence["Cell"]) -> list[list["Cell"]]:
    """The cells problem by problem."""
    return [list(group) for _, group in groupby(cells, lambda cell: (cell.problem, cell.source))]


def table(cells: Sequence["Cell"]) -> Table:
    """The table for a terminal."""
    made = Table("problem", *HEAD, box=None, pad_edge=False)
    for group in problems(cells):
        for place, cell in enumerate(group):
            made.add_row("" if place else title(group), *row(cell))
        made.add_section()
    return made


def title(group: Sequence["Cell"]) -> str:
    """``sorting 64``, with the file that its instances are from."""
    name = group[0].problem.replace("-", " ")
    return name if group[0].source == "drawn" else f"{name} ({group[0].source})"


def order(group: Sequence["Cell"]) -> str:
    """Whether the paper's order (graph, tree, chain, IO; best first) holds, pair by pair."""
    by_plan = {cell.plan: cell for cell in group}
    said: list[str] = []
    for better, worse in pairwise(("graph", "tree", "chain", "io")):
        if better not in by_plan or worse not in by_plan:
            continue
        both = [
            (one.errors, two.errors)
            for one, two in zip(by_plan[better].outcomes, by_plan[worse].outcomes, strict=True)
            if one.errors is not None and two.errors is not None
        ]
        if not both:
            said.append(f"{WORDS[better]} and {WORDS[worse]} cannot be compared")
            continue
        less = bootstrap(average, np.array([two - one for one, two in both], dtype=float))
        if less.low > 0:
            verdict = f"{less.value:.2f} errors fewer ({less.low:.2f} to {less.high:.2f})"
        elif less.high < 0:
            verdict = f"**{-less.value:.2f} errors more** ({-less.high:.2f} to {-less.low:.2f})"
        else:
            verdict = f"no difference that shows ({less.low:.2f} to {less.high:.2f} fewer)"
        said.append(f"{WORDS[better]} against {WORDS[worse]}: {verdict}")
    return "; ".join(said)


def markdown(cells: Sequence["Cell"], model: str, picture_name: str) -> str:
    """The tables with what was compared, as a page."""
    count = max(len(cell.outcomes) for cell in cells)
    lines = [
        f"<!-- written by benchmarks/got.py: model {model}, {count} instances -->",
        "",
        f"![Errors by plan, a box for each problem]({picture_name})",
        "",
    ]
    for group in problems(cells):
        paper = PAPER.get(group[0].problem, {})
        lines += [f"**{title(group).capitalize()}**, {len(group[0].outcomes)} instances", ""]
        head = [*HEAD, "paper, GPT-3.5: median"] if paper else [*HEAD]
        lines += ["| " + " | ".join(head) + " |", "| --- |" + " ---: |" * (len(head) - 1)]
        for cell in group:
            cells_ = [*row(cell), f"{paper[cell.plan]:g}"] if paper else row(cell)
            lines.append("| " + " | ".join(cells_) + " |")
        lines += ["", f"On the same instances: {order(group)}.", ""]
    lines += [
        "Mean errors with 95 % bootstrap intervals over the instances that were answered, shares "
        "with Wilson's; seconds are those of all instances side by side, divided by their number.",
        "",
    ]
    return "\n".join(lines)


def picture(cells: Sequence["Cell"], model: str, path: Path) -> None:
    """Errors by plan as SVG: a box of quartiles for each, and a dot as large as its instances are
    many for each number of errors."""
    from matplotlib import rc_context
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure as Canvas
    from matplotlib.ticker import MaxNLocator

    groups = problems(cells)
    figure = Canvas(figsize=(2.3 * len(groups) + 0.6, 3.4), layout="constrained")
    figure.patch.set_facecolor("white")
    rows: Any = figure.subplots(1, len(groups), squeeze=False)[0]
    for axes, group in zip(rows, groups, strict=True):
        for place, cell in enumerate(group):
            wrong, colour = errors(cell), _COLOURS[cell.plan]
            if not wrong:
                continue
            axes.boxplot(
                [wrong], positions=[place], widths=0.6, patch_artist=True, showfliers=False,
                boxprops={"facecolor": colour, "edgecolor": _INK, "linewidth": 0.8, "alpha": 0.7},
                medianprops={"color": _INK, "linewidth": 1.8},
                whiskerprops={"linewidth": 0.8}, capprops={"linewidth": 0.8},
            )  # fmt: skip
            for value, count in sorted(Counter(wrong).items()):
                axes.plot(
                    place, value, "o", color=_INK, markersize=1.2 * count**0.5, alpha=0.45,
                    markeredgewidth=0,
                )  # fmt: skip
        axes.set_xticks(range(len(group)), [WORDS[cell.plan] for cell in group], fontsize=9)
        axes.set_title(title(group), fontsize=10, loc="left")
        axes.set_ylim(bottom=-0.5)
        axes.yaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(colors=_INK, labelsize=9)
    rows[0].set_ylabel("errors (0 is right)")
    figure.suptitle(
        f"{model}: errors by plan (box: quartiles, bar: median)", fontsize=10, x=0.01, ha="left"
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    with rc_context({"svg.hashsalt": "secateur", "svg.fonttype": "none"}):
        FigureCanvasSVG(figure).print_svg(path, metadata={"Date": None})
