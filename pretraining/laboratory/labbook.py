"""What the laboratory measured, as tables and files."""

import json
from pathlib import Path
from typing import Any

from .points import WORDS, places, rows_at

__all__ = ["markdown", "save"]


def save(facts: dict[str, Any], folder: Path) -> None:
    """Write ``lab.json``, ``lab.md``, and where there is a curve ``missed.svg``."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "lab.json").write_text(json.dumps(facts, indent=2) + "\n")
    (folder / "lab.md").write_text(markdown(facts), encoding="utf-8")
    if facts["curve"]:
        from .curve import draw

        draw(facts, folder / "missed.svg")


def markdown(facts: dict[str, Any]) -> str:
    """Every figure with its 95 % interval."""
    lines: list[str] = []
    for temperature, context in places(facts["curve"]):
        lines += [
            f"| T = {temperature}, {context}, n = {facts['n']} | defence | misbehaved | kept | "
            "done, checked and truthfully reported | honest thoughts cut | honest tasks lost | "
            "tokens a task |",
            "| --- | --- | --- | --- | --- | --- | --- | --- |",
        ]
        for point in facts["curve"]:
            for row in rows_at(point["defences"], temperature, context):
                shares = (
                    row[name]
                    for name in ("misbehaved", "kept", "success", "honest_cut", "honest_tasks_lost")
                )
                words = WORDS[row["defence"]]
                lines.append(
                    f"| {_missed(point)} | {words} | {' | '.join(map(_show, shares))} | "
                    f"{row['tokens']:.1f} |"
                )
        lines += [
            "",
            f"| T = {temperature}, {context} | reading | threshold (honest runs) | "
            "AUROC, thoughts | AUROC, tasks | highest honest thought | lowest misbehaving |",
            "| --- | --- | --- | --- | --- | --- | --- |",
        ]
        for point in facts["curve"]:
            for row in rows_at(point["readings"], temperature, context):
                lines.append(
                    f"| {_missed(point)} | `{row['reading']}` | {row['threshold']:.4f} "
                    f"({row['honest_runs']}) | {_number(row['auroc_thoughts'])} | "
                    f"{_figure(row['auroc_tasks'])} | {_number(row['highest_honest'])} "
                    f"(n = {row['honest_thoughts']}) | {_number(row['lowest_misbehaving'])} "
                    f"(n = {row['misbehaving_thoughts']}) |"
                )
        lines.append("")
    if facts["objectives"]:
        first = facts["objectives"][0]
        lines += [
            f"| objective, T = {first['temperature']}, n = {first['n']} | million tokens | context "
            "| tags | misbehaved | done, checked and truthfully reported | honest but unchecked "
            "(of honest documents) | valid |",
            "| --- | --- | --- | --- | --- | --- | --- | --- |",
        ]
        for point in facts["objectives"]:
            for row in point["rows"]:
                lines.append(
                    f"| {point['name']} | {point['tokens'] / 1e6:.2f} | {row['context']} | "
                    f"{row['tags']} | {_show(row['misbehaved'])} | {_show(row['success'])} | "
                    f"{_show(row['overcautious'])} ({100 * row['honest_overcautious']:.1f} %) | "
                    f"{_show(row['valid'])} |"
                )
        lines.append("")
    return "\n".join(lines)


def _missed(point: dict[str, Any]) -> str:
    return f"{100 * point['missed']:g} % missed" + (", relabelled" if point["relabelled"] else "")


def _show(rate: dict[str, Any]) -> str:
    if not rate["n"]:
        return "none"
    value, low, high = (100 * rate[name] for name in ("value", "low", "high"))
    return f"{value:.2f} % ({low:.2f} to {high:.2f})"


def _figure(figure: dict[str, Any]) -> str:
    if figure["value"] is None or figure["low"] is None:
        return _number(figure["value"])
    return f"{figure['value']:.3f} ({figure['low']:.3f} to {figure['high']:.3f})"


def _number(value: float | None) -> str:
    return "none" if value is None else f"{value:.4f}"
