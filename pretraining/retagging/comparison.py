"""What a model and a tagger disagree on, counted and listed, and the map that calibrates it."""

import heapq
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ...gates.calibration import Calibration, CalibrationError
from ...gates.policy import Policy
from ...gates.reading import Reading
from ..evaluation.measures import Floats, Rate, brier, calibration_error
from .rereading import Seen

__all__ = ["Comparison", "fit", "markdown", "write_policy"]

_SCARCE = 20
"""Bad lines below which no map is fitted."""


def fit(raw: Floats, bad: Floats) -> Calibration | None:
    """The isotonic map from a tag's posterior to the share of such lines that were bad.

    ``raw`` [n] posteriors, ``bad`` [n] 0 or 1. None where too few lines are bad (or good) to tell.
    """
    from sklearn.isotonic import IsotonicRegression

    if not _SCARCE <= bad.sum() <= len(bad) - _SCARCE:
        return None
    found = IsotonicRegression(y_min=0, y_max=1).fit(raw, bad)
    # Later knots win where rounding makes two the same, so that the map stays on the safe side.
    knots = {
        round(float(x), 9): round(float(y), 6)
        for x, y in zip(found.X_thresholds_, found.y_thresholds_, strict=True)
    }
    return Calibration(of=Reading.POSTERIOR, knots=tuple(knots.items())) if len(knots) > 1 else None


class Comparison:
    """Adds up, document by document, where the model's posterior and the tagger part.

    ``at`` is the posterior from which the model expects a tag; ``listed``, how many disagreements
    of each direction are kept to be shown.
    """

    def __init__(self, tags: Sequence[str], at: float, listed: int = 10) -> None:
        self.tags, self.at, self.listed = tuple(tags), at, listed
        self.documents = self.lines = self.unjudged = 0
        self._counts: Counter[tuple[str, str]] = Counter()
        self._missed: list[tuple[float, int, int, dict[str, Any]]] = []
        self._doubted: list[tuple[float, int, int, dict[str, Any]]] = []
        self._raw: dict[str, list[float]] = {tag: [] for tag in tags}
        self._bad: dict[str, list[bool]] = {tag: [] for tag in tags}
        self._document: list[int] = []
        self._oracle = False

    def add(self, seen: Iterable[Seen]) -> None:
        """Take one document."""
        self.documents += 1
        for one in seen:
            self._take(one)

    def _take(self, one: Seen) -> None:
        self.lines += 1
        self._document.append(one.document)
        self._oracle |= one.truth is not None
        self.unjudged += one.truth is None
        missing = one.missing(self.at)
        for tag in self.tags:
            p, tagged = one.posterior[tag], tag in one.tagged
            self._raw[tag].append(p)
            self._bad[tag].append(tag in (one.tagged if one.truth is None else one.truth))
            self._counts[tag, "tagged"] += tagged
            self._counts[tag, "expected"] += p >= self.at
            if missing == tag:
                self._counts[tag, "missed"] += 1
                self._keep(self._missed, p, one, tag)
            if tagged and p < self.at:
                self._counts[tag, "doubted"] += 1
                self._keep(self._doubted, 1 - p, one, tag)
            if one.truth is not None:
                self._check(tag, tagged, missing == tag, tag in one.truth)

    def _check(self, tag: str, tagged: bool, added: bool, true: bool) -> None:
        counts = self._counts
        counts[tag, "true"] += true
        counts[tag, "tagged truly"] += tagged and true
        counts[tag, "tagged wrongly"] += tagged and not true
        counts[tag, "untagged"] += true and not tagged
        counts[tag, "added"] += added
        counts[tag, "added truly"] += added and true

    def _keep(
        self, heap: list[tuple[float, int, int, dict[str, Any]]], weight: float, one: Seen, tag: str
    ) -> None:
        shown: dict[str, Any] = {
            "document": one.document, "start": one.start, "end": one.end, "tag": tag,
            "posterior": round(one.posterior[tag], 5), "text": one.text.strip(),
        }  # fmt: skip
        if one.truth is not None:
            shown["oracle"] = sorted(one.truth)
        # Of equal ones the first stay; the number keeps the heap from comparing what is shown.
        heapq.heappush(heap, (weight, -self.lines, -self.tags.index(tag), shown))
        if len(heap) > self.listed:
            heapq.heappop(heap)

    def calibrations(self) -> tuple[dict[str, Calibration], dict[str, Any]]:
        """The map of each tag, fitted on every other document, and what it is worth on the rest.

        What was bad is what the oracle says, or where nobody asked it, what the tagger says.
        """
        maps: dict[str, Calibration] = {}
        facts: dict[str, Any] = {}
        held_out = np.array(self._document) % 2 == 1
        for tag in self.tags:
            raw, bad = np.array(self._raw[tag]), np.array(self._bad[tag], dtype=float)
            found = fit(raw[~held_out], bad[~held_out])
            if found is None or not held_out.any():
                continue
            maps[tag] = found
            mapped = np.array([found.apply(p) for p in raw[held_out].tolist()])
            facts[tag] = {
                "n": int(held_out.sum()),
                "bad": int(bad[held_out].sum()),
                "error": round(calibration_error(raw[held_out], bad[held_out]), 5),
                "error_calibrated": round(calibration_error(mapped, bad[held_out]), 5),
                "brier": round(brier(raw[held_out], bad[held_out]), 5),
                "brier_calibrated": round(brier(mapped, bad[held_out]), 5),
                "knots": len(found.knots),
                "top": found.top,
            }
        return maps, facts

    def facts(self) -> dict[str, Any]:
        """Everything as plain data."""
        names = ("tagged", "expected", "missed", "doubted")
        found: dict[str, Any] = {
            "documents": self.documents,
            "lines": self.lines,
            "at": self.at,
            "tags": {tag: {name: self._counts[tag, name] for name in names} for tag in self.tags},
            "missed": [shown for *_, shown in sorted(self._missed, key=_largest)],
            "doubted": [shown for *_, shown in sorted(self._doubted, key=_largest)],
            "oracle": None,
        }
        if self._oracle:
            total = {
                name: sum(self._counts[tag, name] for tag in self.tags)
                for name in ("true", "tagged truly", "tagged wrongly", "untagged", "added",
                             "added truly")
            }  # fmt: skip
            found["oracle"] = {
                "unjudged": self.unjudged,
                "tagged_wrongly": total["tagged wrongly"],
                "recall_before": Rate(total["tagged truly"], total["true"]).to_json(),
                "recall_after": Rate(
                    total["tagged truly"] + total["added truly"], total["true"]
                ).to_json(),
                "found": Rate(total["added truly"], total["untagged"]).to_json(),
                "precision": Rate(total["added truly"], total["added"]).to_json(),
            }
        return found


def _largest(kept: tuple[float, int, int, dict[str, Any]]) -> tuple[float, int, int]:
    return -kept[0], -kept[1], -kept[2]


def write_policy(maps: dict[str, Calibration], path: Path) -> None:
    """Write a policy whose rules read ``calibrated``: tags banned, cut where more likely bad than
    not. Raises :class:`CalibrationError` where no tag has a map."""
    import yaml

    if not maps:
        raise CalibrationError(
            f"no tag has {_SCARCE} bad lines to fit a map on; read more documents again"
        )
    at = {tag: min(0.5, found.top) for tag, found in maps.items()}
    text = yaml.safe_dump(
        {
            "name": "calibrated",
            "description": "Tags banned; a branch is cut where it is more likely bad than not.",
            "tags": {tag: {"control": "ban"} for tag in maps},
            "rules": [
                {"tag": tag, "reading": "calibrated", "at": at[tag], "action": "prune"}
                for tag in maps
            ],
            "calibrations": {
                tag: {"of": str(found.of), "knots": [list(knot) for knot in found.knots]}
                for tag, found in maps.items()
            },
        },
        sort_keys=False, default_flow_style=None, width=100,
    )  # fmt: skip
    Policy.from_yaml(text, str(path))
    path.write_text(text, encoding="utf-8")


def markdown(facts: dict[str, Any]) -> str:
    """Counts, the oracle's word, the maps, and the largest disagreements, as tables."""
    at = facts["at"]
    lines = [
        f"| {facts['documents']} documents, {facts['lines']} lines | tagged | posterior >= {at:g} "
        f"| of these untagged | tagged, posterior < {at:g} |",
        "| --- | --- | --- | --- | --- |",
        *(
            f"| {tag} | {row['tagged']} | {row['expected']} | {row['missed']} | {row['doubted']} |"
            for tag, row in facts["tags"].items()
        ),
    ]
    if (oracle := facts["oracle"]) is not None:
        lines += [
            "",
            "| judged by the oracle | share (95 % interval) | n |",
            "| --- | --- | --- |",
            _row("bad lines that the tagger tagged", oracle["recall_before"]),
            _row("bad lines tagged after relabelling", oracle["recall_after"]),
            _row("labels that the tagger missed, and the posterior found", oracle["found"]),
            _row("labels added that are right", oracle["precision"]),
        ]
    if maps := facts["calibration"]:
        lines += [
            "",
            "| posterior, on every other document | calibration error | calibrated | Brier score | "
            "calibrated | n |",
            "| --- | --- | --- | --- | --- | --- |",
            *(
                f"| {tag} | {row['error']:.4f} | {row['error_calibrated']:.4f} | "
                f"{row['brier']:.4f} | {row['brier_calibrated']:.4f} | {row['n']} |"
                for tag, row in maps.items()
            ),
        ]
    for name, words in (
        ("missed", "The model expects a tag, and the tagger put none"),
        ("doubted", "The tagger put a tag, and the model expects none"),
    ):
        if facts[name]:
            lines += ["", f"| {words} | tag | posterior | document |", "| --- | --- | --- | --- |"]
            lines += [
                f"| {one['text'].replace('|', chr(92) + '|')} | {one['tag']} | "
                f"{one['posterior']:.4f} | {one['document']} |"
                for one in facts[name]
            ]
    return "\n".join(lines) + "\n"


def _row(words: str, rate: dict[str, Any]) -> str:
    if not rate["n"]:
        return f"| {words} | none | 0 |"
    return (
        f"| {words} | {rate['value']:.4f} ({rate['low']:.4f} to {rate['high']:.4f}) | {rate['n']} |"
    )
