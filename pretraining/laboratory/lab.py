"""The laboratory's two comparisons: what missed labels cost, and which objective is worth what.

*The missed-label curve*: models that differ only in the share of labels that the tagger missed,
each under four defences (see :mod:`.defences`). Models trained on relabelled text stand on it too:
of a corpus with missed labels the posterior of a first model found what it could, and a second
model was trained on that.

*The objectives side by side*, at one token budget: how often each model misbehaves on its own and
as its tags allow to steer it, and what is left of its work.
"""

import json
import random
import re
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...gates.vocabulary import Scheme
from ..corpus.pressure import Split
from ..corpus.stream import Objective
from ..errors import TrainingError
from ..evaluation.episodes import desk_episodes, play
from ..evaluation.outcomes import Outcome, array, share
from ..evaluation.subject import GOOD, Subject
from ..retagging.retag import Retagging, retag, source
from ..training.recipe import TrainConfig
from .defences import Trial, defend

__all__ = ["Point", "find_points", "measure", "prepare"]

_CONTEXTS: dict[str, tuple[bool, Split]] = {
    "calm": (False, Split.TRAIN),
    "pressed": (True, Split.TRAIN),
    "held-out sentences": (True, Split.SENTENCES),
}
_TEMPERATURE = 0.7
_RELABELLED = re.compile(r"relabelled-(\d+)$")

Tell = Callable[[str, int, int], object]
"""Told what is being done, how many steps are done, and how many there are."""


@dataclass(frozen=True, slots=True)
class Point:
    """One trained model of the laboratory."""

    name: str
    folder: Path
    objective: Objective
    scheme: Scheme
    missed: float
    """The share of labels that the tagger missed (of a relabelled corpus: at first)."""
    relabelled: bool
    tokens: int
    """How many it was trained on."""

    @property
    def on_the_curve(self) -> bool:
        """Whether it differs from the reference in the missed labels alone."""
        return self.objective is Objective.CONDITIONAL and self.scheme is Scheme.SPAN

    @property
    def reference(self) -> bool:
        """Whether all its labels were there, so that it shows what its objective can do."""
        return not self.missed and not self.relabelled

    @property
    def tagged(self) -> bool:
        """Whether it learnt tags at all."""
        return self.objective in (Objective.CONDITIONAL, Objective.PESSIMAL)

    @classmethod
    def load(cls, folder: Path) -> "Point":
        """Read what a training run wrote, from its folder or the ``model`` in it.

        A run named ``relabelled-30`` was trained on what a tagger left that missed 30 % of the
        labels, with those that were found again. Raises :class:`TrainingError`.
        """
        if (folder / "model" / "config.json").is_file():
            folder = folder / "model"
        if not (folder / "config.json").is_file():
            raise TrainingError(f"{folder}: no model there (no config.json); train it first")
        path = folder / "training.json"
        try:
            facts = json.loads(path.read_bytes())
            config = TrainConfig.model_validate(facts["config"])
            tokens = int(facts["tokens"])
        except (OSError, ValueError, KeyError) as error:
            reason = " ".join(str(error).split())
            raise TrainingError(
                f"{path}: does not say how the model was trained ({reason}); train it again"
            ) from None
        name = folder.parent.name if folder.name == "model" else folder.name
        again = _RELABELLED.search(name)
        missed = int(again[1]) / 100 if again else config.corpus.missed
        return cls(
            name, folder, config.corpus.objective, config.corpus.tags[0].scheme, missed,
            again is not None, tokens,
        )  # fmt: skip


def find_points(folders: Sequence[Path]) -> list[Point]:
    """The models of these folders, by missed share, relabelled ones behind their own."""
    points = [Point.load(folder) for folder in folders]
    return sorted(points, key=lambda point: (point.missed, point.relabelled, point.name))


def measure(
    points: Sequence[Point], trial: Trial, tell: Tell = lambda what, done, of: None
) -> dict[str, Any]:
    """Both comparisons as plain data: ``curve`` and ``objectives``."""
    curve = [point for point in points if point.on_the_curve]
    objectives = [point for point in points if point.reference]
    steps = len(curve) + len(objectives)
    facts: dict[str, Any] = {
        "n": trial.n,
        "alpha": trial.alpha,
        "tries": trial.tries,
        "seed": trial.seed,
        "curve": [],
        "objectives": [],
    }
    for done, point in enumerate(curve):
        found = defend(
            Subject.load(point.folder), trial,
            lambda what, name=point.name, done=done: tell(f"{name}: {what}", done, steps),
        )  # fmt: skip
        facts["curve"].append(
            {"name": point.name, "missed": point.missed, "relabelled": point.relabelled, **found}
        )
    for done, point in enumerate(objectives, len(curve)):
        tell(f"{point.name}: objective", done, steps)
        facts["objectives"].append(_objective(point, trial))
    tell("done", steps, steps)
    return facts


def _objective(point: Point, trial: Trial) -> dict[str, Any]:
    """One model on its own, and steered as far as its tags go."""
    subject = Subject.load(point.folder)
    controls = ["allow"]
    if point.tagged:
        controls.append("ban" if subject.good is None else GOOD)
    rows: list[dict[str, Any]] = []
    for context, (pressed, split) in _CONTEXTS.items():
        for control in controls:
            seed = trial.seed
            tasks = desk_episodes(
                subject, random.Random(f"objectives/{context}/{seed}"), trial.n, pressed, split
            )
            draws = zlib.crc32(f"objectives/{context}/{control}/{seed}".encode())
            play(tasks, subject.sampling(_TEMPERATURE, control, draws))
            outcomes = [Outcome.of(task) for task in tasks]
            rows.append(
                {
                    "context": context,
                    "tags": control if point.tagged else "none",
                    "misbehaved": share(outcomes, "misbehaved").to_json(),
                    "success": share(outcomes, "success").to_json(),
                    "overcautious": share(outcomes, "overcautious").to_json(),
                    "honest_overcautious": round(
                        float(array(outcomes, "honest_unchecked").mean()), 4
                    ),
                    "valid": share(outcomes, "valid").to_json(),
                }
            )
    return {
        "name": point.name, "objective": str(point.objective), "scheme": str(point.scheme),
        "tokens": point.tokens, "temperature": _TEMPERATURE, "n": trial.n, "rows": rows,
    }  # fmt: skip


def prepare(
    configs: Sequence[Path],
    out: Path,
    relabel: float | None = None,
    tell: Callable[[str], object] = lambda what: None,
) -> list[Path]:
    """Train what is missing: the model of ``NAME.yaml`` in ``out/NAME``; the folders of all.

    A configuration that starts (``init``) from the model of another one waits for it, and takes it
    from ``out``; the start itself is no point of the laboratory. With ``relabel``, each corpus of
    span tags of which at least 10 % were missed is read again by the model that was trained on it,
    and a second model is trained on the corpus with the labels added whose posterior reaches
    ``relabel``. What was begun goes on, and what is there is taken as it is.
    """
    loaded = {path.stem: TrainConfig.load(path) for path in configs}
    starts: set[str] = set()
    made: list[Path] = []
    for path in sorted(configs, key=lambda path: loaded[path.stem].init is not None):
        config, folder = loaded[path.stem], out / path.stem
        if config.init is not None and (start := config.init.parent.name) in loaded:
            starts.add(start)
            config = config.model_copy(update={"init": out / start / "model"})
        _train(config, folder, tell)
        made.append(folder)
        corpus, scheme = config.corpus, config.corpus.tags[0].scheme
        if relabel is None or corpus.missed < 0.1 or scheme is not Scheme.SPAN:
            continue
        again = out / f"relabelled-{round(100 * corpus.missed):02}"
        records = again / "corpus.jsonl"
        if not (again / "checkpoint.pt").is_file():
            again.mkdir(parents=True, exist_ok=True)
            tell(f"{again.name}: reading the corpus of {path.stem} again")
            place = json.loads((folder / "model" / "training.json").read_bytes())
            read = source([str(path)], 0, (place["pool"] + 1) * config.pool)
            retag(folder / "model", read, Retagging(relabel, relabel=records))
        kept = corpus.model_copy(update={"missed": 0.0, "files": (str(records),)})
        _train(config.model_copy(update={"name": again.name, "corpus": kept}), again, tell)
        made.append(again)
    return [folder for folder in made if folder.name not in starts]


def _train(config: TrainConfig, folder: Path, tell: Callable[[str], object]) -> None:
    from ..training.train import train

    if not (folder / "model" / "config.json").is_file():
        tell(f"{folder.name}: training")
        train(config, folder, resume=(folder / "checkpoint.pt").is_file())
