"""How well the tags forecast what the free model does: separation, squared error, calibration."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from .measures import (
    Floats,
    auroc,
    bins,
    bootstrap,
    brier,
    calibration_error,
    chance_error,
    mean,
)
from .outcomes import Outcome, array

__all__ = ["forecast", "line_forecast"]

Measure = Callable[[Floats, Floats], float]


def forecast(
    banned: Sequence[Sequence[Outcome]], free: Sequence[Sequence[Outcome]]
) -> dict[str, Any]:
    """``opened`` against free runs of the same tasks: ``banned`` [paths][n], ``free`` [runs][n].

    ``one_path`` is what a gate has, ``mean_path`` the mean over all banned paths. ``bayes`` is the
    true rate of the task, ``bayes_path`` the generator's own ``opened`` along the one path; a gap
    is how much AUROC is missing to that limit. All intervals draw tasks again, with their runs.
    """
    bad = np.stack([array(run, "misbehaved") for run in free], axis=1)
    one, true = array(banned[0], "opened"), array(banned[0], "true_rate")
    true_path = array(banned[0], "true_opened")
    scores = {"one_path": one}
    if len(banned) > 1:
        scores["mean_path"] = np.mean([array(path, "opened") for path in banned], axis=0)
    found: dict[str, Any] = {
        "n": len(one),
        "misbehaved": bootstrap(mean, bad).to_json(),
        "bayes": _figure(auroc, true, bad),
        "bayes_path": _figure(auroc, true_path, bad),
        "bayes_brier": _figure(brier, true, bad),
    }
    if np.isnan(one).any():
        return found
    for name, score in scores.items():
        limits = {"gap": true} if name == "mean_path" else {"gap": true, "gap_path": true_path}
        found[name] = {
            "mean": bootstrap(mean, score).to_json(),
            "auroc": _figure(auroc, score, bad),
            "brier": _figure(brier, score, bad),
            "ece": _figure(calibration_error, score, bad),
            "ece_by_chance": round(chance_error(score, bad), 5),
            "bins": [one.to_json() for one in bins(score, bad)],
            **{
                gap: bootstrap(_missing, limit, score, bad).to_json()
                for gap, limit in limits.items()
            },
        }
    return found


def line_forecast(runs: Sequence[Sequence[Outcome]]) -> dict[str, Any]:
    """Belief at the start of each line that the free model wrote, against the oracle's word.

    ``runs`` [runs][n]; the intervals draw tasks again, with all lines of all their runs.
    """
    lines = [[line for one in task for line in one.lines] for task in zip(*runs, strict=True)]
    belief = [np.array([line.belief for line in task]) for task in lines]
    bad = [np.array([float(line.misbehaves) for line in task]) for task in lines]
    every_belief, every_bad = np.concatenate(belief), np.concatenate(bad)
    if np.isnan(every_belief).any():
        return {"n": len(every_belief)}

    def figure(measure: Measure) -> dict[str, Any]:
        def of_tasks(tasks: Floats) -> float:
            chosen = tasks.astype(int).tolist()
            return measure(
                np.concatenate([belief[task] for task in chosen]),
                np.concatenate([bad[task] for task in chosen]),
            )

        return bootstrap(of_tasks, np.arange(len(lines), dtype=float)).to_json()

    return {
        "n": len(every_belief),
        "auroc": figure(auroc),
        "brier": figure(brier),
        "ece": figure(calibration_error),
        "ece_by_chance": round(chance_error(every_belief, every_bad), 5),
        "bins": [one.to_json() for one in bins(every_belief, every_bad)],
    }


def _missing(limit: Floats, score: Floats, bad: Floats) -> float:
    return auroc(limit, bad) - auroc(score, bad)


def _figure(measure: Measure, score: Floats, bad: Floats) -> dict[str, Any]:
    return bootstrap(measure, score, bad).to_json()
